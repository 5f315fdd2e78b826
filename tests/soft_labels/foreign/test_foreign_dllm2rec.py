"""DLLM2Rec's files: lists come back on their rows, and every assumption that doesn't hold is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import polars as pl
import pytest
import torch
from foreign_data import ITEMS, Taught, distances, taught

from deshi.soft_labels.foreign._alignment import align_embeddings, align_rows
from deshi.soft_labels.foreign._dllm2rec import read_lists
from deshi.soft_labels.foreign._frames import read_sequences
from deshi.soft_labels.foreign._mapping import map_by_index
from deshi.soft_labels.foreign._rankings import check_direction, check_ranks, rank_evidence
from deshi.soft_labels.foreign._tensors import read_vectors
from deshi.types import PAD, DeshiError
from foreign_files import write_dllm2rec

pytestmark = pytest.mark.usefixtures("python_texts")

VECTORS = torch.arange(ITEMS * 3.0).reshape(ITEMS, 3)


@pytest.fixture
def data(tmp_path: Path) -> Taught:
    return taught(tmp_path)


@pytest.fixture
def written(tmp_path: Path, data: Taught) -> tuple[Path, Path]:
    return write_dllm2rec(tmp_path, data.bundle, data.rows, data.items, data.scores, VECTORS)


def test_lists_come_back_on_their_rows(written: tuple[Path, Path], data: Taught) -> None:
    """What stands in DLLM2Rec's files is found bit by bit, on the rows that it was made for."""
    lists = read_lists(*written)
    aligned = align_rows(lists, data.bundle, map_by_index(data.bundle))
    assert aligned.report.matched == len(data.rows) - aligned.report.ambiguous
    kept = aligned.rows != PAD
    assert aligned.report.ambiguous < 5 and np.array_equal(aligned.rows[kept], data.rows[kept])
    assert np.array_equal(aligned.items[kept], data.items[kept])
    assert aligned.scores is not None and np.array_equal(aligned.scores[kept], data.scores[kept])
    assert not lists.higher_is_better and lists.window == 10


def test_vectors_come_back(written: tuple[Path, Path], data: Taught) -> None:
    """Row i is item i, no padding row."""
    file, mapping = written[1] / "all_embeddings.pt", map_by_index(data.bundle)
    assert torch.equal(align_embeddings(read_vectors(file, ITEMS), file, data.bundle, mapping), VECTORS)
    with pytest.raises(DeshiError, match=r"\(40, 3\), expected \(39, D\)"):
        read_vectors(file, ITEMS - 1)


def test_pickled_frames_and_their_labels(written: tuple[Path, Path], data: Taught) -> None:
    """The program takes a line by the row's *label*: a shuffled frame with its labels must give the same lists."""
    folder, tocf = written
    table = pl.read_parquet(folder / "train_data.parquet")
    frame = pandas.DataFrame({name: table[name].to_list() for name in table.columns})
    shuffled = frame.sample(frac=1, random_state=0)
    (folder / "train_data.parquet").unlink()
    shuffled.to_pickle(folder / "train_data.df")
    pandas.DataFrame({"seq_size": [10], "item_num": [ITEMS]}).to_pickle(folder / "data_statis.df")
    (folder / "data_statis.parquet").unlink()
    labels = shuffled.index.to_numpy()
    assert np.array_equal(read_lists(folder, tocf).items, data.items[labels])
    by_position = read_lists(folder, tocf, row_order="position")
    assert np.array_equal(by_position.items, data.items)
    (folder / "train_data.df").unlink()
    pl.DataFrame(
        {**{name: shuffled[name].tolist() for name in table.columns}, "__index_level_0__": labels}
    ).write_parquet(folder / "train_data.parquet")
    assert np.array_equal(read_lists(folder, tocf).items, data.items[labels]), "to_parquet keeps the labels so"


