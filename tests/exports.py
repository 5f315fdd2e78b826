"""A tiny serving bundle for tests, exported once."""

from __future__ import annotations

from pathlib import Path

import pytest

import deshi
from deshi.export.bundle import ServingBundle
from deshi.serve.engine import Engine


@pytest.fixture(scope="session")
def serving(_finished_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, int8 graph included, of the evaluated run ``tiny_seed0``: 40 items, the latest 10 are read."""
    folder = tmp_path_factory.mktemp("serving") / "bundle"
    deshi.export(f"paths.root={_finished_root}", run="tiny_seed0", output=str(folder), int8=True)
    return folder


@pytest.fixture(scope="session")
def bundle(serving: Path) -> ServingBundle:
    """The same, loaded."""
    return ServingBundle.load(serving)


@pytest.fixture(scope="session")
def engine(bundle: ServingBundle) -> Engine:
    """An engine on it."""
    return Engine(bundle, batch_size=3)
