"""Files of a source by name, whether they lie in a folder, in a zip archive, alone, or in an object store."""

from __future__ import annotations

import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deshi.artifacts import Objects, file_sha256, object_address
from deshi.data.raw import FileRecord
from deshi.types import DeshiError

OTHER_ARCHIVES = (".7z", ".rar", ".tar", ".tgz", ".zst", ".bz2", ".xz")


class SourceFiles:
    """The files of a folder or archive by base name, wherever they lie inside; or a single file.

    A zip's members are unpacked one at a time into a temporary file, which vanishes after its use; objects of a store
    (``s3://``, ``gs://``) are copied likewise.
    """

    def __init__(self, path: Path, record: FileRecord | None = None) -> None:
        """Look at ``path``; ``record`` describes it if it was fetched.

        Raises:
            DeshiError: if the path does not exist or is a damaged archive, and as :class:`deshi.artifacts.Objects`.
        """
        self._record = record
        self._used: dict[str, FileRecord] = {}
        address = object_address(path)
        self._objects = None if address is None else Objects(address)
        if self._objects is not None:
            self.path, self.is_archive, self._names = Path(self._objects.address), False, _by_depth(self._objects.names)
            _refuse_packed_objects(self._objects)
            return
        if not path.exists():
            raise DeshiError(f"{path} does not exist. Check data.source.path: a folder, a zip archive or a file.")
        self.path = path
        self.is_archive = path.is_file() and zipfile.is_zipfile(path)
        _refuse_other_archives(path, self.is_archive)
        self._names = self._list()

    def _list(self) -> list[str]:
        if self.is_archive:
            with _damage_named(str(self.path)), zipfile.ZipFile(self.path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
        elif self.path.is_dir():
            names = [path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file()]
        else:
            return [self.path.name]
        return _by_depth(names)

    def find(self, *names: str) -> str | None:
        """The first of ``names`` that is here, as its path inside; the shallowest if there are several."""
        for name in names:
            for inside in self._names:
                if inside == name or inside.endswith("/" + name):
                    return inside
        return None

    @property
    def where(self) -> str:
        """What messages call the folder, archive, file or address."""
        return str(self.path) if self._objects is None else self._objects.address

    @property
    def is_file(self) -> bool:
        """Whether this is a single file, no folder or archive."""
        if self._objects is not None:
            return self._objects.is_file
        return self.path.is_file() and not self.is_archive

    def ending(self, suffix: str) -> list[str]:
        """All files whose names end with ``suffix``."""
        return [name for name in self._names if name.endswith(suffix)]

    def need(self, *names: str) -> str:
        """As :meth:`find`.

        Raises:
            DeshiError: if none is here; names what is.
        """
        inside = self.find(*names)
        if inside is None:
            here = ", ".join(self._names[:8]) + (", ..." if len(self._names) > 8 else "")
            raise DeshiError(
                f"{self.where} holds no {' or '.join(names)} (it holds {here or 'nothing'}). "
                f"Point data.source.path at the data set's folder, archive or file."
            )
        return inside

    def label(self, name: str) -> str:
        """What a message calls the file ``name`` (as :meth:`find` returned it)."""
        if self._objects is not None:
            return self._objects.address_of(name)
        if self.is_archive:
            return f"{self.path}!{name}"
        return str(self.path / name) if self.path.is_dir() else str(self.path)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """The file ``name`` as a path on disk, refused if it is empty, and noted as used."""
        if self._objects is not None:
            with self._objects.copied(name) as path:
                origin = self.label(name)
                self._used[name] = FileRecord(Path(name).name if self.is_file else name, file_sha256(path), origin)
                yield _not_empty(path, origin)
            return
        self._note(name)
        if self.is_archive:
            with tempfile.TemporaryDirectory(prefix="deshi-") as folder:
                target = Path(folder) / Path(name).name
                with _damage_named(self.label(name)), zipfile.ZipFile(self.path) as archive, target.open("wb") as plain:
                    with archive.open(name) as packed:
                        shutil.copyfileobj(packed, plain, 1 << 20)
                yield _not_empty(target, self.label(name))
        else:
            yield _not_empty(self.path / name if self.path.is_dir() else self.path, self.label(name))

    def text(self, name: str, encoding: str = "utf-8") -> str:
        """The whole file ``name`` as text.

        Raises:
            DeshiError: if it isn't text of this encoding.
        """
        with self.local(name) as path:
            try:
                return path.read_bytes().decode(encoding)
            except UnicodeDecodeError as error:
                raise DeshiError(f"{self.label(name)} is not {encoding} text ({error}). Convert it.") from error

    def _note(self, name: str) -> None:
        if self._record is not None:
            self._used[""] = self._record
        elif self.is_archive or not self.path.is_dir():
            self._used[""] = FileRecord(self.path.name, "", str(self.path))
        else:
            self._used[name] = FileRecord(name, "", str(self.path / name))

    def records(self) -> list[FileRecord]:
        """The files used so far with their sha256; an archive counts as one file."""
        return [
            used if used.sha256 else FileRecord(used.name, file_sha256(Path(used.origin)), used.origin)
            for used in self._used.values()
        ]


def _by_depth(names: Iterable[str]) -> list[str]:
    """The shallowest first, without what macOS adds to archives."""
    return sorted((name for name in names if "__MACOSX" not in name), key=lambda name: (name.count("/"), name))


def _refuse_packed_objects(objects: Objects) -> None:
    if objects.is_file and objects.names[0].lower().endswith((".zip", *OTHER_ARCHIVES)):
        raise DeshiError(f"{objects.address} is an archive, expected its files. Unpack it in the object store.")


def _refuse_other_archives(path: Path, is_zip: bool) -> None:
    """A file that is named as an archive is never read as a table."""
    suffix = path.suffix.lower()
    if is_zip or not path.is_file() or not path.stat().st_size:
        return
    if suffix == ".zip":
        raise DeshiError(f"{path} is named .zip, but is no zip archive, or a damaged one. Fetch it again.")
    if suffix in OTHER_ARCHIVES or path.name.lower().endswith((".tar.gz", ".tar.bz2", ".tar.xz")):
        raise DeshiError(f"{path} is an archive that deshi does not unpack. Unpack it and give the folder or the file.")


@contextmanager
def _damage_named(label: str) -> Iterator[None]:
    """Turn what zip archives can have wrong into an error that names the file in it."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, lzma.LZMAError) as error:
        raise DeshiError(f"{label} can't be unpacked ({error}). Fetch the archive again, or unpack it.") from error
    except RuntimeError as error:  # zipfile's word for a password
        if "password" not in str(error) and "encrypted" not in str(error):
            raise
        raise DeshiError(f"{label} is encrypted. Unpack it with its password and give the folder.") from error


def _not_empty(path: Path, label: str) -> Path:
    if path.stat().st_size == 0:
        raise DeshiError(f"{label} is empty, expected data. Fetch or export it again.")
    return path


def merge_records(sources: Sequence[SourceFiles]) -> list[FileRecord]:
    """The files that all of ``sources`` have used."""
    return [record for files in sources for record in files.records()]
