"""What all tests share: no test reads or writes the user's cache, and a tiny data set in MovieLens' own format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tiny import write_tiny_movielens

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test that reached the user's cache would pass or fail by what lies there."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("DESHI_CACHE", str(cache))
    return cache


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
