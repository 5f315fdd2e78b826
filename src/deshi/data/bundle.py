"""The data bundle: one prepared data set as a folder of memory-mapped arrays, tables and a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import blocks, count_codes, offsets_of
from deshi.artifacts import (
    atomic_folder,
    file_sha256,
    fingerprint,
    read_array,
    read_json,
    read_parquet,
    write_array,
    write_json,
    write_parquet,
)
from deshi.configuration.groups import choices
from deshi.data.vocabulary import ITEM_INDEX, ITEM_ORDER, TIE_RULE, USER_INDEX, Events
from deshi.types import ITEM, TEXT, TIMESTAMP, TITLE, USER, DeshiError

FORMAT = 1
"""Version of the folder's layout; a bundle of another version is prepared anew."""

MANIFEST = "manifest.json"
REMEDY = "The data bundle is damaged: run deshi prepare with force=true."
TABLES = ("interactions.parquet", "items.parquet", "users.parquet", "vocabulary.parquet")
ARRAYS = {"offsets": np.int64, "items": np.int32, "timestamps": np.int64}


@dataclass(frozen=True, eq=False)
class Bundle:
    """A prepared data set. User ``u``'s history is ``items[offsets[u]:offsets[u + 1]]``, oldest first.

    Attributes:
        path: the folder.
        name: the data set's name.
        manifest: what the data were made from and how (see ``docs/data-preparation.md``).
        offsets: ``(n_users + 1,)`` int64, flat positions.
        items: ``(n_interactions,)`` int32, item indices.
        timestamps: ``(n_interactions,)`` int64, milliseconds since 1970 UTC or, with ``time_unit`` ``position``, ranks.
    """

    path: Path
    name: str
    manifest: dict[str, Any] = field(repr=False)
    offsets: np.ndarray = field(repr=False)
    items: np.ndarray = field(repr=False)
    timestamps: np.ndarray = field(repr=False)

    @classmethod
    def load(cls, path: Path | str, check: bool = False) -> Bundle:
        """Open a bundle; its arrays are mapped, not read.

        Args:
            path: the bundle's folder.
            check: read everything and compare it with the fingerprint and the file hashes of the manifest.

        Raises:
            DeshiError: if the folder is missing, incomplete, damaged, or of another version.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        arrays = {name: read_array(path / "sequences" / f"{name}.npy", REMEDY) for name in ARRAYS}
        bundle = cls(path, manifest["name"], manifest, **arrays)
        bundle._check_shapes()
        if check:
            bundle._check_content()
        return bundle

    @classmethod
    def in_memory(cls, name: str, events: Events, time_unit: str = "ms") -> Bundle:
        """A bundle without a folder, of sorted events; users may be without events. It has no fingerprint."""
        arrays = _arrays(events)
        counts = {"users": events.user_ids.len(), "items": events.item_ids.len(), "interactions": len(arrays["items"])}
        bundle = cls(Path(), name, {"name": name, "time_unit": time_unit, "counts": counts}, **arrays)
        # what would be read from the folder
        bundle.__dict__.update(users=_numbered(USER, events.user_ids), vocabulary=_numbered(ITEM, events.item_ids))
        return bundle

    @property
    def fingerprint(self) -> str:
        """The sha256 over the encoded content: sequences, times and ids."""
        return str(self.manifest["fingerprint"])

    @property
    def time_unit(self) -> str:
        """``ms`` or ``position``."""
        return str(self.manifest["time_unit"])

    @property
    def n_users(self) -> int:
        """Number of users, each with at least one event."""
        return int(self.manifest["counts"]["users"])

    @property
    def n_items(self) -> int:
        """Number of items in the vocabulary."""
        return int(self.manifest["counts"]["items"])

    @property
    def n_interactions(self) -> int:
        """Number of events."""
        return int(self.manifest["counts"]["interactions"])

    @cached_property
    def vocabulary(self) -> pl.DataFrame:
        """``index`` Int32 and ``item_id`` String, in index order."""
        return read_parquet(self.path / "vocabulary.parquet", ("index", ITEM), REMEDY)

    @cached_property
    def users(self) -> pl.DataFrame:
        """``index`` Int32 and ``user_id`` String, in index order."""
        return read_parquet(self.path / "users.parquet", ("index", USER), REMEDY)

    def item_table(self) -> pl.DataFrame:
        """``index``, ``item_id``, ``title``, ``text`` and the source's further columns, in index order."""
        return self._item_table

    def history(self, user: int) -> np.ndarray:
        """The item indices of one user index, oldest first (a view of the mapped array).

        Raises:
            DeshiError: if there is no such user.
        """
        if not 0 <= user < self.n_users:
            raise DeshiError(f"User index {user} does not exist, expected 0 to {self.n_users - 1} in {self.name}.")
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def encode(self, item_ids: Sequence[str]) -> tuple[np.ndarray, int]:
        """The int64 indices of the known ids, in the order given, and how many ids were unknown."""
        indices = [self._index[item_id] for item_id in item_ids if item_id in self._index]
        return np.array(indices, dtype=np.int64), len(item_ids) - len(indices)

    @cached_property
    def _item_table(self) -> pl.DataFrame:
        return read_parquet(self.path / "items.parquet", ("index", ITEM, TITLE, TEXT), REMEDY)

    @cached_property
    def _index(self) -> dict[str, int]:
        return dict(zip(self.vocabulary[ITEM].to_list(), range(self.n_items), strict=True))

    def _check_shapes(self) -> None:
        lengths = {"offsets": self.n_users + 1, "items": self.n_interactions, "timestamps": self.n_interactions}
        for name, length in lengths.items():
            array = getattr(self, name)
            if array.shape != (length,) or array.dtype != ARRAYS[name]:
                raise _damaged(self.path, f"sequences/{name}.npy is {array.dtype}{array.shape}, expected ({length},)")
        if self.offsets[-1] != self.n_interactions:
            raise _damaged(self.path, f"offsets end at {self.offsets[-1]}, expected {self.n_interactions}")

    def _check_content(self) -> None:
        for name, digest in self.manifest["files"].items():
            if file_sha256(self.path / name) != digest:
                raise _damaged(self.path, f"{name} does not have the sha256 of the manifest")
        ids = self.users[USER], self.vocabulary[ITEM]
        if _content((self.offsets, self.items, self.timestamps), *ids, self.time_unit) != self.fingerprint:
            raise _damaged(self.path, "the content does not have the fingerprint of the manifest")


