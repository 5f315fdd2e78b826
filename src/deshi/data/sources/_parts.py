"""Files of a folder or archive that make up one table: the parts that a warehouse writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import polars as pl

from deshi.data.raw import BadRowLog
from deshi.data.sources._files import SourceFiles
from deshi.tables import Table, table_kind
from deshi.types import DeshiError

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
Reader = Callable[[Path, str, Sequence[str]], Table]
"""Reads a file by its path, its name for messages, and columns that its folder's name holds."""


def read_parts(sources: Sequence[SourceFiles], pattern: str | None, read: Reader, log: BadRowLog) -> list[Table]:
    """The tables of all files, in the order of ``sources`` and of the files' names.

    Columns in the names of folders, as in ``date=2024-01-01/part-0.parquet``, are columns of texts.

    Args:
        sources: files, or folders and archives of parts.
        pattern: of the files' names, with * and ?; None takes all files.
        read: reads one file.
        log: told how many files were left out.

    Raises:
        DeshiError: for no file, or files of several formats.
    """
    tables = []
    for files in sources:
        for name in _names(files, pattern, log):
            partition = _partition(name)
            with files.local(name) as path:
                tables.append(_with_partition(read(path, files.label(name), list(partition)), partition))
    return tables


def _names(files: SourceFiles, pattern: str | None, log: BadRowLog) -> list[str]:
    names = files.ending("")
    if files.is_file:
        return names
    hidden = [name for name in names if any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)]
    if any("_delta_log" in PurePosixPath(name).parts for name in hidden):
        raise DeshiError(
            f"{files.where} is a Delta table, whose folder also holds deleted rows. Export its present rows to parquet "
            f"files in a folder of their own."
        )
    names = [name for name in names if name not in hidden]
    if pattern is not None:
        matching = [
            name for name in names if fnmatchcase(name, pattern) or fnmatchcase(PurePosixPath(name).name, pattern)
        ]
    else:
        matching = names
    if not matching:
        raise DeshiError(
            f"{files.where} holds no file {pattern or ''} (it holds {', '.join(names[:8]) or 'nothing'}). "
            f"Check data.source.path and data.source.pattern."
        )
    endings = sorted({table_kind(Path(name)) for name in matching})
    if len(endings) > 1:
        raise DeshiError(
            f"{files.where} holds files of several formats ({', '.join(matching[:8])}), expected the parts of one "
            f"table. Give the path of one file, or choose with data.source.pattern, such as '*{endings[0]}'."
        )
    left_out = len(hidden) + len(names) - len(matching)
    if left_out or len(matching) > 1:
        example = f", such as {hidden[0]}" if hidden else ""
        log.note(f"{len(matching)} files of {files.where} were read, {left_out} left out{example}.")
    return matching


def _partition(name: str) -> dict[str, str | None]:
    """The columns in the names of a file's folders."""
    pairs = [part.partition("=") for part in PurePosixPath(name).parent.parts]
    return {key: None if value == NO_VALUE else unquote(value) for key, sign, value in pairs if key and sign}


def _with_partition(table: Table, partition: dict[str, str | None]) -> Table:
    columns: dict[str, Any] = {name: pl.lit(value, pl.String) for name, value in partition.items()}
    missing = {name: value for name, value in columns.items() if name not in table.names}
    return replace(table, frame=table.frame.with_columns(**missing), names=[*table.names, *missing])
