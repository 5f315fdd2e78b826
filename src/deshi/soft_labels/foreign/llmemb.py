"""Item vectors of LLM-ESR and LLMEmb (github liuqidong07/LLM-ESR, liuqidong07/LLMEmb), read and written.

``itm_emb_np.pkl``, ``pca64_itm_emb_np.pkl``, ``pca_itm_emb_np.pkl``, ``default_pca.pkl``, ``itm_emb_sasrec.pkl``: a
pickled numpy array of ``N`` rows without padding; row ``i`` is item ``i + 1``. The programs themselves insert a row of
zeros before it (and LLM-ESR one after it). ``id_map.json`` holds ``item2id`` and ``id2item``, numbers from 1 as text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from deshi.artifacts import atomic_file, write_json
from deshi.data.bundle import Bundle
from deshi.soft_labels.foreign.alignment import ForeignEmbeddings
from deshi.soft_labels.foreign.llm2rec import numbered
from deshi.soft_labels.foreign.tensors import read_array
from deshi.soft_labels.foreign.titles import check_contiguous, read_json_object
from deshi.soft_labels.foreign.unpickle import LIMIT, read_pickle
from deshi.types import ITEM, DeshiError


def read_id_map(path: Path | str) -> dict[int, str]:
    """Read ``id_map.json``: the data set's item id of each number.

    Raises:
        DeshiError: if ``item2id`` and ``id2item`` are missing, disagree, or aren't numbered from 1.
    """
    content = read_json_object(path)
    forward, back = content.get("item2id"), content.get("id2item")
    if not isinstance(forward, dict) or not isinstance(back, dict):
        raise DeshiError(f"{path} has {sorted(content)}, expected item2id and id2item.")
    try:
        items = {int(number): str(item) for number, item in back.items()}
        same = {int(number): str(item) for item, number in forward.items()} == items
    except (ValueError, TypeError) as error:
        raise DeshiError(f"{path} has numbers that aren't numbers ({error}), expected 1 to N as text.") from error
    if not same:
        raise DeshiError(f"{path}: item2id ({len(forward)} items) isn't the inverse of id2item ({len(back)} items).")
    check_contiguous(items, 1, str(path))
    return items


def read_embeddings(path: Path | str, n_items: int, pad_row: bool = False, limit: int = LIMIT) -> ForeignEmbeddings:
    """Read the vectors of items 1 to ``n_items``.

    Args:
        path: the ``.pkl`` file, or deshi's ``.npy``.
        n_items: number of items, of ``id_map.json`` for example.
        pad_row: whether row 0 is padding; in both programs' files it isn't.
        limit: bytes of memory that a pickle may take.

    Raises:
        DeshiError: if the file holds no matrix of numbers, or another number of rows than stated.
    """
    found = read_array(path) if Path(path).suffix == ".npy" else read_pickle(path, limit)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        what = found.dtype if isinstance(found, np.ndarray) else type(found).__name__
        raise DeshiError(f"{path} holds {what}, expected a numpy array of numbers (np.array of all items' vectors).")
    return numbered(found, n_items, pad_row, str(path))


def write_llmemb(folder: Path | str, name: str, bundle: Bundle, embeddings: Tensor) -> None:
    """Write ``NAME.npy`` (one row an item, no padding) and ``id_map.json``; number = item index + 1.

    The programs want the array pickled, which deshi doesn't do; ``docs/foreign-formats.md`` has the line that converts.

    Raises:
        DeshiError: for another number of vectors than items.
    """
    matrix = embeddings.detach().cpu().float().numpy()
    if matrix.ndim != 2 or len(matrix) != bundle.n_items:
        raise DeshiError(f"There are vectors of shape {matrix.shape}, expected ({bundle.n_items}, D), one an item.")
    with atomic_file(Path(folder) / f"{name}.npy") as temporary, temporary.open("wb") as handle:
        np.save(handle, matrix, allow_pickle=False)
    numbers = {item: str(place + 1) for place, item in enumerate(bundle.vocabulary[ITEM].to_list())}
    back = {number: item for item, number in numbers.items()}
    write_json(Path(folder) / "id_map.json", {"item2id": numbers, "id2item": back})
