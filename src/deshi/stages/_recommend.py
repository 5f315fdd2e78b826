"""The work of ``deshi recommend``: a file of histories in, a file of ranked items out."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.io.plugins import register_io_source

from deshi.arrays import Bools, Ints
from deshi.artifacts import atomic_file, local_file, object_address, written_object
from deshi.cluster import Cluster
from deshi.cluster import engine as engine_of
from deshi.data.histories import Histories, HistoryColumns, first_ids
from deshi.data.raw import BadRows
from deshi.serving.bundle import ServingBundle, find_bundle
from deshi.serving.engine import Engine, load
from deshi.serving.histories import read_histories, read_item_ids
from deshi.serving.http.result import ItemCounts, RecommendResult
from deshi.stages.recommend import RecommendConfig
from deshi.tables import TableFormat
from deshi.types import ITEM, PAD, USER, DeshiError

log = logging.getLogger(__name__)

CHUNK = 1024
"""Histories that are answered together: enough to sort by length, few enough to be written while others wait."""

EVERY = 5.0
"""Seconds between two lines about the progress."""

SCHEMA = pl.Schema({USER: pl.String, ITEM: pl.String, "score": pl.Float32, "rank": pl.Int32})
FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
SINKS: dict[str, Callable[[pl.LazyFrame, IO[bytes]], Any]] = {
    "parquet": lambda frame, file: frame.sink_parquet(file, compression="zstd", compression_level=1),
    "csv": lambda frame, file: frame.sink_csv(file),
    "jsonl": lambda frame, file: frame.sink_ndjson(file),
}


@dataclass
class _Counts:
    """What has been answered so far."""

    users: int = 0
    rows: int = 0
    popular: int = 0
    short: int = 0
    empty: int = 0
    begin: float = field(default_factory=time.perf_counter)
    said: float = field(default_factory=time.perf_counter)

    def say(self, total: int) -> None:
        """Log how far it is, now and then."""
        now = time.perf_counter()
        if now - self.said >= EVERY and self.users < total:
            left = (now - self.begin) * (total - self.users) / max(self.users, 1)
            log.info("%s of %s users answered, about %.0f s left", f"{self.users:,}", f"{total:,}", left)
            self.said = now


def run(cfg: RecommendConfig) -> RecommendResult:
    """Answer the histories of ``cfg.input``.

    Raises:
        DeshiError: if the bundle or the input can't be read, or the output is no place or form to write to.
    """
    begin = time.perf_counter()
    source = Path(cfg.input).expanduser()
    output = (Path(cfg.output) if cfg.output else _default_output(source)).expanduser()
    address = object_address(output)
    output_format = cfg.format or _format(output)
    if output.resolve() == source.resolve():
        raise DeshiError(f"input and output are both {address or output}, expected two files.")
    bundle = ServingBundle.load(find_bundle(cfg.paths.runs, cfg.bundle))
    engine = Engine(bundle, 1, cfg.precision, cfg.batch_size, cfg.search)
    columns = HistoryColumns(cfg.user, cfg.item, cfg.history, cfg.timestamp, cfg.time_format, cfg.history_separator)
    form = TableFormat(cfg.separator, cfg.encoding, cfg.quote, cfg.columns)
    with local_file(source) as path:
        histories = read_histories(path, bundle.items[ITEM], columns, form, BadRows(cfg.on_bad_rows, cfg.max_bad_rows))
    allowed, excluded = _read_items(cfg, engine, "allowed"), _read_items(cfg, engine, "exclude")
    counts = _Counts()
    answer = _Answering(engine, histories, cfg.k, _open_items(allowed, excluded), cfg.filter_seen, counts)
    with (
        engine_of(cfg.engine, cfg.ray) as cluster,
        atomic_file(output) if address is None else written_object(address) as temporary,
    ):
        chunks = answer.by_threads(cfg.threads or _cores()) if cluster is None else answer.by_workers(cluster, cfg)
        # An open file, not its name: polars opens a name in a thread of its own, which may come after the clearing away
        with temporary.open("wb") as file:
            SINKS[output_format](_lazy(answer.counted(chunks, cfg.progress)), file)
    return RecommendResult(
        output=output if address is None else address,
        users=counts.users,
        rows=counts.rows,
        input_rows=histories.rows,
        bad_rows=histories.bad_rows,
        events=histories.events,
        unknown_events=histories.events - len(histories.items),
        unknown_items=histories.unknown_items,
        unknown_examples=histories.unknown_examples,
        allowed=allowed.counts if allowed else None,
        excluded=excluded.counts if excluded else None,
        popular_users=counts.popular,
        short_users=counts.short,
        empty_users=counts.empty,
        seconds=time.perf_counter() - begin,
    )


@dataclass(frozen=True, eq=False)
class _Answering:
    """The questions and how they are answered."""

    engine: Engine
    histories: Histories
    k: int
    allowed: Bools | None
    filter_seen: bool | None
    counts: _Counts

    def by_threads(self, threads: int) -> Iterator[pl.DataFrame]:
        """The answers in the order of the users, a frame a chunk; at most two chunks a thread are under way."""
        waiting: deque[Future[pl.DataFrame]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, len(self.histories), CHUNK):
                waiting.append(pool.submit(self._chunk, first))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def by_workers(self, cluster: Cluster, cfg: RecommendConfig) -> Iterator[pl.DataFrame]:
        """The same by the workers of a Ray cluster, to which the bundle's files travel."""
        folder = self.engine.bundle.path
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        options = {"precision": cfg.precision, "batch_size": cfg.batch_size, "search": cfg.search}
        work = partial(_answering, files, options, self.k, self.allowed, self.filter_seen)
        firsts = range(0, len(self.histories), CHUNK)
        for first, lists in zip(firsts, cluster.in_order(work, map(self._histories, firsts)), strict=True):
            yield self._frame(first, *lists)

    def counted(self, chunks: Iterator[pl.DataFrame], progress: bool) -> Iterator[pl.DataFrame]:
        """The same frames; what is in them is counted."""
        for chunk in chunks:
            yield self._counted(chunk, progress)

    def _histories(self, first: int) -> list[Ints]:
        numbers = range(first, min(first + CHUNK, len(self.histories)))
        return [self.histories.history(number) for number in numbers]

    def _chunk(self, first: int) -> pl.DataFrame:
        return self._frame(first, *self.engine.top(self._histories(first), self.k, self.allowed, self.filter_seen))

    def _frame(self, first: int, items: NDArray[np.int32], scores: NDArray[np.float32]) -> pl.DataFrame:
        row, column = (items != PAD).nonzero()
        return pl.DataFrame(
            {
                USER: self.histories.users.gather(row + first),
                ITEM: self.engine.bundle.items[ITEM].gather(items[row, column]),
                "score": scores[row, column],
                "rank": (column + 1).astype(np.int32),
            },
            schema=SCHEMA,
        )

    def _counted(self, frame: pl.DataFrame, progress: bool) -> pl.DataFrame:
        """Keep count of a finished chunk."""
        counts = self.counts
        first = counts.users
        last = min(first + CHUNK, len(self.histories))
        lengths = np.diff(self.histories.offsets[first : last + 1])
        list_length = min(self.k, self.engine.n_items)
        complete = int((frame["rank"] == list_length).sum())
        counts.users, counts.rows = last, counts.rows + frame.height
        counts.popular += int((lengths == 0).sum())
        counts.short += last - first - complete
        counts.empty += last - first - int((frame["rank"] == 1).sum())
        if progress:
            counts.say(len(self.histories))
        return frame


