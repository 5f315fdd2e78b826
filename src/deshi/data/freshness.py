"""Comparison of a prepared bundle with its settings and source files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deshi.artifacts import Objects, file_sha256, object_address, read_json, write_json
from deshi.data.raw import FileRecord
from deshi.data.sources.sql import hide_password
from deshi.types import DeshiError

log = logging.getLogger(__name__)


def redact(value: Any) -> Any:
    """The same nested value with the passwords of database addresses replaced by ``***``."""
    if isinstance(value, str):
        return hide_password(value)
    if isinstance(value, Mapping):
        return {key: redact(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redact(entry) for entry in value]
    return value


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """What changed between two nested settings, as ``key: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{prefix}{key}.")]
    return [] if old == new else [f"{prefix.rstrip('.')}: {old} -> {new}"]


def is_database(source: Mapping[str, Any]) -> bool:
    """Whether a source reads from a database server, whose content can't be checked for changes."""
    dsn = source.get("dsn")
    hidden = dsn is None and "dsn_env" in source
    files = ("http", "sqlite")
    addresses = [
        text
        for text in _strings(source)
        if "://" in text and not text.startswith(files) and object_address(text) is None
    ]
    return bool(hidden or addresses or "=" in str(dsn or ""))


def sidecar(bundle: Path) -> Path:
    """Where the state of a bundle's local source files is kept: beside it, since it differs between machines."""
    return bundle.parent / f".{bundle.name}.source.json"


def record_local(bundle: Path, source: Any, files: list[FileRecord]) -> None:
    """Remember size, modification time and sha256 of every local file that a bundle was made from.

    Of a folder the names of its files are kept, as far as they end like those that were read: a new part is a change.
    Of objects in a store their names, sizes and tags (checksums of the store) are kept: nothing is read for that.
    """
    endings = sorted({Path(file.name).suffix for file in files})
    paths = _local_paths(source) | {str(path) for file in files if (path := _local(file.origin)) and path.is_file()}
    states = {path: _state(Path(path), endings) for path in sorted(paths)}
    objects = {address: _objects(address) for address in _addresses(source)}
    write_json(sidecar(bundle), states | {address: {"objects": state} for address, state in objects.items()})


def local_changes(bundle: Path, source: Any) -> list[str]:
    """The local source files that changed since the bundle was made; a deleted one counts as unchanged."""
    if not sidecar(bundle).is_file():
        return ["the state of the source files is unknown"]
    recorded = read_json(sidecar(bundle))
    new = [f"{path} is new" for path in sorted((_local_paths(source) | _addresses(source)) - set(recorded))]
    return new + [f"{path} has changed" for path, state in recorded.items() if not _same(Path(path), state)]


def _same(path: Path, state: dict[str, Any] | None) -> bool:
    if state is not None and "objects" in state:
        objects = _objects(str(object_address(path)))
        return objects is None or state["objects"] is None or objects == state["objects"]
    if not path.exists() or state is None:
        return True
    if "names" in state:
        return _names(path, state["endings"]) == state["names"]
    status = path.stat()
    if status.st_size != state["size"]:
        return False
    return status.st_mtime_ns == state["mtime_ns"] or file_sha256(path) == state["sha256"]


def _names(folder: Path, endings: list[str]) -> list[str]:
    """The files of a folder with one of the endings, hidden ones left out."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix in endings and path.is_file()]
    return sorted(name.as_posix() for name in names if not any(part.startswith((".", "_")) for part in name.parts))


def _state(path: Path, endings: list[str]) -> dict[str, Any] | None:
    if path.is_dir():
        return {"names": _names(path, endings), "endings": endings}
    if not path.is_file():
        return None
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": file_sha256(path)}


def _addresses(source: Any) -> set[str]:
    """The addresses of object stores that a source's settings name."""
    return {address for text in _strings(source) if (address := object_address(text))}


def _objects(address: str) -> dict[str, list[Any]] | None:
    """Size and tag of each object at an address; None, with a warning, where they can't be had."""
    try:
        states = Objects(address).states()
    except DeshiError as error:
        log.warning("Whether the source has changed is not known: %s", error)
        return None
    return {name: [state.size, state.tag] for name, state in states.items()}


def _local_paths(source: Any) -> set[str]:
    """Every file or folder that a source's settings name, as an absolute path."""
    return {str(path) for text in _strings(source) if (path := _local(text))}


def _local(text: str) -> Path | None:
    try:
        path = Path(text.removeprefix("sqlite:///").split("!")[0]).expanduser()
        return path.resolve() if text and path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _strings(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _strings(entry)
