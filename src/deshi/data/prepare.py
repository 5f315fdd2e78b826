"""The work of ``deshi prepare``: a source loaded, filtered and written as a bundle, unless it is there already."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import count_codes
from deshi.artifacts import atomic_folder, fingerprint, read_json, write_json
from deshi.configuration.schemas import DataConfig, PrepareConfig
from deshi.configuration.targets import build
from deshi.data import freshness, statistics
from deshi.data._item_rows import count_item_rows
from deshi.data.bundle import FORMAT, MANIFEST, Bundle, fill_bundle
from deshi.data.filtering import FilterStep, apply_filters
from deshi.data.raw import BadRowReport, BadRows, FileRecord, RawData
from deshi.data.sources.columns import Columns
from deshi.data.vocabulary import ITEM_INDEX, Events, compact, encode_events
from deshi.rendering import Block, Cell, Result, Row, Table, paragraphs, plain_text
from deshi.types import TIMESTAMP, DeshiError

STATISTICS = "statistics.json"
_OTHER_LINES = {"blank": "empty lines", "continued": "lines inside quoted fields"}


@dataclass(frozen=True)
class PrepareResult(Result):
    """What ``prepare`` hands back.

    Attributes:
        bundle: the data.
        report: what each filter removed.
        statistics: the figures of ``statistics.json``.
        reused: whether the bundle was already there.
        message: what happened and why, in one line.
        bad_rows: malformed rows that were skipped.
        files: what was read, and from where; empty if the bundle was reused.
    """

    bundle: Bundle
    report: list[FilterStep]
    statistics: dict[str, Any]
    reused: bool
    message: str
    bad_rows: BadRowReport = field(default_factory=BadRowReport)
    files: list[FileRecord] = field(default_factory=list)

    def blocks(self) -> list[Block]:
        """What happened, the filters' report and the statistics."""
        title = f"{self.bundle.name} ({self.bundle.path / 'statistics.png'})"
        rows: list[Row] = [[Cell(label, bold=True), value] for label, value in statistics.rows(self.statistics)]
        warnings = list(filter(None, [statistics.repeats_sentence(self.statistics)]))
        warnings += statistics.warnings(self.statistics)
        return [
            *paragraphs(self.message, row_sentence(self.report, self.bad_rows), *self.bad_rows.notes),
            *paragraphs(*warnings, tone="warning"),
            _report_table(self.report, self.bad_rows),
            Table(title, (), rows),
        ]


def run(cfg: PrepareConfig) -> PrepareResult:
    """Prepare a data set.

    Raises:
        DeshiError: if the source can't be read, or nothing usable is left after the filters.
    """
    path, source = cfg.paths.data / cfg.data.name, cfg.data.source
    settings = _settings(cfg.data)
    reason = _why_prepare(path, settings, source, cfg.force)
    if reason is None:
        return _reuse(path, source)
    bad_rows = BadRows(cfg.data.on_bad_rows, cfg.data.max_bad_rows)
    raw = _load(source, cfg.paths.cache, bad_rows, tuple(settings["filters"]["keep"]))
    events, steps = _filter(raw.interactions, settings["filters"], raw.bad_rows)
    items, facts = raw.items, (raw.time_unit, raw.files, raw.bad_rows)
    figures = _write(path, cfg.data.name, settings, events, items, steps, *facts)
    freshness.record_local(path, source, facts[1])
    message = f"Prepared {cfg.data.name} in {path}{reason}."
    return PrepareResult(Bundle.load(path), steps, figures, False, message, facts[2], facts[1])


def _settings(data: DataConfig) -> dict[str, Any]:
    return {
        "source": freshness.redact(data.source),
        "filters": data.filters.model_dump(),
        "on_bad_rows": data.on_bad_rows,
        "max_bad_rows": data.max_bad_rows,
    }


def _why_prepare(path: Path, settings: dict[str, Any], source: Any, force: bool) -> str | None:
    """Why the bundle must be made, as the end of a sentence; None if it is there and still right."""
    if not (path / MANIFEST).is_file():
        return ""
    if force:
        return ", anew because of force=true"
    manifest = read_json(path / MANIFEST)
    if manifest.get("format") != FORMAT:
        return f", anew because the old bundle has format {manifest.get('format')}"
    changed = freshness.differences(manifest.get("settings"), settings)
    if changed:
        return f", replacing a bundle with other settings ({'; '.join(changed)})"
    if manifest.get("stamp") != _stamp(settings, manifest.get("sources")):
        return ", anew because the old bundle's stamp does not fit its settings"
    changed = freshness.local_changes(path, source)
    if changed:
        return f", anew because {'; '.join(changed)}"
    try:
        Bundle.load(path)
        if "repeated_last_events" not in read_json(path / STATISTICS):
            return ", anew because the old bundle's statistics lack the repeated last events"
    except DeshiError as error:
        return f", anew ({error})"
    return None


