"""The files of a pair brought to one writing of ids and one unit of time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from deshi.auditing._finding import Finding, count, finding, location
from deshi.auditing._pair_files import Table
from deshi.auditing._units import UNITS, mixed_units

Frames = dict[str, pl.DataFrame]


def malformed_rows(tables: Mapping[str, Table]) -> list[Finding]:
    """A finding for every file with rows that could not be read."""
    return [
        finding(
            "malformed-rows",
            f"{table.path} has {count(table.bad, table.bad + table.frame.height, 'rows')} that could not be read.",
            [f"{table.path.name} {example}" for example in table.examples],
            f"{table.bad:,} rows are left out of every figure.",
            "Repair the rows, or look for the export that wrote them.",
        )
        for table in tables.values()
        if table.bad
    ]


def same_ids(frames: Frames) -> tuple[Frames, list[Finding]]:
    """Bring ids that differ only in blanks, a trailing ``.0`` or leading zeros to one form, if that makes them match.

    Nothing is changed where the interactions would then hold fewer different ids than before.
    """
    done, findings = dict(frames), []
    for role in ("user", "item"):
        written = frames["interactions"][role].unique(maintain_order=True)
        plain = _plain(written)
        if plain.n_unique() < len(written):
            continue
        for key, frame in frames.items():
            ids = frame[role].unique(maintain_order=True)
            unmatched = ids.filter(~ids.is_in(written.implode()))
            fixed = unmatched.filter(_plain(unmatched).is_in(plain.implode()))
            if key == "interactions" or fixed.is_empty():
                continue
            findings.append(_differently(key, role, frames, fixed, len(ids)))
            done = {name: other.with_columns(_plain(other[role])) for name, other in done.items()}
    return done, findings


def _plain(ids: pl.Series) -> pl.Series:
    return ids.str.strip_chars().str.replace(r"^(-?\d+)\.0+$", "${1}").str.replace(r"^0+(\d)", "${1}")


def _differently(key: str, role: str, frames: Frames, fixed: pl.Series, n_ids: int) -> Finding:
    frame, form = frames[key], frames["interactions"]
    rows = frame.filter(pl.col(role).is_in(fixed.implode()))
    example = rows.row(0, named=True)
    same = form.filter(_plain(form[role]) == _plain(pl.Series([example[role]]))[0])[role][0]
    return finding(
        "ids-written-differently",
        f"{count(len(fixed), n_ids, f'{role} ids')} of {key} match those of interactions only after blanks, "
        f"'.0' and leading zeros are taken off: {example[role]!r} stands for {same!r}.",
        [
            f"{key} line {line}: {value!r}"
            for line, value in rows.select("line", role).unique(role, keep="first", maintain_order=True).head(5).rows()
        ],
        f"As text they are different: {count(rows.height, frame.height, f'rows of {key}')} would count as misses. "
        "Everything below is computed with the ids brought to one form.",
        "Write the ids as text in both files; a whole number that became 1.0 was read with missing values in between.",
    )


def same_units(frames: Frames) -> tuple[Frames, list[Finding]]:
    """Bring timestamps of the rarer units to that of most."""
    done, findings = dict(frames), []
    for key, frame in frames.items():
        times = frame["time"].to_numpy() if "time" in frame.columns else np.zeros(0)
        while len(times) and (mixed := mixed_units(times)) is not None:
            factor = 1000.0 ** (UNITS.index(mixed.main) - UNITS.index(mixed.unit))
            rare = frame[mixed.rows]
            times = times.astype(np.float64)
            times[mixed.rows] *= factor
            findings.append(
                finding(
                    "timestamps-mixed-units",
                    f"{count(len(mixed.rows), frame.height, f'timestamps of {key}')} are in {mixed.unit}, "
                    f"the others in {mixed.main}.",
                    [
                        location(user=user, item=item, line=line, timestamp=time)
                        for user, item, line, time in rare.select("user", "item", "line", "time").head(5).rows()
                    ],
                    f"{count(_moved(frame, times), frame['user'].n_unique(), 'users')} get another last event, which "
                    f"is another target. Everything below is computed in {mixed.main}.",
                    f"Convert these rows to {mixed.main} before you sort.",
                )
            )
            done[key] = frame = frame.with_columns(pl.Series("time", times))
    return done, findings


def _moved(frame: pl.DataFrame, times: np.ndarray) -> int:
    """How many users' newest event is another one with the corrected ``times``."""
    both = frame.select("user", "time", pl.Series("corrected", times), pl.int_range(pl.len()).alias("row"))
    newest = both.group_by("user").agg(
        pl.col("row").sort_by("time", "row").last().alias("before"),
        pl.col("row").sort_by("corrected", "row").last().alias("after"),
    )
    return int((newest["before"] != newest["after"]).sum())
