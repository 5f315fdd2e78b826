"""From the files of an outsider's pair to arrays: ids brought to one form, times to one unit, targets chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from deshi.arrays import Ints
from deshi.auditing.finding import Finding, count, finding, place
from deshi.auditing.pair_data import Catalogue, Events, Lists, Pair, Predicted
from deshi.auditing.pair_reading import Table
from deshi.auditing.units import UNITS, mixed_units
from deshi.types import DeshiError

ROLES = ("user", "item")


@dataclass(frozen=True, eq=False)
class Files:
    """The tables of a pair: those of events, and the predictions.

    Attributes:
        interactions: all that is known of the users, or all but the targets.
        predictions: ranked lists.
        test: the targets, or None for leave-one-out.
        train: what the model was trained on, or None.
    """

    interactions: Table
    predictions: Table
    test: Table | None
    train: Table | None

    @property
    def tables(self) -> dict[str, Table]:
        """The tables that there are, by the names of the settings."""
        named = {
            "interactions": self.interactions,
            "predictions": self.predictions,
            "test": self.test,
            "train": self.train,
        }
        return {key: table for key, table in named.items() if table is not None}


def malformed(files: Files) -> list[Finding]:
    """A finding for every file with rows that could not be read."""
    return [
        finding(
            "malformed-rows",
            f"{table.path} has {count(table.bad, table.bad + table.frame.height, 'rows')} that could not be read.",
            [f"{table.path.name} {example}" for example in table.examples],
            f"{table.bad:,} rows are left out of every figure.",
            "Repair the rows, or look for the export that wrote them.",
        )
        for table in files.tables.values()
        if table.bad
    ]


def same_ids(frames: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], list[Finding]]:
    """Bring ids that differ only in blanks, a trailing ``.0`` or leading zeros to one form, if that makes them match.

    Nothing is changed where the interactions would then hold fewer different ids than before.
    """
    done, findings = dict(frames), []
    for role in ROLES:
        written = frames["interactions"][role].unique(maintain_order=True)
        plain = _plain(written)
        if plain.n_unique() < len(written):
            continue
        for key, frame in frames.items():
            ids = frame[role].unique(maintain_order=True)
            lost, meant = ids.filter(~ids.is_in(written.implode())), _plain(ids)
            fixed = lost.filter(_plain(lost).is_in(plain.implode()))
            if key == "interactions" or fixed.is_empty():
                continue
            findings.append(_differently(key, role, frames, fixed, len(meant)))
            done = {name: other.with_columns(_plain(other[role])) for name, other in done.items()}
    return done, findings


def _plain(ids: pl.Series) -> pl.Series:
    return ids.str.strip_chars().str.replace(r"^(-?\d+)\.0+$", "${1}").str.replace(r"^0+(\d)", "${1}")


def _differently(key: str, role: str, frames: Mapping[str, pl.DataFrame], fixed: pl.Series, n_ids: int) -> Finding:
    frame, form = frames[key], frames["interactions"]
    rows = frame.filter(pl.col(role).is_in(fixed.implode()))
    example = rows.row(0, named=True)
    same = form.filter(_plain(form[role]) == _plain(pl.Series([example[role]]))[0])[role][0]
    return finding(
        "ids-written-differently",
        f"{count(len(fixed), n_ids, f'{role} ids')} of {key} match those of interactions only after blanks, "
        f"'.0' and leading zeros are taken off: {example[role]!r} stands for {same!r}.",
        [f"{key} line {line}: {value!r}" for line, value in rows.select("line", role).unique(role).head(5).rows()],
        f"As text they are different: {count(rows.height, frame.height, f'rows of {key}')} would count as misses. "
        "Everything below is computed with the ids brought to one form.",
        "Write the ids as text in both files; a whole number that became 1.0 was read with missing values in between.",
    )


def same_units(frames: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], list[Finding]]:
    """Bring timestamps of the rarer units to that of most."""
    done, findings = dict(frames), []
    for key, frame in frames.items():
        times = frame["time"].to_numpy() if "time" in frame.columns else np.zeros(0)
        while len(times) and (mixed := mixed_units(times)) is not None:
            factor = 1000.0 ** (UNITS.index(mixed.main) - UNITS.index(mixed.unit))
            rare = frame[mixed.rows]
            times = times.astype(np.float64)
            times[mixed.rows] *= factor
            moved = _moved(frame, times)
            findings.append(
                finding(
                    "timestamps-mixed-units",
                    f"{count(len(mixed.rows), frame.height, f'timestamps of {key}')} are in {mixed.unit}, "
                    f"the others in {mixed.main}.",
                    [
                        place(user=user, item=item, line=line, timestamp=time)
                        for user, item, line, time in rare.select("user", "item", "line", "time").head(5).rows()
                    ],
                    f"{count(moved, frame['user'].n_unique(), 'users')} get another last event, which is another "
                    f"target. Everything below is computed in {mixed.main}.",
                    f"Convert these rows to {mixed.main} before you sort.",
                )
            )
            done[key] = frame = frame.with_columns(pl.Series("time", times))
    return done, findings


def _moved(frame: pl.DataFrame, times: np.ndarray) -> int:
    """How many users' newest event is another one with the corrected ``times``."""
    both = frame.select("user", "time", pl.Series("fixed", times), pl.Series("row", range(frame.height)))
    newest = both.group_by("user").agg(
        pl.col("row").sort_by("time", "row").last().alias("old"),
        pl.col("row").sort_by("fixed", "row").last().alias("new"),
    )
    return int((newest["old"] != newest["new"]).sum())


