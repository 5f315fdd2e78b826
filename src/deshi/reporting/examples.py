"""The section of examples: real histories, what came next, and what each model would have shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import Ints
from deshi.reporting.blocks import Block, Example, Examples, Missing, Recommended, Section, Shown, Text
from deshi.reporting.context import Context, Data, evaluate_again, lists_of
from deshi.reporting.models import Model, baseline_names, baseline_ranks
from deshi.types import ITEM, TITLE, USER

HISTORY, LISTED, TRUTHS = 10, 5, 5
"""How much an example shows: the latest items of a history, the first items of a list, the true next items."""

LEAD = (
    "What a figure can't say: whether the recommendations make sense. The latest items of a user's history, the item "
    "that really came next, and each model's first items. An item without a title is shown by its id."
)


def section(context: Context) -> Section:
    """Examples drawn by a rule that is stated, or the command that makes them possible."""
    blocks: list[Block] = []
    lists = {m.label: frame for m in context.models if (frame := lists_of(m, context.part)) is not None}
    if context.data is None:
        blocks.append(Missing(context.data_problem))
    elif not context.examples:
        blocks.append(Text("None were asked for (examples=0)."))
    else:
        ranks = {m.label: m.evaluation.ranks(context.part) for m in context.models}
        hits = _hits(list(ranks.values()), context.k)
        drawn = draw(hits, context.examples, context.examples_seed)
        blocks.append(Text(_rule(context, hits, drawn), "note"))
        ranks |= {name: baseline_ranks(context.models, name, context.part) for name in _baselines(context)}
        shower = _Shower(context, context.data, lists, ranks)
        blocks.append(Examples([shower.example(example, bool(hits[example])) for example in drawn.tolist()]))
    blocks += evaluate_again("lists", [m for m in context.models if m.label not in lists], context.part)
    return Section("examples", "Examples", LEAD, blocks)


def draw(hits: NDArray[np.bool_], count: int, seed: int) -> Ints:
    """Example numbers, ascending: half of them hits, half misses, each drawn uniformly without replacement.

    Where one kind has too few examples, the other fills its places.
    """
    generator = np.random.default_rng(seed)
    kinds = [generator.permutation(np.flatnonzero(hits == kind)) for kind in (True, False)]
    wanted = min((count + 1) // 2, len(kinds[0]))
    misses = min(count - wanted, len(kinds[1]))
    wanted = min(count - misses, len(kinds[0]))
    return np.sort(np.concatenate([kinds[0][:wanted], kinds[1][:misses]]))


def _hits(ranks: Sequence[pl.DataFrame], k: int) -> NDArray[np.bool_]:
    """``(C,)`` whether any model has a target of the example among its first ``k``."""
    best = [frame.group_by("example").agg(pl.col("rank").min()).sort("example")["rank"].to_numpy() for frame in ranks]
    return np.array(best).min(axis=0) <= k


def _rule(context: Context, hits: NDArray[np.bool_], drawn: Ints) -> str:
    who = "at least one model has" if len(context.models) > 1 else "the model has"
    return (
        f"Drawn at random with seed {context.examples_seed}, not chosen: {int(hits[drawn].sum())} examples where {who} "
        f"the true next item among its first {context.k}, and {int((~hits[drawn]).sum())} where none has. Of all "
        f"{len(hits):,} examples {hits.mean():.1%} are hits in this sense, so this page shows more hits than there "
        "are. "
        f"Other examples: examples_seed={context.examples_seed + 1}."
    )


def _baselines(context: Context) -> list[str]:
    part = f"{context.part}/n_examples"
    return [
        n
        for n in baseline_names(context.models)
        if any(part in m.evaluation.baselines.get(n, {}) for m in context.models)
    ]


class _Shower:
    """Turns example numbers into what the page shows of them."""

    def __init__(
        self, context: Context, data: Data, lists: dict[str, pl.DataFrame], ranks: dict[str, pl.DataFrame]
    ) -> None:
        self.context, self.data, self.lists = context, data, lists
        self.ranks = {label: frame.partition_by("example", as_dict=True) for label, frame in ranks.items()}
        table = data.bundle.item_table()
        self.titles = table.select(pl.coalesce(pl.when(pl.col(TITLE) != "").then(pl.col(TITLE)), ITEM)).to_series()

    def example(self, example: int, hit: bool) -> Example:
        examples, bundle = self.data.examples, self.data.bundle
        history = bundle.items[examples.starts[example] : examples.ends[example]]
        rows = examples.target_rows[examples.target_offsets[example] : examples.target_offsets[example + 1]]
        targets = bundle.items[rows].tolist()
        answers = [self._model(model, example, set(targets)) for model in self.context.models]
        baselines = [name for name in self.ranks if self.context.color(name) is None]
        answers += [Recommended(name, None, self._rank(name, example), ()) for name in baselines]
        return Example(
            str(bundle.users[USER][int(examples.users[example])]), hit, max(len(history) - HISTORY, 0),
            self._named(history[-HISTORY:].tolist()), self._named(targets[:TRUTHS]), answers,
        )  # fmt: skip

    def _model(self, model: Model, example: int, targets: set[int]) -> Recommended:
        items = self.lists[model.label]["items"][example].to_list()[:LISTED] if model.label in self.lists else []
        shown = [Shown(title, item in targets) for title, item in zip(self._named(items), items, strict=True)]
        return Recommended(model.label, model.color, self._rank(model.label, example), shown)

    def _rank(self, label: str, example: int) -> str:
        found = self.ranks[label][(example,)]
        best, candidates = float(found["rank"].to_numpy().min()), int(found["n_candidates"][0])
        return f"{best:,g} of {candidates:,}"

    def _named(self, items: Sequence[int]) -> list[str]:
        return [str(self.titles[item]) for item in items]
