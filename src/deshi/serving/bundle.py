"""The serving bundle: all that an answer needs, without PyTorch, the data or the run.

Reading one loads numpy, polars and safetensors alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.artifacts import file_sha256, fingerprint, read_json, read_parquet, read_tensors, write_json
from deshi.configuration.run_folders import TRAINING_STAGES, find_run
from deshi.serving.pair_table import MAX_WEIGHT, PairTable
from deshi.types import ITEM, TITLE, DeshiError

FORMAT = 1
"""Version of the folder's layout."""

KIND = "deshi serving bundle"
REMEDY = "Copy it again, or run deshi export again."
FOLDER = "serving"
"""Where a run's bundle is, inside the run's folder, unless another place is asked for."""

MANIFEST = "manifest.json"
CONFIG = "config.json"
ITEMS = "items.parquet"
TABLE = "item_table.safetensors"
WEIGHTS = "weights.safetensors"
PARITY = "parity.json"
CARD = "MODEL_CARD.md"
INDEX = "items.faiss"
RECALL = "recall.json"
"""The index for approximate search and what it misses, there only if one was built."""

PAIRS = "pair_table.safetensors"
COUNTS = "counts"
COUNTS_REPORT = "counts.json"
"""The transition counts that are served beside the student, the configuration's entry about them (weight and settings,
None without), and what they change; there only if they were asked for."""

GRAPHS = {"fp32": "model.onnx", "int8": "model-int8.onnx"}
"""The graph of each precision; the second is there only if it was asked for."""

LATENCY = "latency"
STUDENT_LATENCY = "latency_without_counts"
"""The manifest's entries about single requests; the second is there only beside counts."""

COUNT = "count"
REQUIRED = (CONFIG, ITEMS, TABLE, WEIGHTS, PARITY, CARD, GRAPHS["fp32"])
SETTINGS = {"n_items": int, "dim": int, "max_length": int, "filter_seen": bool}


class BundleError(DeshiError):
    """A folder that is no serving bundle, or a damaged one, or one of another version."""


@dataclass(frozen=True, eq=False)
class ServingBundle:
    """An exported student.

    Attributes:
        path: the folder.
        manifest: format, version, files with their sha256.
        config: the network's settings, and what it was trained on.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    config: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, path: Path | str, check: bool = True) -> ServingBundle:
        """Open a bundle.

        Args:
            path: the folder.
            check: hash every file and compare with the manifest.

        Raises:
            BundleError: if something is missing, damaged, inconsistent, or of another version.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        _check_files(path, manifest, check)
        bundle = cls(path, manifest, _read_config(path, PAIRS in manifest["files"]))
        bundle._check_shapes()
        return bundle

    @property
    def name(self) -> str:
        """What the exported run was called."""
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        """The first twelve digits of the fingerprint over all files: another content has another version."""
        return str(self.manifest["version"])

    @property
    def n_items(self) -> int:
        """Number of items."""
        return int(self.config["n_items"])

    @property
    def dim(self) -> int:
        """Width of the hidden state and of the item table."""
        return int(self.config["dim"])

    @property
    def max_length(self) -> int:
        """Number of latest items that the network reads."""
        return int(self.config["max_length"])

    @property
    def filter_seen(self) -> bool:
        """Whether items of the history are left out, unless a request says otherwise."""
        return bool(self.config["filter_seen"])

    @property
    def precisions(self) -> list[str]:
        """Precisions of the bundle's graphs: ``fp32``, and ``int8`` if it was exported."""
        return [name for name, file in GRAPHS.items() if file in self.manifest["files"]]

    @property
    def latency(self) -> dict[str, Any] | None:
        """Times of single requests, as :class:`~deshi.serving.latency.Latency` has them, if export measured them.

        They stand in the manifest, which belongs to no version: two exports of one run are the same bundle.
        """
        return self.manifest.get(LATENCY)

    @property
    def weight_bytes(self) -> int:
        """Size of the file of the network's weights."""
        return int(self.manifest["files"][WEIGHTS]["bytes"])

    @property
    def index(self) -> Path | None:
        """The index for approximate search, or None if the bundle has none."""
        return self.path / INDEX if INDEX in self.manifest["files"] else None

    @property
    def student_latency(self) -> dict[str, Any] | None:
        """The same times without the bundle's counts; None without counts."""
        return self.manifest.get(STUDENT_LATENCY)

    @cached_property
    def pair_table(self) -> PairTable | None:
        """The transition counts that are added to the student's scores, or None if the bundle has none."""
        counts = self.config.get(COUNTS)
        if counts is None:
            return None
        tensors = read_tensors(self.path / PAIRS, "numpy", REMEDY)
        return PairTable.of_tensors(tensors, float(counts["weight"]))

    def without_counts(self) -> ServingBundle:
        """The same bundle whose answers are the student's alone."""
        return ServingBundle(self.path, self.manifest, self.config | {COUNTS: None})

    @cached_property
    def items(self) -> pl.DataFrame:
        """``index``, ``item_id``, ``title`` (or null) and ``count``, the training events, in index order."""
        return read_parquet(self.path / ITEMS, remedy=REMEDY)

    @cached_property
    def item_table(self) -> NDArray[np.floating]:
        """``(n_items, dim)`` fp32 or fp16, the merged scoring vectors."""
        return cast("NDArray[np.floating]", read_tensors(self.path / TABLE, "numpy", REMEDY)["item_table"])

    def graph(self, precision: str = "fp32") -> Path:
        """The ONNX file of a precision.

        Raises:
            BundleError: if the bundle has none, with the command that makes one.
        """
        if precision not in self.precisions:
            raise BundleError(
                f"{self.path} holds the precisions {', '.join(self.precisions)}, but {precision!r} is asked for. "
                "Export the run with int8=true for an int8 graph."
            )
        return self.path / GRAPHS[precision]

    def _check_shapes(self) -> None:
        wrong = []
        try:
            table, items = self.item_table, self.items
        except KeyError as error:
            raise damaged(self.path, f"{TABLE} lacks {error}") from error
        except DeshiError as error:
            raise BundleError(str(error)) from error
        if table.shape != (self.n_items, self.dim) or table.dtype not in (np.float32, np.float16):
            wrong.append(
                f"{TABLE} holds {table.dtype}{table.shape}, expected float32({self.n_items}, {self.dim}), or float16"
            )
        if items.columns != ["index", ITEM, TITLE, COUNT] or items.height != self.n_items:
            wrong.append(f"{ITEMS} has {items.height} rows of {items.columns}, expected {self.n_items} items")
        elif items[ITEM].n_unique() != self.n_items:
            wrong.append(f"{ITEMS} names an item twice")
        if problem := self._problem_of_counts():
            wrong.append(f"{PAIRS} {problem}")
        if wrong:
            raise damaged(self.path, "; ".join(wrong))

    def _problem_of_counts(self) -> str | None:
        try:
            table = self.pair_table
        except KeyError as error:
            return f"lacks {error}"
        except DeshiError as error:
            raise BundleError(str(error)) from error
        return None if table is None else table.problem(self.n_items)