def rewritten(path: Path, change: Callable[[np.ndarray], np.ndarray], form: str = "%.9g") -> None:
    np.savetxt(path, change(np.loadtxt(path, ndmin=2)), fmt=form)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("myrank_train", lambda ranks: ranks + 1, r"out of range, expected 0 to 39.*id_base"),
        ("myrank_train", lambda ranks: ranks + 0.5, "no whole numbers"),
        ("myrank_train", lambda ranks: ranks[:-1], "lines for"),
        ("myrank_train", lambda ranks: np.concatenate([ranks[:, :1], ranks[:, :-1]], axis=1), "hold an item twice"),
        ("myrank_train", lambda ranks: ranks[:, :-1], "expected the shape of myrank_train"),
        ("confidence_train", lambda values: -values, r"Pass confidence=score"),
        ("confidence_train", lambda values: np.where(values > 0.5, np.nan, values), "NaN"),
        ("confidence_train", lambda values: values[:, [1, 0, 2, 3, 4]] * [1, 1, 1, -1, 1], "don't belong together"),
        ("confidence_train", lambda values: values[:-1], "expected the shape"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    written: tuple[Path, Path], file: str, change: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    """A wrong base, direction or number of lines would teach nonsense without a single error later."""
    rewritten(written[1] / f"{file}.txt", change)
    with pytest.raises(DeshiError, match=says):
        read_lists(*written)


def test_stated_assumptions_are_used(written: tuple[Path, Path], data: Taught) -> None:
    """The same files with ids from 1 and similarities are fine when one says so."""
    tocf = written[1]
    rewritten(tocf / "myrank_train.txt", lambda ranks: ranks + 1, "%d")
    rewritten(tocf / "confidence_train.txt", lambda values: -values)
    lists = read_lists(*written, id_base=1, confidence="score")
    assert np.array_equal(lists.items, data.items) and lists.higher_is_better


def test_positions_in_place_of_ids_are_noticed(written: tuple[Path, Path], data: Taught) -> None:
    """BIGRec's rank is argsort().argsort(): each item's position. Written as myrank it looks like a list of ids."""
    folder, tocf = written
    matrix = distances(data)
    positions = matrix.argsort(axis=1).argsort(axis=1)
    (tocf / "confidence_train.txt").unlink()
    for width in (ITEMS, 10):
        np.savetxt(tocf / "myrank_train.txt", positions[:, :width], fmt="%d")
        with pytest.raises(DeshiError, match=r"holds positions, expected item ids.*argsort"):
            read_lists(folder, tocf)
    with pytest.raises(DeshiError, match=r"got 10"):
        read_lists(folder, tocf, rank_holds="positions")
    np.savetxt(tocf / "myrank_train.txt", positions, fmt="%d")
    np.savetxt(tocf / "confidence_train.txt", matrix)
    lists = read_lists(folder, tocf, rank_holds="positions")
    assert np.array_equal(lists.items, matrix.argsort(axis=1))
    assert lists.scores is not None and (np.diff(lists.scores, axis=1) >= 0).all()


def test_ids_are_not_taken_for_positions(data: Taught) -> None:
    """A detector that cries wolf would be switched off: true lists of ids, cut or full, pass."""
    matrix, nexts = distances(data), np.asarray(data.bundle.items)[data.rows + 1]
    ids, values = matrix.argsort(axis=1), np.sort(matrix, axis=1)
    assert rank_evidence(ids, ITEMS, nexts).holds == "ids"
    assert rank_evidence(ids[:, :10], ITEMS, nexts).holds == "ids"
    assert rank_evidence(ids[:, :10], ITEMS, None, values[:, :10]).holds == "ids"
    assert rank_evidence(ids[:, :10], ITEMS).holds == "unclear"
    popular = np.tile(np.arange(10), (len(ids), 1)) + 20
    assert rank_evidence(popular, ITEMS, np.full(len(ids), 20)).holds == "ids"


def test_positions_by_each_kind_of_evidence(data: Taught) -> None:
    """Their own distances, the true next items, or the rows' very form give positions away."""
    matrix, nexts = distances(data), np.asarray(data.bundle.items)[data.rows + 1]
    positions = matrix.argsort(axis=1).argsort(axis=1)
    assert rank_evidence(positions, ITEMS, None, matrix).holds == "positions"
    assert rank_evidence(positions[:, :10], ITEMS, None, matrix[:, :10]).holds == "positions"
    assert rank_evidence(positions, ITEMS, nexts).holds == "positions"
    within = matrix[:, :20].argsort(axis=1).argsort(axis=1)
    assert "permutation of 0 to 19" in rank_evidence(within, ITEMS, nexts).why
    with pytest.raises(DeshiError, match="aren't|are no|holds ids"):
        check_ranks(np.array([[0, ITEMS]]), ITEMS, 0, "f")
    check_direction(np.zeros((3, 2)), "distance", "ties are fine")


def frame(**columns: list[object]) -> pl.DataFrame:
    base = {"seq": [[1, 2, 40], [3, 40, 40], [4, 5, 6]], "len_seq": [2, 1, 3], "next": [3, 4, 5]}
    return pl.DataFrame(base | columns)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"seq": [[40, 1, 2], [3, 40, 40], [4, 5, 6]]}, "before an item, expected it on the right"),
        ({"len_seq": [3, 1, 3]}, "another number of items than len_seq"),
        ({"seq": [[1, 2, 0], [3, 0, 0], [4, 5, 6]]}, r"Short ones have 0 at their end most often"),
        ({"seq": [[1, 2, 40], [3, 40, 40], [4, 5, 41]]}, "1 of 9 out of range"),
        ({"next": [3, 4, 40]}, "1 of 9 out of range, expected 0 to 39"),
        ({"next": [3.5, 4.0, 5.0]}, "aren't whole"),
        ({"next": [None, 4, 5]}, "aren't whole"),
        ({"seq": [[1, 2], [3, 40, 40], [4, 5, 6]]}, "expected one length"),
    ],
)  # fmt: skip
def test_frames_are_checked(tmp_path: Path, columns: dict[str, list[object]], says: str) -> None:
    """Padding, lengths and ranges are what differs between programs; each mistake is named with its count."""
    frame(**columns).write_parquet(tmp_path / "f.parquet")
    with pytest.raises(DeshiError, match=says):
        read_sequences(tmp_path / "f.parquet", ITEMS)


def test_frames_of_other_columns(tmp_path: Path) -> None:
    """A parquet file of something else."""
    pl.DataFrame({"a": [1], "b": [2]}).write_parquet(tmp_path / "f.parquet")
    with pytest.raises(DeshiError, match="expected seq, len_seq, next"):
        read_sequences(tmp_path / "f.parquet", ITEMS)
