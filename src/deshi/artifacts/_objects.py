"""Objects of object stores (``s3://``, ``gs://``) by fsspec: listed, copied to this disk, written as a whole.

Credentials come from the store's usual environment variables or its own files (``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``; ``GOOGLE_APPLICATION_CREDENTIALS``), never from a key of deshi.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deshi.configuration.needs import GCS, S3, Packages
from deshi.types import DeshiError

STORES: dict[str, Packages] = {"s3": S3, "gs": GCS}
"""What each scheme needs."""


def object_address(path: Path | str) -> str | None:
    """``s3://bucket/key`` if that is what ``path`` is, also where a path has made one slash of two; None else."""
    scheme, colon, key = str(path).partition(":")
    return f"{scheme}://{key.lstrip('/')}" if colon and key.startswith("/") and scheme in STORES else None


@dataclass(frozen=True)
class ObjectState:
    """What tells one content of an object from another without reading it.

    Attributes:
        size: in bytes.
        tag: the store's own checksum (etag, or the like), or else the time of the last change.
    """

    size: int
    tag: str


class Objects:
    """The objects below an address: of one object, of a folder (prefix), or of a pattern with ``*`` and ``?``.

    Args:
        address: ``s3://bucket/folder``, ``s3://bucket/key``, ``s3://bucket/folder/*.parquet``.

    Raises:
        DeshiError: without the package of the store, without credentials, and where nothing is.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._store = _store(address)
        key = address.partition("://")[2].rstrip("/")
        with _errors(address):
            self._store.invalidate_cache()
            if any(sign in key for sign in "*?["):
                entries = self._store.glob(key, detail=True)
            else:
                entries = self._store.find(key, detail=True)
        self._entries = {name: entry for name, entry in sorted(entries.items()) if entry["type"] == "file"}
        if not self._entries:
            raise DeshiError(f"{address} does not exist: no object has this key, prefix or pattern. Check the address.")
        self.is_file = list(self._entries) == [key]
        # names count from the folder, or from what stands before the pattern
        folder = str(PurePosixPath(key).parent) if self.is_file else key
        while any(sign in folder for sign in "*?["):
            folder = str(PurePosixPath(folder).parent)
        self._keys = {str(PurePosixPath(name).relative_to(folder)): name for name in self._entries}

    @property
    def names(self) -> list[str]:
        """Of the objects, from the folder on."""
        return list(self._keys)

    def address_of(self, name: str) -> str:
        """The whole address of one of them."""
        return f"{self.address.partition('://')[0]}://{self._keys[name]}"

    def states(self) -> dict[str, ObjectState]:
        """Size and tag of each object, by its name."""
        return {name: _state(self._entries[key]) for name, key in self._keys.items()}

    @contextmanager
    def copied(self, name: str) -> Iterator[Path]:
        """A copy of one object on this disk, which vanishes after its use."""
        with tempfile.TemporaryDirectory(prefix="deshi-") as folder:
            target = Path(folder) / PurePosixPath(name).name
            with _errors(self.address_of(name)):
                self._store.get_file(self._keys[name], str(target))
            yield target


@contextmanager
def local_file(path: Path) -> Iterator[Path]:
    """``path`` itself, or for one object of a store a copy of it on this disk.

    Raises:
        DeshiError: as :class:`Objects`, and if the address is a folder.
    """
    address = object_address(path)
    if address is None:
        yield path
        return
    objects = Objects(address)
    if not objects.is_file:
        raise DeshiError(f"{address} holds {len(objects.names)} objects, expected the address of one.")
    with objects.copied(objects.names[0]) as copy:
        yield copy


@contextmanager
def written_object(address: str) -> Iterator[Path]:
    """A temporary path; on success what was written there becomes the object, on an error the store stays as it is.

    Raises:
        DeshiError: without the package of the store or credentials, and if it doesn't take the object.
    """
    store = _store(address)
    with tempfile.TemporaryDirectory(prefix="deshi-") as folder:
        target = Path(folder) / PurePosixPath(address).name
        yield target
        with _errors(address):
            store.put_file(str(target), address.partition("://")[2])


def _state(entry: dict[str, Any]) -> ObjectState:
    tags = (entry.get(name) for name in ("ETag", "etag", "md5Hash", "LastModified", "updated", "mtime"))
    return ObjectState(int(entry["size"]), str(next((tag for tag in tags if tag), "")))


def _store(address: str) -> Any:
    scheme = address.partition("://")[0]
    STORES[scheme].load()
    import fsspec

    with _errors(address):
        return fsspec.filesystem(scheme, skip_instance_cache=True)  # the environment may have changed


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Turn what a store answers into an error that names the address."""
    try:
        yield
    except FileNotFoundError as error:
        raise DeshiError(f"{address} does not exist ({_text(error)}). Check bucket and key.") from error
    except PermissionError as error:
        raise DeshiError(f"{address} may not be accessed ({_text(error)}). {_CREDENTIALS}") from error
    except (OSError, ValueError) as error:
        raise DeshiError(f"{address} can't be reached ({_text(error)}). Check the address and the network.") from error
    except _errors_of_stores() as error:
        advice = _CREDENTIALS if "redential" in type(error).__name__ else "Check the address and the network."
        raise DeshiError(f"{address} can't be reached ({_text(error)}). {advice}") from error


def _errors_of_stores() -> tuple[type[Exception], ...]:
    """Base classes of what the stores' own packages raise, of those that are loaded."""
    bases = (("botocore.exceptions", "BotoCoreError"), ("google.auth.exceptions", "GoogleAuthError"))
    return tuple(getattr(sys.modules[module], name) for module, name in bases if module in sys.modules)


_CREDENTIALS = (
    "Give credentials in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_PROFILE, AWS_ENDPOINT_URL) "
    "for s3://, GOOGLE_APPLICATION_CREDENTIALS for gs://."
)


def _text(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