def write_bundle(
    path: Path,
    name: str,
    events: Events,
    items: pl.DataFrame | None = None,
    time_unit: str = "ms",
    provenance: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle as a whole folder that appears at ``path`` at once, replacing what was there.

    Args:
        path: the bundle's folder.
        name: the data set's name.
        events: sorted events with contiguous indices (see :func:`deshi.data.vocabulary.compact`).
        items: ``item_id``, ``title`` and further text columns, or None.
        time_unit: ``ms`` or ``position``.
        provenance: further JSON-able entries of the manifest: sources, filters, report.
    """
    with atomic_folder(path) as folder:
        fill_bundle(folder, name, events, items, time_unit, provenance)
    return Bundle.load(path)


def fill_bundle(
    folder: Path,
    name: str,
    events: Events,
    items: pl.DataFrame | None,
    time_unit: str,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a bundle's files into an existing folder, the manifest last. Arguments as in :func:`write_bundle`."""
    users = events.frame[USER_INDEX].to_numpy()
    counts = count_codes(users, events.user_ids.len())
    if not counts.size or counts.min() == 0 or (users[1:] < users[:-1]).any():
        raise DeshiError("Events must be grouped by user, with at least one event each. Pass them through compact().")
    arrays = _arrays(events)
    for label, array in arrays.items():
        write_array(folder / "sequences" / f"{label}.npy", array)
    _write_tables(folder, events, items)
    manifest = dict(provenance or {})
    manifest |= {
        "format": FORMAT,
        "name": name,
        "time_unit": time_unit,
        "tie_rule": TIE_RULE,
        "item_order": ITEM_ORDER,
        "counts": {"users": len(counts), "items": events.item_ids.len(), "interactions": len(users)},
        "fingerprint": _content(tuple(arrays.values()), events.user_ids, events.item_ids, time_unit),
        "files": {name: file_sha256(folder / name) for name in _data_files()},
    }
    write_json(folder / MANIFEST, manifest)


def _arrays(events: Events) -> dict[str, np.ndarray]:
    """The arrays of ``sequences/``."""
    counts = count_codes(events.frame[USER_INDEX].to_numpy(), events.user_ids.len())
    columns = {"offsets": offsets_of(counts), "items": events.frame[ITEM_INDEX], "timestamps": events.frame[TIMESTAMP]}
    return {name: np.asarray(columns[name]).astype(dtype, copy=False) for name, dtype in ARRAYS.items()}


def _write_tables(folder: Path, events: Events, items: pl.DataFrame | None) -> None:
    users = _numbered(USER, events.user_ids)
    vocabulary = _numbered(ITEM, events.item_ids)
    texts = _item_texts(vocabulary, items)
    tables: tuple[pl.DataFrame | pl.LazyFrame, ...] = (_with_ids(events), texts, users, vocabulary)
    for name, table in zip(TABLES, tables, strict=True):
        write_parquet(table, folder / name, compression="zstd", compression_level=1, row_group_size=1 << 20)


def _with_ids(events: Events) -> pl.LazyFrame:
    """The events with the ids of their codes, which are looked up while they are written."""
    columns = []
    for name, index, texts in ((USER, USER_INDEX, events.user_ids), (ITEM, ITEM_INDEX, events.item_ids)):
        ids = pl.col(index).map_batches(texts.gather, return_dtype=pl.String, is_elementwise=True)
        columns.append(ids.alias(name))
    return events.frame.lazy().select(*columns, pl.all())


def _numbered(column: str, ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"index": np.arange(ids.len(), dtype=np.int32), column: ids})


