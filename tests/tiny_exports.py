"""Tiny serving bundles for tests, each exported once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import deshi
from deshi.serving.approximate_search import build_index
from deshi.serving.bundle import INDEX, MANIFEST, TABLE, ServingBundle, write_manifest
from deshi.serving.engine import Engine


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
def counted(_finished_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the same run with counts of weight 2, and an index for approximate search."""
    folder = tmp_path_factory.mktemp("counted") / "bundle"
    deshi.export(f"paths.root={_finished_root}", run="tiny_seed0", output=str(folder), counts=2, index="approximate")
    return folder


@pytest.fixture(scope="session")
def indexed(serving: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an index for approximate search."""
    folder = tmp_path_factory.mktemp("indexed") / "bundle"
    shutil.copytree(serving, folder)
    with_index(folder)
    return folder


def with_index(folder: Path) -> None:
    """Give a bundle an index of the table that it has now."""
    build_index(load_file(folder / TABLE)["item_table"], folder / INDEX)
    (folder / MANIFEST).unlink()
    write_manifest(folder, "tiny_seed0", {})


@pytest.fixture(scope="session")
def engine(bundle: ServingBundle) -> Engine:
    """An engine on it."""
    return Engine(bundle, batch_size=3)
