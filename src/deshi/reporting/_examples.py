"""Section of evaluation examples: histories, targets, and each model's list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from deshi.arrays import Bools, Ints
from deshi.rendering import Paragraph
from deshi.reporting._blocks import Block, Example, Examples, ListedItem, Missing, RankedList, Section
from deshi.reporting._context import Context, Data, evaluate_again, lists_of
from deshi.reporting._runs import ReportedRun, baseline_names, baseline_ranks
from deshi.types import ITEM, TITLE, USER

HISTORY, LISTED, TARGETS = 10, 5, 5
"""How much an example shows: the latest items of a history, the first items of a list, targets."""

LEAD = (
    "What a figure can't say: whether the recommendations make sense. The latest items of a user's history, the item "
    "that really came next, and each model's first items. An item without a title is shown by its id."
)


def section(context: Context) -> Section:
    """Examples drawn by a rule that is stated, or the command that makes them possible."""
    blocks: list[Block] = []
    lists = {run.label: frame for run in context.runs if (frame := lists_of(run, context.part)) is not None}
    if context.data is None:
        blocks.append(Missing(context.data_problem))
    elif not context.n_examples:
        blocks.append(Paragraph("None were asked for (examples=0)."))
    else:
        blocks += _drawn(context, context.data, lists)
    blocks += evaluate_again("lists", [run for run in context.runs if run.label not in lists], context.part)
    return Section("examples", "Examples", LEAD, blocks)


def _drawn(context: Context, data: Data, lists: dict[str, pl.DataFrame]) -> list[Block]:
    ranks = {run.label: run.evaluation.ranks(context.part) for run in context.runs}
    hits = _hits(list(ranks.values()), context.k)
    numbers = draw(hits, context.n_examples, context.examples_seed)
    ranks |= {name: baseline_ranks(context.runs, name, context.part) for name in _baselines(context)}
    builder = _ExampleBuilder(context, data, lists, ranks)
    examples = [builder.example(number, bool(hits[number])) for number in numbers.tolist()]
    return [Paragraph(_rule(context, hits, numbers), "note"), Examples(examples)]


def draw(hits: Bools, count: int, seed: int) -> Ints:
    """Example numbers, ascending: half of them hits, half misses, each drawn uniformly without replacement.

    Where one kind has too few examples, the other fills its places.
    """
    generator = np.random.default_rng(seed)
    kinds = [generator.permutation(np.flatnonzero(hits == kind)) for kind in (True, False)]
    n_hits = min((count + 1) // 2, len(kinds[0]))
    n_misses = min(count - n_hits, len(kinds[1]))
    n_hits = min(count - n_misses, len(kinds[0]))
    return np.sort(np.concatenate([kinds[0][:n_hits], kinds[1][:n_misses]]))


def _hits(ranks: Sequence[pl.DataFrame], k: int) -> Bools:
    """``(C,)`` whether any model has a target of the example among its first ``k``."""
    best = [frame.group_by("example").agg(pl.col("rank").min()).sort("example")["rank"].to_numpy() for frame in ranks]
    return np.asarray(np.array(best).min(axis=0) <= k)


def _rule(context: Context, hits: Bools, numbers: Ints) -> str:
    subject = "at least one model has" if len(context.runs) > 1 else "the model has"
    n_hits = int(hits[numbers].sum())
    return (
        f"Drawn at random with seed {context.examples_seed}, not chosen: {n_hits} examples where {subject} "
        f"the true next item among its first {context.k}, and {len(numbers) - n_hits} where none has. Of all "
        f"{len(hits):,} examples {hits.mean():.1%} are hits in this sense, so this page shows more hits than there "
        f"are. Other examples: examples_seed={context.examples_seed + 1}."
    )


def _baselines(context: Context) -> list[str]:
    """The baselines that were evaluated on the part."""
    key = f"{context.part}/n_examples"
    names = baseline_names(context.runs)
    return [name for name in names if any(key in run.evaluation.baselines.get(name, {}) for run in context.runs)]


class _ExampleBuilder:
    """Turns example numbers into what the page shows of them."""

    def __init__(
        self, context: Context, data: Data, lists: dict[str, pl.DataFrame], ranks: dict[str, pl.DataFrame]
    ) -> None:
        self.context, self.data, self.lists = context, data, lists
        self.ranks = {label: frame.partition_by("example", as_dict=True) for label, frame in ranks.items()}
        table = data.bundle.item_table()
        self.titles = table.select(pl.coalesce(pl.when(pl.col(TITLE) != "").then(pl.col(TITLE)), ITEM)).to_series()

    def example(self, number: int, hit: bool) -> Example:
        examples, bundle = self.data.examples, self.data.bundle
        history = bundle.items[examples.starts[number] : examples.ends[number]]
        rows = examples.target_rows[examples.target_offsets[number] : examples.target_offsets[number + 1]]
        targets = bundle.items[rows].tolist()
        lists = [self._list(run, number, set(targets)) for run in self.context.runs]
        baselines = [name for name in self.ranks if self.context.color(name) is None]
        lists += [RankedList(name, None, self._rank(name, number), ()) for name in baselines]
        return Example(
            str(bundle.users[USER][int(examples.users[number])]), hit, max(len(history) - HISTORY, 0),
            self._titles(history[-HISTORY:].tolist()), self._titles(targets[:TARGETS]), lists,
        )  # fmt: skip

    def _list(self, run: ReportedRun, number: int, targets: set[int]) -> RankedList:
        items = self.lists[run.label]["items"][number].to_list()[:LISTED] if run.label in self.lists else []
        listed = [ListedItem(title, item in targets) for title, item in zip(self._titles(items), items, strict=True)]
        return RankedList(run.label, run.color, self._rank(run.label, number), listed)

    def _rank(self, label: str, number: int) -> str:
        rows = self.ranks[label][(number,)]
        best, candidates = float(rows["rank"].to_numpy().min()), int(rows["n_candidates"][0])
        return f"{best:,g} of {candidates:,}" if np.isfinite(best) else f"not among {candidates:,}: seen before"

    def _titles(self, items: Sequence[int]) -> list[str]:
        return [str(self.titles[item]) for item in items]
