"""What all tests share: no test reads or writes the user's cache, and a tiny data set in MovieLens' own format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import deshi
from browser_pages import browser
from tiny_movielens import SMALL, write_tiny_movielens

pytest.register_assert_rewrite("deshi.testing")
__all__ = ["browser"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # only ranx uses it, on lists so short that compiling takes a minute


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test that reached the user's cache would pass or fail by what lies there."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("DESHI_CACHE", str(cache))
    return cache


@pytest.fixture
def python_texts() -> Iterator[None]:
    """Frames as researchers pickled them: where pyarrow is installed, pandas 3 would keep texts in it."""
    import pandas

    with pandas.option_context("mode.string_storage", "python"):
        yield


@pytest.fixture(scope="session")
def model_cache(pytestconfig: pytest.Config) -> Path:
    """A cache of real models that outlives the test run (pytest's own), so that slow tests fetch each once."""
    return Path(pytestconfig.cache.mkdir("models"))


@pytest.fixture(scope="session")
def tiny_movielens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``u.data`` and ``u.item``: 60 users, 40 items, made by a fixed rule."""
    return write_tiny_movielens(tmp_path_factory.mktemp("ml-100k"))


@pytest.fixture(scope="session")
def config_dir(tmp_path_factory: pytest.TempPathFactory, tiny_movielens: Path) -> Path:
    """A configuration folder of the user's own: ``data=tiny`` and ``experiment=short``."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "data").mkdir()
    (folder / "data" / "tiny.yaml").write_text(
        "# The tiny data set of the tests.\n"
        "name: tiny\n"
        f"source: {{_target_: deshi.data.sources.movielens.MovieLens, version: 100k, path: {tiny_movielens}}}\n"
    )
    (folder / "experiment").mkdir()
    (folder / "experiment" / "short.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /student: gru4rec\ntrain:\n  max_epochs: 7\n  patience: 5\n"
    )
    return folder


@pytest.fixture(scope="session")
def _finished_root(tmp_path_factory: pytest.TempPathFactory, config_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    root = f"paths.root={folder}"
    deshi.prepare(root, config_dir=config_dir, data="tiny")
    for seed in (0, 1):
        run = deshi.fit(root, *SMALL, f"seed={seed}", f"name=tiny_seed{seed}", config_dir=config_dir, data="tiny")
        deshi.evaluate(root, f"run={run.folder}", "part=both", f"with_baselines={str(seed == 0).lower()}")
    return folder


@pytest.fixture
def finished_root(_finished_root: Path, tmp_path: Path) -> Path:
    """A folder of one's own with the tiny data, two runs (``*_tiny_seed0`` and 1) and an evaluation of each.

    The paths inside its artifacts are those of the copy.
    """
    folder = tmp_path / "root"
    shutil.copytree(_finished_root, folder)
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".yaml", ".txt"):
            path.write_text(path.read_text(encoding="utf-8").replace(str(_finished_root), str(folder)), "utf-8")
    return folder