Lists = tuple[NDArray[np.int32], NDArray[np.float32]]


def _answering(
    files: Mapping[str, bytes], options: Mapping[str, Any], k: int, allowed: Bools | None, filter_seen: bool | None
) -> Callable[[list[Ints]], Lists]:
    """In a worker of a cluster: an engine of the bundle's files, which needs them no longer once it is there."""
    with tempfile.TemporaryDirectory(prefix="deshi-") as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        engine = load(folder, threads=1, check=False, **options)
    return lambda histories: engine.top(histories, k, allowed, filter_seen)


def _lazy(frames: Iterator[pl.DataFrame]) -> pl.LazyFrame:
    """Frames that are made one after the other, as a source that polars writes while it is read."""

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        yield from frames

    return register_io_source(source, schema=SCHEMA)


def _format(output: Path) -> str:
    if output.suffix.lower() not in FORMATS:
        raise DeshiError(f"output is {output}, expected one of the endings {', '.join(FORMATS)}, or give format=.")
    return FORMATS[output.suffix.lower()]


@dataclass(frozen=True, eq=False)
class _Items:
    """A file of item ids as a mask of the bundle's items, and the numbers of its ids."""

    mask: Bools
    counts: ItemCounts


def _read_items(cfg: RecommendConfig, engine: Engine, key: str) -> _Items | None:
    """The file of item ids that a key names, if it does.

    Raises:
        DeshiError: where the bundle knows none of the ids: it is the file of another system.
    """
    path = cfg.allowed if key == "allowed" else cfg.exclude
    if path is None:
        return None
    with local_file(path.expanduser()) as copy:
        ids = read_item_ids(copy, cfg.item, cfg.encoding)
    unknown = engine.encode(ids)[1]
    if ids and unknown == len(ids):
        raise DeshiError(
            f"{key} is {path}, but none of its {len(ids):,} ids is an item of the bundle. They are "
            f"{first_ids(pl.Series(ids))}; the bundle's are {first_ids(engine.bundle.items[ITEM])}. "
            f"Expected a file with an item id a line, or a table with a column {cfg.item}."
        )
    return _Items(engine.mask(ids), ItemCounts(len(ids), unknown))


def _open_items(allowed: _Items | None, excluded: _Items | None) -> Bools | None:
    """What may be recommended, from the files of allowed and excluded items."""
    if allowed is None and excluded is None:
        return None
    masks = [*([allowed.mask] if allowed else []), *([~excluded.mask] if excluded else [])]
    mask: Bools = np.logical_and.reduce(masks)
    if not mask.any():
        raise DeshiError("No item may be recommended: allowed and exclude leave none of the bundle's items.")
    return mask


def _default_output(source: Path) -> Path:
    """Beside the input, with another ending: ``events.csv.gz`` is ``events.recommendations.parquet``."""
    name = source.name[:-3] if source.name.lower().endswith(".gz") else source.name
    return source.with_name(Path(name).stem + ".recommendations.parquet")


def _cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
