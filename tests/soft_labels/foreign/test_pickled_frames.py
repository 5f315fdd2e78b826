"""Data frames of every pandas are read without pandas."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from pickled_frames import PANDAS_0_25, PANDAS_1_5, PANDAS_3_ARROW, pickled

from deshi.soft_labels.foreign._pickled_frames import read_pickled_frame
from deshi.types import DeshiError

pytestmark = pytest.mark.usefixtures("python_texts")

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def saved(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("text", [PANDAS_0_25, PANDAS_1_5], ids=["0.25", "1.5"])
def test_frames_of_old_pandas(tmp_path: Path, text: str) -> None:
    """A frame that was pickled in 2019 is still lying in somebody's repository, and pandas 3 can't always read it."""
    (tmp_path / "f.df").write_bytes(pickled(text))
    frame = read_pickled_frame(tmp_path / "f.df")
    assert list(frame.index) == [0, 1, 2]
    assert frame.columns["seq"].tolist() == [[1, 2], [3, 4], [5, 5]]
    assert frame.columns["len_seq"].tolist() == [2, 2, 1]
    assert frame.columns["next"].tolist() == [1.0, 2.0, 3.0]
    assert frame.columns["title"].tolist() == ["a", "b", None]


def test_texts_in_pyarrow_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """Pandas 3 keeps even column names in pyarrow where that is installed; its buffers aren't decoded here."""
    (tmp_path / "f.df").write_bytes(pickled(PANDAS_3_ARROW))
    with pytest.raises(DeshiError, match=r"ArrowStringArray.*read_pickle\('f\.df'\)\.to_parquet\('f\.parquet'\)"):
        read_pickled_frame(tmp_path / "f.df")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frames_of_the_installed_pandas(tmp_path: Path, protocol: int) -> None:
    """Row labels of a filtered frame aren't 0 to M - 1, and they say which row of a teacher's file belongs to a row."""
    table = pandas.DataFrame({"seq": [[1], [2], [3]], "n": [1, 2, 3], "f": [0.5, None, 2], "t": ["a", "b", "c"]})
    frame = read_pickled_frame(saved(tmp_path / "f.df", table[table.n != 2], protocol))
    assert list(frame.index) == [0, 2] and frame.columns["seq"].tolist() == [[1], [3]]
    assert frame.columns["t"].tolist() == ["a", "c"] and frame.columns["f"].tolist() == [0.5, 2.0]
    shuffled = read_pickled_frame(saved(tmp_path / "f.df", table.sample(frac=1, random_state=1), protocol))
    assert [table["n"][label] for label in shuffled.index] == shuffled.columns["n"].tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["<i4", ">i4", "<f8", "|b1", "<u2", "<f2", "O"])
def test_columns_of_every_type(tmp_path: Path, protocol: int, kind: str) -> None:
    """The arrays are rebuilt here: every byte order and type must be the same as numpy's."""
    values = np.array([1, 0, 3]).astype(kind)
    frame = read_pickled_frame(saved(tmp_path / "f.df", pandas.DataFrame({"x": values, "y": values[::-1]}), protocol))
    assert frame.columns["x"].tolist() == values.tolist() and frame.columns["y"].tolist() == values[::-1].tolist()


def test_objects_inside_objects(tmp_path: Path) -> None:
    """Frames of iLoRA hold tuples of numpy numbers inside lists, and others hold arrays as histories."""
    table = pandas.DataFrame({"a": [[(np.int64(3), 4)], None], "b": [np.arange(2), np.arange(3)]})
    frame = read_pickled_frame(saved(tmp_path / "f.df", table))
    assert frame.columns["a"].tolist() == [[(3, 4)], None]
    assert [history.tolist() for history in frame.columns["b"]] == [[0, 1], [0, 1, 2]]


def test_other_content_is_refused_by_its_name(tmp_path: Path) -> None:
    """Categories, a MultiIndex, a series, an array: none of the programs' frames has them."""
    labels = pandas.MultiIndex.from_tuples([(1, 2)])
    for value, name in (
        (pandas.DataFrame({"c": pandas.Categorical(["a", "b"])}), "Categorical"),
        (pandas.DataFrame({"c": pandas.to_datetime(["2020-01-01"])}), "Datetime"),
        (pandas.DataFrame({"x": [1]}, index=labels), "MultiIndex"),
        (pandas.Series([1, 2]), "Series"),
        (np.zeros(3), "holds a Array"),
        ({"seq": [1]}, "holds a dict"),
    ):
        with pytest.raises(DeshiError, match=rf"f\.df.*{name}"):
            read_pickled_frame(saved(tmp_path / "f.df", value))


def test_missing_and_compressed_files(tmp_path: Path) -> None:
    """The commonest mistakes with a path."""
    with pytest.raises(DeshiError, match="can't be read"):
        read_pickled_frame(tmp_path / "none.df")
    (tmp_path / "f.gz").write_bytes(b"\x1f\x8b...")
    with pytest.raises(DeshiError, match="no pickle"):
        read_pickled_frame(tmp_path / "f.gz")