def _item_texts(vocabulary: pl.DataFrame, items: pl.DataFrame | None) -> pl.DataFrame:
    """The vocabulary with the source's columns; ``text`` joins title and further columns where it isn't given."""
    table = vocabulary.with_columns(pl.lit(None, pl.String).alias(TITLE))
    if items is not None:
        table = vocabulary.join(items, on=ITEM, how="left", maintain_order="left")
    further = [column for column in table.columns if column not in ("index", ITEM, TITLE)]
    if TEXT not in further:
        parts = [pl.col(TITLE), *(pl.lit(f"{column}: ") + pl.col(column) for column in further)]
        text = pl.concat_str(parts, separator="; ", ignore_nulls=True)
        table = table.with_columns(pl.when(text != "").then(text).alias(TEXT))
    return table.select("index", ITEM, TITLE, TEXT, *(column for column in further if column != TEXT))


def _content(arrays: tuple[np.ndarray, ...], users: pl.Series, names: pl.Series, time_unit: str) -> str:
    return fingerprint(
        [
            *zip(ARRAYS, arrays, strict=True),
            ("users", _parts(users)),
            ("vocabulary", _parts(names)),
            ("time_unit", time_unit),
        ]
    )


def _parts(ids: pl.Series) -> Iterator[list[str]]:
    """The ids as lists: Python's texts are several times as large as those of Polars."""
    return (part.to_list() for part in (ids[block] for block in blocks(ids.len(), 1 << 18)))


def _data_files() -> list[str]:
    return [*TABLES, *(f"sequences/{name}.npy" for name in ARRAYS)]


def missing_bundle(name: str, folders: Sequence[Path]) -> DeshiError:
    """The error that a data set has no bundle: where it was looked for, what is there, and what to do.

    Args:
        name: of the data set.
        folders: where it was looked for.
    """
    places = []
    for folder in dict.fromkeys(folders):
        there = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
        state = f"holds {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}" if there else "holds none"
        places.append(f"{folder} {state if folder.is_dir() else 'does not exist'}")
    table = f", or for a table of your own data=tabular data.name={name} data.source.path=FILE"
    choice = name if name in choices("data") else f"{name}{table}"
    return DeshiError(
        f"There is no data bundle {name}: {'; '.join(places)}. If it lies under another root, give paths.root=FOLDER. "
        f"Else prepare it first: deshi prepare data={choice} (with the same data.* and paths.* overrides as here)."
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).is_file():
        raise missing_bundle(path.name, [path.parent])
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        got = manifest.get("format") if isinstance(manifest, dict) else None
        raise DeshiError(f"The bundle in {path} has format {got}, expected {FORMAT}. Run deshi prepare again.")
    missing = [name for name in _data_files() if not (path / name).is_file()]
    if missing:
        raise _damaged(path, f"{', '.join(missing)} missing")
    return manifest


def _damaged(path: Path, damage: str) -> DeshiError:
    return DeshiError(f"In {path} {damage}. {REMEDY}")
