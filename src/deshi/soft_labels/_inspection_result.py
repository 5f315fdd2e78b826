"""Result of the inspection of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan, log
from pathlib import Path
from typing import Any

from deshi.metrics import Interval, metric_title
from deshi.rendering import Block, Cell, Paragraph, Result, Table, paragraphs
from deshi.soft_labels._targets import LATEST, TRAIN


@dataclass(frozen=True)
class PartStatistics:
    """Rows of one kind.

    Attributes:
        name: ``train``, ``train-last`` (each user's latest training row), ``validation`` or ``test``.
        rows: number of rows that the store covers.
        positions: number of such rows that there are.
        metrics: ``hr@K`` and ``mrr@K`` of the item that came next, means over rows with 95 % intervals over users.
        entropy: mean over rows, in nats, of the softmax over the listed items; NaN if the scores have none.
        mass: mean probability that the listed items hold together; NaN if the scores don't say.
        listed_events: mean training events of the first listed items.
        target_events: mean training events of the targets.
    """

    name: str
    rows: int
    positions: int
    metrics: Mapping[str, Interval]
    entropy: float
    mass: float
    listed_events: float
    target_events: float


@dataclass(frozen=True)
class MemorisationGap:
    """The difference of a metric between training rows and held-out rows.

    Attributes:
        verdict: ``memorised``, ``none seen``, ``reversed`` or ``unknown``.
        sentence: why.
        metric: such as ``hr@10``.
        trained: the training rows that were compared: ``train-last``, or ``train`` if those aren't covered.
        held_out: what they were compared with: ``validation``, or ``test`` if that isn't covered.
        difference: trained minus held out, with its paired interval over users; None if unknown.
    """

    verdict: str
    sentence: str
    metric: str
    trained: str | None = None
    held_out: str | None = None
    difference: Interval | None = None


@dataclass(frozen=True)
class Overlap:
    """Similarity to the lists of another model, means over sampled rows."""

    name: str
    rows: int
    k: int
    jaccard: float
    rbo: float
    same_first: float


@dataclass(frozen=True)
class ListStatistics:
    """Popularity and spread of listed items, over sampled rows; the mean item of the catalogue has ``item_events``."""

    rows: int
    k: int
    listed_events: float
    item_events: float
    coverage: float
    gini: float
    novelty: float


@dataclass(frozen=True)
class Example:
    """One row with titles; ``rank`` is the target's, None if the list doesn't hold it."""

    part: str
    row: int
    user: str
    history: Sequence[str]
    target: str
    listed: Sequence[str]
    rank: int | None


@dataclass(frozen=True)
class Inspection(Result):
    """A store, looked into.

    Attributes:
        path: of the store.
        manifest: of the store.
        covered: number of rows with a list.
        parts: kinds of rows; those that aren't covered have ``rows`` 0.
        gap: the memorisation gap.
        lists: popularity and spread of the listed items.
        overlap: with another model, if one was given.
        examples: rows with titles.
    """

    path: Path
    manifest: Mapping[str, Any] = field(repr=False)
    covered: int
    parts: Sequence[PartStatistics]
    gap: MemorisationGap
    lists: ListStatistics
    overlap: Overlap | None
    examples: Sequence[Example]

    def part(self, name: str) -> PartStatistics:
        """The rows of one kind."""
        return next(part for part in self.parts if part.name == name)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; of the manifest the teacher alone."""
        return {
            "path": str(self.path),
            "teacher": self.manifest["teacher"],
            "covered": self.covered,
            "parts": [asdict(part) for part in self.parts],
            "gap": asdict(self.gap),
            "lists": asdict(self.lists),
            "overlap": None if self.overlap is None else asdict(self.overlap),
            "examples": [asdict(example) for example in self.examples],
        }

    def blocks(self) -> list[Block]:
        """Facts, metrics by part, the memorisation gap, the lists' items, examples."""
        verdict = Paragraph(self.gap.sentence, "alarm" if self.gap.verdict == "memorised" else "strong")
        blocks: list[Block] = [
            self._facts(),
            self._targets(),
            verdict,
            self._list_statistics(),
            *paragraphs(*self._notes()),
        ]
        return blocks + ([self._examples()] if self.examples else [])

    def _facts(self) -> Table:
        manifest = self.manifest
        teacher = manifest["teacher"]
        origin = ", ".join(f"{key} {value}" for key, value in teacher.items() if key != "name")
        histories = "the bundle's histories" if manifest["sequences"] == "bundle" else "augmented histories"
        covered = f"{self.covered:,} of {manifest['n_rows']:,} ({self.covered / manifest['n_rows']:.1%})"
        seen = "left out" if manifest["filter_seen"] else "listed"
        rows = [
            ["teacher", f"{teacher['name']}{f' ({origin})' if origin else ''}"],
            ["data", f"{manifest['data']}, fingerprint {manifest['data_fingerprint'][:12]}"],
            ["rows", f"{covered}, {histories}, positions {manifest['positions']}"],
            [
                "lists",
                f"{manifest['k']} items, seen items {seen}, {manifest['score_kind']} in {manifest['score_dtype']}",
            ],
        ]
        return Table(f"Soft-label store {self.path.name}", (), rows, align="ll")

    def _targets(self) -> Table:
        metrics = next((list(part.metrics) for part in self.parts if part.rows), [])
        rows = []
        for part in self.parts:
            cells = [_cell(part.metrics[metric]) for metric in metrics] if part.rows else ["-"] * len(metrics)
            rows.append([part.name, f"{part.rows:,} of {part.positions:,}", *cells, _number(part.entropy, ".3f")])
        caption = (
            f"Brackets: 95 % interval over users. train-last: each user's latest training row. Entropy in nats over "
            f"the listed items (at most {log(self.manifest['k']):.2f})."
        )
        return Table("What came next", ["rows", "covered", *map(metric_title, metrics), "entropy"], rows, caption)

    def _list_statistics(self) -> Table:
        lists, overlap = self.lists, self.overlap
        rows = [
            ["training events of a listed item", f"{lists.listed_events:,.1f}"],
            ["training events of an item of the catalogue", f"{lists.item_events:,.1f}"],
            *([f"{name}@{lists.k}", f"{getattr(lists, name):.4f}"] for name in ("coverage", "gini", "novelty")),
        ]
        if overlap is not None:
            other = f"with {overlap.name}, {overlap.rows:,} rows"
            rows += [
                [f"Jaccard@{overlap.k} {other}", _number(overlap.jaccard, ".4f")],
                [f"RBO@{overlap.k} {other}", _number(overlap.rbo, ".4f")],
                [f"same first item {other}", _number(overlap.same_first, ".1%")],
            ]
        return Table(f"What is listed, first {lists.k}, {lists.rows:,} rows", ["", "value"], rows)

    def _notes(self) -> list[str]:
        notes = []
        repeats = self.manifest.get("repeats", {})
        if repeats.get("next_seen_before") and self.manifest["filter_seen"]:
            count, of = repeats["next_seen_before"], repeats["rows_with_next"]
            notes.append(f"{count:,} of {of:,} next events are repeats, which lists without seen items can't hold.")
        with_mass = [part for part in self.parts if part.rows and not isnan(part.mass)]
        notes += [f"{part.name}: the list holds {part.mass:.1%} of the teacher's probability." for part in with_mass]
        return notes

    def _examples(self) -> Table:
        rows = []
        for example in self.examples:
            rank = "not listed" if example.rank is None else f"rank {example.rank}"
            label, history = f"{example.part} {example.row}\nuser {example.user}", "\n".join(example.history)
            rows.append([label, history, f"{example.target}\n({rank})", "\n".join(example.listed)])
        columns = ["row", "history, newest last", "came next", "listed"]
        return Table("Examples, drawn at random", columns, rows, align="llll")


def memorisation_gap(
    metric: str, parts: Sequence[PartStatistics], gaps: Mapping[tuple[str, str, str], Interval]
) -> MemorisationGap:
    """How much better the teacher ranks its training targets than new ones.

    Each user's latest training row stands closest to the first held-out one and is preferred; so is validation to test.
    """
    rows = {part.name: part for part in parts if part.rows}
    trained = next((name for name in (LATEST, TRAIN) if name in rows), None)
    held = next((name for name in ("validation", "test") if name in rows), None)
    if trained is None or held is None:
        missing = "training rows" if trained is None else "held-out rows"
        sentence = f"The memorisation gap can't be told: no {missing} are covered. Write positions=last:20+held_out."
        return MemorisationGap("unknown", sentence, metric, trained, held)
    gap = gaps[trained, held, metric]
    values = [rows[name].metrics[metric].mean for name in (trained, held)]
    figures = (
        f"{metric_title(metric)} is {values[0]:.4f} at {trained} rows and {values[1]:.4f} at {held} rows, "
        f"a difference of {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
    )
    return MemorisationGap(*_verdict(gap, figures), metric, trained, held, gap)


def _verdict(gap: Interval, figures: str) -> tuple[str, str]:
    if gap.low > 0:
        return "memorised", (
            f"Memorised: {figures}. The teacher ranks the targets that it was trained on better than new ones: its "
            "lists at training rows are partly learnt by heart, which a student can't use. Write out-of-sample "
            "soft labels: by a teacher with cross_fit, or after augmented histories (augment)."
        )
    if gap.high < 0:
        return "reversed", (
            f"Reversed: {figures}. Training targets are ranked worse than new ones, as by a teacher that was not "
            "trained on them, or on data whose later events are easier."
        )
    return "none seen", f"No memorisation is seen: {figures}; the interval covers 0."


def _cell(interval: Interval) -> Cell:
    return Cell(f"{interval.mean:.4f}", f"[{interval.low:.4f}, {interval.high:.4f}]")


def _number(value: float, style: str) -> str:
    return "-" if isnan(value) else format(value, style)
