"""Readers of ``deshi label import``, one a program: from its files to lists on the bundle's rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.soft_labels.foreign._alignment import Alignment, ForeignLists, align_embeddings, align_rows
from deshi.soft_labels.foreign._bigrec import read_examples
from deshi.soft_labels.foreign._dllm2rec import read_lists
from deshi.soft_labels.foreign._frames import read_sequences
from deshi.soft_labels.foreign._llara import read_answers
from deshi.soft_labels.foreign._mapping import ItemMapping, map_by_id, map_by_index, map_by_title
from deshi.soft_labels.foreign._tensors import read_vectors
from deshi.soft_labels.foreign._titles import bigrec_names, llara_names

How = Literal["exact", "contained"]


@dataclass(frozen=True, eq=False)
class Imported:
    """Foreign lists on a bundle's rows.

    Attributes:
        program: whose they are.
        lists: on the bundle's rows.
        embeddings: ``(n_items, D)`` or None.
        notes: counts of what was read, matched and left out.
    """

    program: str
    lists: Alignment
    embeddings: Tensor | None
    notes: list[str]


def dllm2rec(
    bundle: Bundle,
    data: str,
    tocf: str,
    item_ids: dict[str, str] | None = None,
    id_base: int = 0,
    rank_holds: Literal["ids", "positions"] = "ids",
    confidence: Literal["distance", "score"] = "distance",
    row_order: Literal["label", "position"] = "label",
    how: How = "exact",
) -> Imported:
    """DLLM2Rec's ranks, confidences and, where they are, embeddings.

    Args:
        bundle: the data.
        data: folder with ``train_data`` and ``data_statis``.
        tocf: folder with ``myrank_train.txt`` and, perhaps, ``confidence_train.txt`` and ``all_embeddings.pt``.
        item_ids: from their numbers to the bundle's item ids; null: their numbers are the bundle's indices.
        id_base: see :func:`deshi.soft_labels.foreign._dllm2rec.read_lists`, as the next three.
        rank_holds: ids or positions.
        confidence: distance or score.
        row_order: label or position.
        how: see :func:`deshi.soft_labels.foreign._alignment.align_rows`.
    """
    lists = read_lists(data, tocf, id_base, rank_holds, confidence, row_order)
    if item_ids is None:
        mapping = map_by_index(bundle)
    else:
        mapping = map_by_id({int(number): item for number, item in item_ids.items()}, bundle)
    vectors = Path(tocf) / "all_embeddings.pt"
    n_items = bundle.n_items if item_ids is None else len(item_ids)
    return _imported("dllm2rec", bundle, lists, mapping, how, vectors if vectors.is_file() else None, n_items)


def bigrec(bundle: Bundle, examples: str, names: str, embeddings: str | None = None, how: How = "exact") -> Imported:
    """BIGRec's examples with generated titles, matched word for word.

    Args:
        bundle: the data, with titles.
        examples: the JSON file with ``predict``.
        names: ``id2name.txt``.
        embeddings: ``item_embedding.pt``, or null.
        how: see :func:`deshi.soft_labels.foreign._alignment.align_rows`.
    """
    titles = bigrec_names(names)
    lists, vectors = read_examples(examples, titles), None if embeddings is None else Path(embeddings)
    return _imported("bigrec", bundle, lists, map_by_title(titles, bundle), how, vectors, len(titles))


def llara(bundle: Bundle, frame: str, answers: str, names: str, how: How = "contained") -> Imported:
    """LLaRA's or iLoRA's answers about candidates: one item a row.

    Args:
        bundle: the data, with titles.
        frame: ``Test_data.df``, ``Val_data.df`` or their parquet.
        answers: ``test.csv`` or ``valid.csv``.
        names: ``id2name.txt``.
        how: see :func:`deshi.soft_labels.foreign._alignment.align_rows`.
    """
    titles = llara_names(names)
    answered = read_answers(answers, read_sequences(frame, len(titles)), titles)
    imported = _imported("llara", bundle, answered.lists, map_by_title(titles, bundle), how)
    imported.notes.append(
        f"HitRatio@1 {answered.hit_ratio:.4f} of valid answers, valid ratio {answered.valid:.4f}, their product "
        f"{answered.hits:.4f}"
    )
    return imported


def _imported(
    program: str,
    bundle: Bundle,
    lists: ForeignLists,
    mapping: ItemMapping,
    how: How,
    vectors: Path | None = None,
    n_items: int = 0,
) -> Imported:
    alignment, embeddings = align_rows(lists, bundle, mapping, how), None
    if vectors is not None:
        embeddings = align_embeddings(read_vectors(vectors, n_items), vectors, bundle, mapping)
    notes = [*lists.notes, f"items by {mapping.describe()}", f"rows: {alignment.report.describe()}"]
    return Imported(program, alignment, embeddings, notes)
