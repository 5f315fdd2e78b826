"""Checks of a model's item table against the vocabulary, by its recorded figure and by usual renamings of items."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Floats
from deshi.auditing._finding import Finding, finding, location
from deshi.auditing._probe import AT, ndcg_per_example, sample_examples
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples
from deshi.models.scorers import Scorer
from deshi.types import ITEM, PAD, Batch

SEARCHED = 500
"""Examples that an explanation is tried on."""


class Renamed(Scorer):
    """A scorer of renamed items: item ``i`` is read as ``read[i]`` and scored as ``write[i]``."""

    def __init__(self, scorer: Scorer, read: Tensor, write: Tensor) -> None:
        self.scorer, self.read, self.write = scorer, read, write
        self.n_items = scorer.n_items

    def scores(self, batch: Batch) -> Tensor:
        """``(B, n_items)`` of the renamed items."""
        items = torch.where(batch.items == PAD, PAD, self.read[batch.items.clamp(min=0)])
        renamed = Batch(batch.users, items, batch.lengths, batch.targets, batch.rows)
        return self.scorer.scores(renamed)[:, self.write]


def tolerance(recorded: float, values: Floats) -> float:
    """By how much a figure may differ from the recorded one by rounding (bf16 training, other hardware)."""
    error = float(values.std()) / max(1, len(values)) ** 0.5
    return max(0.02 * recorded, 1e-4, 0.25 * error)


def reproduced(recorded: float, values: Floats) -> bool:
    """Whether the mean of the examples' values is the recorded figure."""
    return abs(float(values.mean()) - recorded) <= tolerance(recorded, values)


def audit_table(
    scorer: Scorer,
    bundle: Bundle,
    examples: Examples,
    recorded: float | None = None,
    filter_seen: bool = True,
    values: Floats | None = None,
) -> list[Finding]:
    """Compare a scorer's validation NDCG with the recorded one, and look for a renaming of items that explains it.

    Without a recorded figure, only a shift by one that makes the scorer three times better is reported.

    Args:
        scorer: as it stands.
        bundle: whose vocabulary it should speak.
        examples: the validation examples.
        recorded: NDCG@10 on them, as the training wrote it.
        filter_seen: of the evaluation.
        values: NDCG@10 of every example, if it has been computed already.
    """
    if values is None:
        values = ndcg_per_example(scorer, bundle, examples, filter_seen)
    sample = sample_examples(examples, SEARCHED)
    unchanged = ndcg_per_example(scorer, bundle, sample, filter_seen)
    lost = recorded is not None and not reproduced(recorded, values)
    best: tuple[str, str, Floats, Tensor] | None = None
    for name, text, read, write in _renamings(bundle, everything=lost):
        renamed = ndcg_per_example(Renamed(scorer, read, write), bundle, sample, filter_seen)
        if _explains(unchanged, renamed, recorded if lost else None) and (
            best is None or renamed.mean() > best[2].mean()
        ):
            best = (name, text, renamed, write)
    if best is not None:
        return [_named(bundle, best, unchanged, recorded)]
    return [_unexplained(bundle, values, recorded)] if lost and recorded is not None else []


def _explains(unchanged: Floats, renamed: Floats, recorded: float | None) -> bool:
    """Whether a renaming makes the scorer better beyond doubt, by six standard errors.

    It must bring the recorded figure back; where there is none that was lost, it must triple the figure.
    """
    difference = renamed - unchanged
    error = float(difference.std()) / max(1, len(difference)) ** 0.5
    enough = (
        recorded - tolerance(recorded, renamed) - float(renamed.std()) / max(1, len(renamed)) ** 0.5
        if recorded
        else 0.0
    )
    worth = renamed.mean() > enough if recorded else renamed.mean() > 3 * unchanged.mean()
    return bool(len(unchanged) >= 20 and worth and difference.mean() > 6 * error)


