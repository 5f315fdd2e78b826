"""The section of examples: real histories, what came next, and what each model would have shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.reporting.blocks import Block, Example, Examples, Missing, Recommended, Section, Shown, Text
from deshi.reporting.context import Context, Data, evaluate_again, lists_of
from deshi.reporting.models import Model, reference_names, reference_ranks
from deshi.types import ITEM, TITLE, USER

Ints = NDArray[np.int64]

HISTORY, LISTED, TRUTHS = 10, 5, 5
"""How much an example shows: the latest items of a history, the first items of a list, the true next items."""

LEAD = (
    "What a figure can't say: whether the recommendations make sense. The latest items of a user's history, the item "
    "that really came next, and each model's first items. An item without a title is shown by its id."
)


def section(context: Context) -> Section:
    """Cases drawn by a rule that is stated, or the command that makes them possible."""
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
        ranks |= {name: reference_ranks(context.models, name, context.part) for name in _references(context)}
        shower = _Shower(context, context.data, lists, ranks)
        blocks.append(Examples([shower.example(case, bool(hits[case])) for case in drawn.tolist()]))
    blocks += evaluate_again("lists", [m for m in context.models if m.label not in lists], context.part)
    return Section("examples", "Examples", LEAD, blocks)


def draw(hits: NDArray[np.bool_], count: int, seed: int) -> Ints:
    """Case numbers, ascending: half of them hits, half misses, each drawn uniformly without replacement.

    Where one kind has too few cases, the other fills its places.
    """
    generator = np.random.default_rng(seed)
    kinds = [generator.permutation(np.flatnonzero(hits == kind)) for kind in (True, False)]
    wanted = min((count + 1) // 2, len(kinds[0]))
    misses = min(count - wanted, len(kinds[1]))
    wanted = min(count - misses, len(kinds[0]))
    return np.sort(np.concatenate([kinds[0][:wanted], kinds[1][:misses]]))


def _hits(ranks: Sequence[pl.DataFrame], k: int) -> NDArray[np.bool_]:
    """``(C,)`` whether any model has a target of the case among its first ``k``."""
    best = [frame.group_by("case").agg(pl.col("rank").min()).sort("case")["rank"].to_numpy() for frame in ranks]
    return np.array(best).min(axis=0) <= k


def _rule(context: Context, hits: NDArray[np.bool_], drawn: Ints) -> str:
    who = "at least one model has" if len(context.models) > 1 else "the model has"
    return (
        f"Drawn at random with seed {context.examples_seed}, not chosen: {int(hits[drawn].sum())} cases where {who} "
        f"the true next item among its first {context.k}, and {int((~hits[drawn]).sum())} where none has. Of all "
        f"{len(hits):,} cases {hits.mean():.1%} are hits in this sense, so this page shows more hits than there are. "
        f"Other cases: examples_seed={context.examples_seed + 1}."
    )


def _references(context: Context) -> list[str]:
    part = f"{context.part}/n_cases"
    return [
        n
        for n in reference_names(context.models)
        if any(part in m.evaluation.references.get(n, {}) for m in context.models)
    ]


class _Shower:
    """Turns case numbers into what the page shows of them."""

    def __init__(
        self, context: Context, data: Data, lists: dict[str, pl.DataFrame], ranks: dict[str, pl.DataFrame]
    ) -> None:
        self.context, self.data, self.lists = context, data, lists
        self.ranks = {label: frame.partition_by("case", as_dict=True) for label, frame in ranks.items()}
        table = data.bundle.item_table()
        self.titles = table.select(pl.coalesce(pl.when(pl.col(TITLE) != "").then(pl.col(TITLE)), ITEM)).to_series()

    def example(self, case: int, hit: bool) -> Example:
        cases, bundle = self.data.cases, self.data.bundle
        history = bundle.items[cases.starts[case] : cases.ends[case]]
        rows = cases.target_rows[cases.target_offsets[case] : cases.target_offsets[case + 1]]
        targets = bundle.items[rows].tolist()
        answers = [self._model(model, case, set(targets)) for model in self.context.models]
        references = [name for name in self.ranks if self.context.color(name) is None]
        answers += [Recommended(name, None, self._rank(name, case), ()) for name in references]
        return Example(
            str(bundle.users[USER][int(cases.users[case])]), hit, max(len(history) - HISTORY, 0),
            self._named(history[-HISTORY:].tolist()), self._named(targets[:TRUTHS]), answers,
        )  # fmt: skip

    def _model(self, model: Model, case: int, targets: set[int]) -> Recommended:
        items = self.lists[model.label]["items"][case].to_list()[:LISTED] if model.label in self.lists else []
        shown = [Shown(title, item in targets) for title, item in zip(self._named(items), items, strict=True)]
        return Recommended(model.label, model.color, self._rank(model.label, case), shown)

    def _rank(self, label: str, case: int) -> str:
        found = self.ranks[label][(case,)]
        best, candidates = float(found["rank"].to_numpy().min()), int(found["n_candidates"][0])
        return f"{best:,g} of {candidates:,}"

    def _named(self, items: Sequence[int]) -> list[str]:
        return [str(self.titles[item]) for item in items]
