"""Pickles from elsewhere are read as data, whatever wrote them."""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pickled_frames import PANDAS_0_25, PANDAS_1_5, PANDAS_3_ARROW, pickled

from deshi.soft_labels.foreign.decoding import Frame
from deshi.soft_labels.foreign.unpickle import read_pickle
from deshi.types import DeshiError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def saved(path: Path, value: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_come_back(tmp_path: Path, protocol: int) -> None:
    """Foreign files hold dicts of lists and the like, in every protocol that Python has had."""
    value = {
        "a": [1, -2, 2**40, 2**80, 1.5, None, True, False, "é\n", b"\x00\xff"],
        3: (1, (2,), ()),
        (1, "x"): {1, 2},
        "f": frozenset({"y"}),
    }
    assert read_pickle(saved(tmp_path / "f.pkl", value, protocol)) == value
    shared = [[1, 2]] * 3
    assert read_pickle(saved(tmp_path / "f.pkl", shared, protocol)) == shared


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_and_default_dicts_become_dicts(tmp_path: Path, protocol: int) -> None:
    """Research code pickles ``defaultdict(list)`` of histories; its factory is of no use to a reader."""
    histories = defaultdict(list, {7: [1, 2]})
    value = {"o": OrderedDict([("b", 1), ("a", 2)]), "d": histories}
    found = read_pickle(saved(tmp_path / "f.pkl", value, protocol))
    assert found == {"o": {"b": 1, "a": 2}, "d": {7: [1, 2]}}
    assert type(found["d"]) is dict and list(found["o"]) == ["b", "a"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(12).reshape(3, 4)[::2, ::-1],
        np.array([1, 2], dtype=">i4"),
        np.array([True, False]),
        np.array(["ab", "ü"]),
        np.array([b"ab", b"c"]),
        np.array(["2020-01-01", "2021-02-03"], dtype="datetime64[ns]"),
        np.zeros((0, 3), dtype=np.float16),
        np.array(2.5),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    """The arrays are rebuilt by deshi's own code: every order, byte order and type must be the same as numpy's."""
    found = read_pickle(saved(tmp_path / "f.pkl", {"x": array, "y": [array]}, protocol))
    assert found["x"].dtype == array.dtype and found["x"].shape == array.shape
    assert np.array_equal(found["x"], array) and np.array_equal(found["y"][0], array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_in_arrays_and_numbers_come_back(tmp_path: Path, protocol: int) -> None:
    """Frames of iLoRA hold tuples of numpy numbers inside lists inside object arrays."""
    array = np.empty(2, dtype=object)
    array[0], array[1] = [(np.int64(3), 4)], None
    found = read_pickle(saved(tmp_path / "f.pkl", {"a": array, "n": np.float32(1.5)}, protocol))
    assert found["a"][0] == [(3, 4)] and found["a"][1] is None
    assert found["n"] == 1.5 and found["n"].dtype == np.float32


@pytest.mark.parametrize("text", [PANDAS_0_25, PANDAS_1_5, PANDAS_3_ARROW], ids=["0.25", "1.5", "3-arrow"])
def test_frames_of_every_pandas(tmp_path: Path, text: str) -> None:
    """A frame that was pickled in 2019 is still lying in somebody's repository, and pandas 3 can't always read it."""
    (tmp_path / "f.df").write_bytes(pickled(text))
    frame = read_pickle(tmp_path / "f.df")
    assert isinstance(frame, Frame) and len(frame) == 3 and list(frame.index) == [0, 1, 2]
    assert frame.columns["seq"].tolist() == [[1, 2], [3, 4], [5, 5]]
    assert frame.columns["len_seq"].tolist() == [2, 2, 1]
    assert frame.columns["next"].tolist() == [1.0, 2.0, 3.0]
    assert frame.columns["title"].tolist() == ["a", "b", None]


@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_frames_of_the_installed_pandas(tmp_path: Path, protocol: int) -> None:
    """Row labels of a filtered frame aren't 0 to M - 1, and they say which row of a teacher's file belongs to a row."""
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"seq": [[1], [2], [3]], "n": [1, 2, 3], "f": [0.5, None, 2], "t": ["a", "b", "c"]})
    table = table[table.n != 2]
    found = read_pickle(saved(tmp_path / "f.df", table, protocol))
    assert list(found.index) == [0, 2] and found.columns["seq"].tolist() == [[1], [3]]
    assert found.columns["t"].tolist() == ["a", "c"] and found.columns["f"].tolist() == [0.5, 2.0]
    series = read_pickle(saved(tmp_path / "s.df", table["n"], protocol))
    assert series.columns["n"].tolist() == [1, 3]
    assert list(read_pickle(saved(tmp_path / "i.df", table.index, protocol))) == [0, 2]


def test_what_is_not_read_says_why(tmp_path: Path) -> None:
    """A category column and a MultiIndex are data, but not such as any of the programs writes."""
    pandas = pytest.importorskip("pandas")
    category = saved(tmp_path / "c.df", pandas.DataFrame({"c": pandas.Categorical(["a", "b"])}), 4)
    with pytest.raises(DeshiError, match="Categorical"):
        read_pickle(category)
    table = pandas.DataFrame({"x": [1]}, index=pandas.MultiIndex.from_tuples([(1, 2)]))
    with pytest.raises(DeshiError, match="MultiIndex"):
        read_pickle(saved(tmp_path / "m.df", table, 4))


def test_missing_compressed_and_large_files(tmp_path: Path) -> None:
    """The three commonest mistakes with a path, each with what to do."""
    with pytest.raises(DeshiError, match="can't be read"):
        read_pickle(tmp_path / "none.pkl")
    (tmp_path / "f.gz").write_bytes(b"\x1f\x8b...")
    with pytest.raises(DeshiError, match="gzip"):
        read_pickle(tmp_path / "f.gz")
    with pytest.raises(DeshiError, match="expected at most 10"):
        read_pickle(saved(tmp_path / "f.pkl", np.zeros(100), 4), limit=10)