def build(files: Files, frames: Mapping[str, pl.DataFrame], higher_is_better: bool, ks: tuple[int, ...]) -> Pair:
    """Number users and items, sort histories and lists, and choose the targets.

    Raises:
        DeshiError: if no user has a target, or no list is for a user with one.
    """
    others = [frame for key, frame in frames.items() if key != "interactions"]
    users, items = (Catalogue.of(frames["interactions"][role], [frame[role] for frame in others]) for role in ROLES)
    events = _events(frames["interactions"], users, items)
    predicted = _predicted(frames["predictions"], users, items, higher_is_better)
    order = np.where(np.isnan(predicted.score), -np.inf, predicted.score)
    lists, repeated = Lists.of(predicted.user, predicted.item, order, predicted.line, len(users), len(items))
    test = _events(frames["test"], users, items, by_time=False) if "test" in frames else None
    train = _events(frames["train"], users, items) if "train" in frames else None
    if test is None:
        chosen = _last_events(events, lists)
    else:
        chosen = _held_out(events, test)
    history, example_user, example, target, target_line = chosen
    if not len(example_user):
        raise DeshiError(
            f"No user of {files.interactions.path} has a target, expected users with at least two events. "
            f"Check the column of user ids, or give the targets: test=FILE."
        )
    longest = int(lists.lengths[example_user].max())
    if longest == 0:
        raise DeshiError(
            f"None of the {len(example_user):,} users with a target has predictions: "
            f"{files.predictions.path} has users such as {_some(frames['predictions'])}, the targets are of "
            f"{', '.join(repr(users.names[user]) for user in example_user[:3])}. Check that the files belong together."
        )
    used = tuple(k for k in ks if k <= longest) or (longest,)
    places = {key: table.at for key, table in files.tables.items()}
    return Pair(
        users, items, events, history, lists, predicted, repeated, train, example_user, example, target, target_line,
        test is not None, used, places,
    )  # fmt: skip


def _some(frame: pl.DataFrame) -> str:
    return ", ".join(repr(name) for name in frame["user"].unique(maintain_order=True).head(3))


def _events(frame: pl.DataFrame, users: Catalogue, items: Catalogue, by_time: bool = True) -> Events:
    time = frame["time"].to_numpy() if "time" in frame.columns else None
    codes = users.codes(frame["user"]), items.codes(frame["item"])
    return Events.of(*codes, frame["line"].to_numpy(), time, len(users), by_time)


def _predicted(frame: pl.DataFrame, users: Catalogue, items: Catalogue, higher_is_better: bool) -> Predicted:
    rank = frame["rank"].to_numpy() if "rank" in frame.columns else None
    scored = "score" in frame.columns
    raw = frame["score"].to_numpy() if scored else np.zeros(0)
    score = -rank if rank is not None and not scored else raw * (1.0 if higher_is_better else -1.0)
    codes = users.codes(frame["user"]), items.codes(frame["item"])
    return Predicted(*codes, score, rank, frame["line"].to_numpy(), scored)


Chosen = tuple[Events, Ints, Ints, Ints, Ints]


def _last_events(events: Events, lists: Lists) -> Chosen:
    """Leave-one-out: the last event of each user with three events, or with two if such users have predictions."""
    pairs = (events.counts == 2) & (lists.lengths > 0)
    example_user = np.flatnonzero(events.counts >= (2 if pairs.any() else 3))
    rows = events.from_end(example_user, 0)
    keep = np.ones(len(events.user), dtype=bool)
    keep[rows] = False
    return events.take(keep), example_user, np.arange(len(example_user)), events.item[rows], events.line[rows]


def _held_out(events: Events, test: Events) -> Chosen:
    """The targets of a file; events that are targets leave the history: at its end, or with the same timestamp."""
    width = int(max(events.item.max(), test.item.max())) + 1
    keys = test.user * width + test.item
    _, first = np.unique(keys, return_index=True)
    first = np.sort(first)
    example_user, example = np.unique(test.user[first], return_inverse=True)
    sizes = np.bincount(test.user[first], minlength=len(events.counts))
    from_end = events.offsets[events.user + 1] - 1 - np.arange(len(events.user))
    own = np.isin(events.user * width + events.item, keys)
    asked = own & (from_end < sizes[events.user])
    if events.time is not None and test.time is not None:
        asked |= own & _same_time(events, test, width)
    return events.take(~asked), example_user, example, test.item[first], test.line[first]


def _same_time(events: Events, test: Events, width: int) -> np.ndarray:
    frames = [pl.DataFrame({"key": one.user * width + one.item, "time": one.time}) for one in (events, test)]
    times = frames[1].with_columns(pl.col("time").cast(pl.Float64)).unique().with_columns(there=True)
    joined = frames[0].with_columns(pl.col("time").cast(pl.Float64))
    return joined.join(times, on=["key", "time"], how="left", maintain_order="left")["there"].is_not_null().to_numpy()
