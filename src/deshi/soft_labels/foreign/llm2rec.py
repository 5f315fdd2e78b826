"""LLM2Rec's item vectors (github HappyPointer/LLM2Rec, KDD 2025), read and written.

``*_item_embs.npy`` has ``N + 1`` rows: row 0 is the embedding of the text "Null", the placeholder for padding (no
zeros!), row ``i`` is item ``i``; items are 1 to ``N``. ``item_titles.json`` maps ``"1"`` to the title of item 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from deshi.artifacts import atomic_file, write_json
from deshi.data.bundle import Bundle
from deshi.soft_labels.foreign.alignment import ForeignEmbeddings
from deshi.soft_labels.foreign.tensors import read_array
from deshi.soft_labels.foreign.titles import bundle_titles, check_contiguous, read_json_object
from deshi.types import DeshiError


def read_titles(path: Path | str) -> dict[int, str]:
    """Read ``item_titles.json``.

    Raises:
        DeshiError: unless its numbers are 1 to ``N``.
    """
    try:
        titles = {int(number): str(title) for number, title in read_json_object(path).items()}
    except ValueError as error:
        raise DeshiError(f"{path} has keys that aren't numbers ({error}), expected 1 to N.") from error
    check_contiguous(titles, 1, str(path))
    return titles


def read_embeddings(path: Path | str, n_items: int, pad_row: bool = True) -> ForeignEmbeddings:
    """Read the vectors of items 1 to ``n_items``.

    Args:
        path: the ``.npy`` file.
        n_items: number of items, of ``item_titles.json`` for example.
        pad_row: whether row 0 is the placeholder; False: row 0 is item 1.

    Raises:
        DeshiError: if the number of rows isn't as stated, or rows hold NaN.
    """
    matrix = read_array(path)
    return numbered(matrix, n_items, pad_row, str(path))


def numbered(matrix: np.ndarray, n_items: int, pad_row: bool, source: str) -> ForeignEmbeddings:
    """Vectors of items 1 to ``n_items``, after a padding row or without one.

    Raises:
        DeshiError: with the shape got and expected, and which choice of ``pad_row`` would fit.
    """
    expected = n_items + pad_row
    if matrix.ndim != 2 or len(matrix) != expected:
        extra = len(matrix) - n_items if matrix.ndim == 2 else None
        advice = {0: "Pass pad_row=false if row 0 is item 1.", 1: "Pass pad_row=true if row 0 is padding."}
        raise DeshiError(
            f"{source} has the shape {matrix.shape}, expected ({expected}, D): {n_items} items and "
            f"{int(pad_row)} padding row at the beginning. {advice.get(extra or 0) if extra in advice else ''}"
            "Check that it belongs to this data set."
        )
    notes: tuple[str, ...] = ()
    if pad_row:
        zero = not matrix[0].any()
        notes = (f"row 0, the padding, is {'all zeros' if zero else 'no zeros (the embedding of a placeholder)'}",)
    return ForeignEmbeddings(matrix[int(pad_row) :], np.arange(1, n_items + 1, dtype=np.int64), source, notes)


def write_llm2rec(folder: Path | str, name: str, bundle: Bundle, embeddings: Tensor) -> None:
    """Write ``NAME_item_embs.npy`` with a zero row for padding, and ``item_titles.json``; number = item index + 1.

    Raises:
        DeshiError: for another number of vectors than items.
    """
    matrix = embeddings.detach().cpu().float().numpy()
    if matrix.ndim != 2 or len(matrix) != bundle.n_items:
        raise DeshiError(f"There are vectors of shape {matrix.shape}, expected ({bundle.n_items}, D), one an item.")
    with atomic_file(Path(folder) / f"{name}_item_embs.npy") as temporary, temporary.open("wb") as handle:
        np.save(handle, np.concatenate([np.zeros_like(matrix[:1]), matrix]), allow_pickle=False)
    titles = bundle_titles(bundle)
    write_json(Path(folder) / "item_titles.json", {str(number + 1): title for number, title in enumerate(titles)})
