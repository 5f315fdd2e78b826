"""What every stage leaves behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from deshi.artifacts import (
    atomic_folder,
    new_run_folder,
    read_array,
    read_json,
    read_parquet,
    read_tensors,
    write_array,
    write_json,
    write_parquet,
    write_tensors,
)
from deshi.types import DeshiError


def test_run_folders_sort_in_the_order_of_their_making(tmp_path: Path) -> None:
    """The newest run is found by its name, also when a run takes less than a second."""
    made = [new_run_folder(tmp_path, "fit", name) for name in ("zebra", "ant")]
    assert sorted(path.name for path in made) == [path.name for path in made]
    assert made[0].name[:15] < made[1].name[:15] and all(path.is_dir() for path in made)


def test_a_file_and_a_folder_inside_a_new_folder(tmp_path: Path) -> None:
    """Writers inside writers hold several locks at once and must not wait for themselves."""
    with atomic_folder(tmp_path / "new") as folder:
        write_json(folder / "a.json", 1)
        with atomic_folder(folder / "inner") as inner:
            write_array(inner / "x.npy", np.arange(3))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "inner", "new", "x.npy"]


def test_killed_writers_leave_nothing_for_long(tmp_path: Path) -> None:
    """The next writer removes what a killed one left, and leaves alone what a living one is at."""
    code = "import os, sys; from pathlib import Path; from deshi.artifacts import atomic_folder\n"
    code += "with atomic_folder(Path(sys.argv[1])) as folder:\n    (folder / 'x').touch(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "data")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_folder(tmp_path / "data") as first:
        with atomic_folder(tmp_path / "data") as second:
            (second / "second").touch()
        assert len(list(tmp_path.iterdir())) == 2
        (first / "first").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "first"]


def test_a_folder_moved_away_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    """A kill between the two renames of a replacement must not cost the old data."""
    (tmp_path / ".data.0a1b2c3d.old").mkdir()
    (tmp_path / ".data.0a1b2c3d.old" / "x").touch()
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "data"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "x"]


def test_many_writers_of_one_folder(tmp_path: Path) -> None:
    """Whoever comes last wins whole: no writer fails, nothing is mixed, nothing is left."""

    def write(number: int) -> None:
        with atomic_folder(tmp_path / "data") as folder:
            for name in "ab":
                write_json(folder / name, number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert read_json(tmp_path / "data" / "a") == read_json(tmp_path / "data" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_in_the_place_of_a_folder_stays(tmp_path: Path) -> None:
    """What isn't deshi's is never replaced by what is."""
    (tmp_path / "data").touch()
    with pytest.raises(NotADirectoryError, match="data"), atomic_folder(tmp_path / "data"):
        raise AssertionError
    assert (tmp_path / "data").is_file()


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    """Native writers name no file, or a temporary one: the user needs the real one."""
    code = "import resource, signal, sys; import numpy as np, polars as pl; from pathlib import Path\n"
    code += "from deshi.artifacts import write_array, write_parquet, write_tensors\n"
    code += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))\n"
    code += "values = np.random.default_rng(0).random(99999); folder = Path(sys.argv[1])\n"
    code += "for write in (lambda p: write_array(p, values), lambda p: write_parquet(pl.DataFrame({'a': values}), p),\n"
    code += "              lambda p: write_tensors({'a': values}, p)):\n"
    code += "    try: write(folder / 'x')\n    except OSError as error: print(error.filename)\n"
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [str(tmp_path / "x")] * 3
    assert list(tmp_path.iterdir()) == []


def test_signs_of_patterns_in_a_path_mean_themselves(tmp_path: Path) -> None:
    """Polars takes [1] for a pattern: another file would be read."""
    for name, value in (("[1]", 1), ("1", 2)):
        write_parquet(pl.DataFrame({"a": [value]}), tmp_path / name / "t.parquet")
    assert read_parquet(tmp_path / "[1]" / "t.parquet", ("a",)).item() == 1


def test_damaged_files_are_named_with_what_to_do(tmp_path: Path) -> None:
    """A truncated artifact is no traceback."""
    write_parquet(pl.DataFrame({"a": [1]}), tmp_path / "t.parquet")
    write_array(tmp_path / "t.npy", np.arange(9))
    write_tensors({"a": np.arange(9)}, tmp_path / "t.safetensors")
    write_json(tmp_path / "t.json", {"a": [1, 2]})
    readers: dict[str, Callable[[Path], object]] = {
        "parquet": read_parquet,
        "npy": read_array,
        "safetensors": read_tensors,
        "json": read_json,
    }
    for suffix, read in readers.items():
        path = tmp_path / f"t.{suffix}"
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(DeshiError, match=rf"t\.{suffix}.*again"):
            read(path)
    write_parquet(pl.DataFrame({"a": [1]}), tmp_path / "t.parquet")
    with pytest.raises(DeshiError, match=r"t\.parquet lacks b"):
        read_parquet(tmp_path / "t.parquet", ("a", "b"))
    write_json(tmp_path / "t.json", {"a": {}})
    with pytest.raises(DeshiError, match=r"t\.json lacks b"):
        read_json(tmp_path / "t.json")["a"]["b"]