def _reuse(path: Path, source: Any) -> PrepareResult:
    bundle = Bundle.load(path)
    steps = [FilterStep(**step) for step in bundle.manifest["report"]]
    message = f"Nothing to do: {path} was made with these settings from these files. Set force=true to make it again."
    if freshness.is_database(source):
        message += " Whether the database has changed since then is not checked."
    bad_rows = BadRowReport(**bundle.manifest["bad_rows"])
    return PrepareResult(bundle, steps, read_json(path / STATISTICS), True, message, bad_rows)


def _load(source: Any, cache: Path, bad_rows: BadRows, further: tuple[str, ...]) -> RawData:
    """The source's content, with ``further`` columns for filters if the source has any; every row is accounted for."""
    reader = build(source)
    if further and isinstance(getattr(reader, "columns", None), Columns):
        reader.columns = replace(reader.columns, further=further)
    raw: RawData = reader.load(cache, bad_rows)
    raw.bad_rows.check(raw.interactions.height)
    return raw


def _filter(
    interactions: pl.DataFrame, filters: dict[str, Any], bad_rows: BadRowReport
) -> tuple[Events, list[FilterStep]]:
    if interactions.height == 0:
        raise DeshiError("The source has no interactions, expected at least two. Check data.source.")
    events, steps = apply_filters(encode_events(interactions), **filters)
    if events.frame.height == 0:
        raise DeshiError(
            "The filters removed every interaction. Loosen data.filters; this is what each of them removed:\n"
            + plain_text([_report_table(steps, bad_rows)])
        )
    if steps[-1].users == events.frame.height:
        raise DeshiError(
            f"No user has two events ({events.frame.height} interactions, one for each user), expected histories from "
            f"which a next item can be learned. Check the user column in data.source, or loosen data.filters:\n"
            + plain_text([_report_table(steps, bad_rows)])
        )
    return compact(events), steps


def _write(
    path: Path,
    name: str,
    settings: dict[str, Any],
    events: Events,
    items: pl.DataFrame | None,
    steps: list[FilterStep],
    time_unit: str,
    files: list[FileRecord],
    bad_rows: BadRowReport,
) -> dict[str, Any]:
    """Write the bundle with its statistics, and return these."""
    sources = sorted(({"name": file.name, "sha256": file.sha256} for file in files), key=lambda file: file["name"])
    provenance = {
        "settings": settings,
        "sources": sources,
        "stamp": _stamp(settings, sources),
        "report": [asdict(step) for step in steps],
        "bad_rows": asdict(bad_rows),
    }
    item_rows = None if items is None else count_item_rows(events.item_ids, items)
    with atomic_folder(path) as folder:
        fill_bundle(folder, name, events, items, time_unit, provenance)
        bundle = Bundle.load(folder)
        # The arrays in memory, since pages of the mapped files would count beside them.
        codes, times = (events.frame[name].to_numpy() for name in (ITEM_INDEX, TIMESTAMP))
        figures = statistics.compute(bundle.offsets, codes, times, bundle.n_items, time_unit, item_rows)
        figures["rows"] = row_counts(steps, bad_rows)
        write_json(folder / STATISTICS, figures)
        popularity = count_codes(codes, bundle.n_items)
        statistics.draw(folder / "statistics.png", np.diff(bundle.offsets), popularity, name)
    return figures


def _stamp(settings: dict[str, Any], sources: Any) -> str:
    return fingerprint([("settings", settings), ("sources", sources)])


def row_counts(steps: list[FilterStep], bad_rows: BadRowReport) -> dict[str, int]:
    """What became of the rows: those read are events that stay, those that filters removed, and malformed ones.

    Where rows are histories, ``histories`` are read and become events.
    """
    events, kept = steps[0].interactions, steps[-1].interactions
    rows = {
        "read": events + bad_rows.skipped,
        "malformed": bad_rows.skipped,
        "blank": 0,
        "continued": 0,
    } | bad_rows.rows
    return rows | {"events": kept, "filtered": events - kept}


def row_sentence(steps: list[FilterStep], bad_rows: BadRowReport) -> str:
    """The same as a sentence."""
    rows = {name: f"{number:,}" for name, number in row_counts(steps, bad_rows).items()}
    malformed = f"{rows['malformed']} malformed"
    events = f"{rows['events']} events + {rows['filtered']} filtered"
    if "histories" in rows:
        account = f"{rows['histories']} histories + {malformed}; {steps[0].interactions:,} events in them = {events}"
    else:
        account = f"{events} + {malformed}"
    further = [f"{rows[name]} {text}" for name, text in _OTHER_LINES.items() if rows[name] != "0"]
    return f"{rows['read']} rows read = {account}{''.join(f'; {text}' for text in further)}."


def _report_table(steps: list[FilterStep], bad_rows: BadRowReport) -> Table:
    units = ("interactions", "users", "items")
    rows = []
    for step in steps:
        counts = [count for unit in units for count in (getattr(step, f"removed_{unit}"), getattr(step, unit))]
        rows.append([step.name, *(f"{count:,}" for count in counts)])
    caption = ""
    if bad_rows.skipped:
        caption = f"{bad_rows.skipped:,} malformed rows were skipped, e.g. {bad_rows.examples[0]}"
    columns = ["filter", *(name for unit in units for name in (f"- {unit}", unit))]
    return Table("What the filters removed", columns, rows, caption)