def write_manifest(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a folder that holds all other files: the last one, so that a bundle is whole or none."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        str(path.relative_to(folder)): {"sha256": file_sha256(path), "bytes": path.stat().st_size} for path in paths
    }
    content = {
        "kind": KIND,
        "format": FORMAT,
        "deshi": version("deshi"),
        "name": name,
        "version": fingerprint([("files", files)])[:12],
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": files,
    }
    write_json(folder / MANIFEST, dict(facts) | content)


def find_bundle(runs: Path, text: str) -> Path:
    """The folder of a bundle: ``text`` itself, or inside the run that it names (folder, name, or ``latest``).

    Raises:
        DeshiError: if there is neither, or the run wasn't exported yet, with the command that does it.
    """
    path = Path(text).expanduser()
    if (path / MANIFEST).is_file():
        return path
    run = find_run(runs, TRAINING_STAGES, text)
    if not (run / FOLDER / MANIFEST).is_file():
        raise BundleError(f"The run {run} was not exported to its own folder yet. Run: deshi export {run}")
    return run / FOLDER


def is_bundle(path: Path) -> bool:
    """Whether a folder says of itself that it is a serving bundle."""
    try:
        manifest = read_json(path / MANIFEST)
    except (DeshiError, OSError, UnicodeDecodeError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def damaged(path: Path, damage: str) -> BundleError:
    """The error of a bundle that isn't what its manifest says."""
    return BundleError(f"The serving bundle in {path} is damaged: {damage}. {REMEDY}")


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).is_file():
        raise BundleError(
            f"There is no serving bundle in {path} (no {MANIFEST}). Make one with deshi export RUN, or give the folder "
            "that it has written."
        )
    if not is_bundle(path):
        raise BundleError(f"{path / MANIFEST} is not that of a {KIND}. Give the folder that deshi export has written.")
    manifest: dict[str, Any] = read_json(path / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"The serving bundle in {path} has format {manifest.get('format')!r} (written by deshi "
            f"{manifest.get('deshi')}), expected {FORMAT}. Run deshi export again with this version of deshi."
        )
    listed = manifest.get("files")
    whole = isinstance(listed, dict) and all(isinstance(entry, dict) and "sha256" in entry for entry in listed.values())
    if not whole or not all(isinstance(manifest.get(key), str) for key in ("name", "version")):
        raise damaged(path, f"{MANIFEST} lacks files, name or version")
    return manifest


def _check_files(path: Path, manifest: Mapping[str, Any], hashes: bool) -> None:
    files = manifest["files"]
    outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise damaged(path, f"{MANIFEST} names {', '.join(outside)} outside of the folder")
    missing = sorted({*files, *REQUIRED} - {name for name in {*files, *REQUIRED} if (path / name).is_file()})
    unlisted = sorted(set(REQUIRED) - set(files))
    if missing or unlisted:
        raise damaged(path, f"{', '.join(missing or unlisted)} {'missing' if missing else 'not in ' + MANIFEST}")
    if hashes:
        changed = [name for name, entry in files.items() if file_sha256(path / name) != entry["sha256"]]
        if changed:
            raise damaged(path, f"{', '.join(changed)} does not have the sha256 of the manifest")


def _read_config(path: Path, has_pairs: bool) -> dict[str, Any]:
    config = read_json(path / CONFIG)
    good = isinstance(config, dict) and all(type(config.get(name)) is kind for name, kind in SETTINGS.items())
    if not good or min(config[name] for name in ("n_items", "dim", "max_length")) < 1:
        raise damaged(path, f"{CONFIG} lacks one of {', '.join(SETTINGS)}, or holds another type")
    counts = config.get(COUNTS)
    weight = counts.get("weight") if isinstance(counts, dict) else None
    if counts is not None and not (isinstance(weight, int | float) and 0 < weight <= MAX_WEIGHT):
        raise damaged(path, f"{CONFIG} gives counts the weight {weight!r}, expected above 0 and up to {MAX_WEIGHT:g}")
    if (counts is not None) != has_pairs:
        raise damaged(path, f"{CONFIG} and {MANIFEST} don't agree on whether it has {PAIRS}")
    return config