def _renamings(bundle: Bundle, everything: bool) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """Likely mistakes: shifts by one, and the other orders in which programs number items."""
    same = torch.arange(bundle.n_items)
    orders = {f"shifted by {shift:+d}": (same + shift) % bundle.n_items for shift in (-1, 1)}
    named = dict.fromkeys(orders, "item-table-shifted")
    if everything:
        usual = _orders(bundle)
        orders |= usual
        named |= dict.fromkeys(usual, "item-table-permuted")
    for text, order in orders.items():
        yield named[text], f"{text}, in input and scores", order, order
        yield named[text], f"{text}, in the scores only", same, order
        yield named[text], f"{text}, in the input only", order, same


def _orders(bundle: Bundle) -> dict[str, Tensor]:
    """For every order, the row that each item index would have in it."""
    ids = bundle.vocabulary[ITEM].to_list()
    items = np.asarray(bundle.items)
    counts = np.bincount(items, minlength=bundle.n_items)
    first = np.full(bundle.n_items, len(items))
    np.minimum.at(first, items, np.arange(len(items)))
    keys = {
        "in the order of the ids as text": np.argsort(np.array(ids), kind="stable"),
        "in the order of popularity": np.argsort(-counts, kind="stable"),
        "in the order of first appearance": np.argsort(first, kind="stable"),
        "in reversed order": np.arange(bundle.n_items)[::-1].copy(),
    }
    if all(text.isdecimal() for text in ids):
        keys["in the order of the ids as numbers"] = np.argsort([int(text) for text in ids], kind="stable")
    rows_by_order = {}
    for name, order in keys.items():
        rows = np.empty(bundle.n_items, dtype=np.int64)
        rows[order] = np.arange(bundle.n_items)
        rows_by_order[name] = torch.from_numpy(rows)
    return rows_by_order


def _chance(n_items: int) -> float:
    """The NDCG of a random order."""
    return float((1 / np.log2(1 + np.arange(1, AT + 1))).sum()) / n_items


def _examples(bundle: Bundle, rows: Tensor) -> list[str]:
    moved = (rows != torch.arange(len(rows))).nonzero().squeeze(1).tolist()
    names = bundle.vocabulary[ITEM]
    return [location(item=names[item], index=item, stands_in_row=int(rows[item])) for item in moved[:5]]


def _named(bundle: Bundle, best: tuple[str, str, Floats, Tensor], unchanged: Floats, recorded: float | None) -> Finding:
    name, text, renamed, rows = best
    message = f"The model's {bundle.n_items:,} item rows are {text}, against the vocabulary of {bundle.name}."
    effect = (
        f"Validation NDCG@{AT} is {unchanged.mean():.4f} as it stands and {renamed.mean():.4f} with the rows put back"
    )
    effect += (
        f" ({len(renamed):,} examples; recorded: {recorded:.4f})."
        if recorded is not None
        else f" ({len(renamed):,} examples)."
    )
    fix = "Save and load the table by item id, not by row; the row of padding is not an item's."
    return finding(name, message, _examples(bundle, rows), effect, fix)


def _unexplained(bundle: Bundle, values: Floats, recorded: float) -> Finding:
    """By chance where more was recorded: the rows are in some other order. Else: other weights, data or protocol."""
    error = float(values.std()) / len(values) ** 0.5
    chance = min(1.0, _chance(bundle.n_items))
    effect = f"Validation NDCG@{AT} is {values.mean():.4f}, recorded {recorded:.4f} ({len(values):,} examples)."
    where = [location(file="model.safetensors"), location(file="metrics.json")]
    if values.mean() < chance + 2 * error and recorded > chance + 6 * error:
        message = (
            f"The run's weights rank {len(values):,} validation targets by chance ({chance:.4f}), though more was "
            f"recorded: the {bundle.n_items:,} item rows are in another order than the vocabulary, or not trained."
        )
        fix = "Save and load the table by item id, not by row. If the weights are another run's, put back this run's."
        return finding("item-table-permuted", message, where, effect, fix)
    message = f"The run's weights do not give the recorded validation figure on its {len(values):,} examples."
    fix = (
        "Weights, data or evaluation settings are others than those that were recorded: train again, or put them back."
    )
    return finding("metrics-not-reproduced", message, where, effect, fix)
