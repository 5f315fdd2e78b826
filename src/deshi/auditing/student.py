"""Black-box probes of a student: does it see the future, read padding, answer twice alike, know every item?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Array
from deshi.auditing.finding import Finding, count, finding, location
from deshi.auditing.probe import AT, ndcg_of
from deshi.data.bundle import Bundle
from deshi.data.sequences import history_batches
from deshi.data.splits import Examples
from deshi.metrics.ranks import exact_ranks
from deshi.models.base import SequentialRecommender
from deshi.types import ITEM, PAD, USER

HISTORIES = 128
LONGEST = 50
TOLERANCE = 1e-3
"""Two states are the same if they differ by less than this share of the states' own spread."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Real histories that the probes ask about.

    Attributes:
        student: in evaluation mode.
        bundle: the data.
        users: ``(B,)`` user indices.
        items: ``(B, L)`` the latest items of each history, padded on the right.
        lengths: ``(B,)``.
        targets: ``(B,)`` what really came next.
    """

    student: SequentialRecommender
    bundle: Bundle
    users: Array
    items: Tensor
    lengths: Tensor
    targets: Tensor

    @classmethod
    def of(cls, student: SequentialRecommender, bundle: Bundle, examples: Examples) -> Asked:
        """Evenly spaced examples, long histories first to have a future to change."""
        chosen = np.unique(np.linspace(0, len(examples) - 1, min(HISTORIES, len(examples))).astype(np.int64))
        longest = min(LONGEST, student.max_length)
        ends = examples.ends[chosen]
        ((order, batch),) = history_batches(
            bundle.items, examples.users[chosen], examples.starts[chosen], ends, longest, batch_size=len(chosen)
        )
        first = examples.target_rows[examples.target_offsets[:-1][chosen]][order]
        targets = torch.from_numpy(bundle.items[first].astype(np.int64))
        return cls(student.eval(), bundle, examples.users[chosen][order], batch.items, batch.lengths, targets)

    def states(self, items: Tensor) -> Tensor:
        """``(B, L, D)`` of other items in the same places."""
        with torch.no_grad():
            states: Tensor = self.student(items, self.lengths)
        return states

    def last(self, items: Tensor, lengths: Tensor) -> Tensor:
        """``(B, D)``, one row at a time if there is only one."""
        with torch.no_grad():
            return self.student.last_hidden(items, lengths)

    def scores(self, states: Tensor) -> Tensor:
        """``(B, n_items)`` of last states."""
        with torch.no_grad():
            return states.float() @ self.student.item_table().float().T

    def ndcg(self, states: Tensor, targets: Tensor) -> float:
        """Mean NDCG of the states' rankings, seen items left in."""
        return float(ndcg_of(exact_ranks(self.scores(states), targets).numpy()).mean())

    def where(self, rows: Sequence[int], position: int | None = None) -> list[str]:
        """Examples by user."""
        return [location(user=self.bundle.users[USER][int(self.users[row])], position=position) for row in rows]


def audit_student(student: SequentialRecommender, bundle: Bundle, examples: Examples) -> list[Finding]:
    """Ask a student about real histories and about augmented ones.

    Args:
        student: any; it is switched to evaluation mode.
        bundle: the data that it was made for.
        examples: of one part of a split.
    """
    if not len(examples):
        return []
    asked = Asked.of(student, bundle, examples)
    broken = _not_a_number(asked)
    if broken:
        return broken
    checks = (_future, _padding, _neighbours, _twice, _constant, _items_like_padding)
    return [found for check in checks for found in check(asked)]


def _differ(first: Tensor, second: Tensor) -> Tensor:
    """``(B,)`` bool: which rows of ``(B, ...)`` differ by more than rounding."""
    spread = first.float().std().clamp(min=1e-12)
    return ((first - second).abs().flatten(1).amax(1) / spread) > TOLERANCE


def _not_a_number(asked: Asked) -> list[Finding]:
    scores = asked.scores(asked.last(asked.items, asked.lengths))
    wrong = scores.isnan()
    if not wrong.any():
        return []
    rows = wrong.any(1).nonzero().squeeze(1).tolist()
    items = wrong.all(0).nonzero().squeeze(1).tolist()
    own = scores.gather(1, asked.targets[:, None])
    naive = ndcg_of(1.0 + (scores > own).sum(1).double().numpy())
    what = (
        f"{count(int(wrong.sum()), wrong.numel(), 'scores')} are NaN, in {count(len(rows), len(wrong), 'questions')}."
    )
    where = [location(item=asked.bundle.vocabulary[ITEM][item], index=item) for item in items[:2]] + asked.where(rows)
    effect = f"A NaN is never smaller than anything: counting higher scores gives NDCG@{AT} {naive.mean():.4f} here, "
    effect += "where nothing can be ranked."
    fix = "Find where the training diverged (train.gradient_clip, a lower learning rate) or the scorer divides by 0."
    return [finding("nan-scores", what, where, effect, fix)]


def _future(asked: Asked) -> list[Finding]:
    """Change everything from a position on: earlier states must stay as they are."""
    length = asked.items.shape[1]
    if length < 2:
        return []
    before = asked.states(asked.items)
    moved: dict[int, int] = {}
    for position in sorted({1, length // 2, length - 1}):
        changed = asked.items.clone()
        later = changed[:, position:]
        changed[:, position:] = torch.where(later == PAD, PAD, (later + 1 + position) % asked.bundle.n_items)
        long = asked.lengths > position
        differs = _differ(before[:, :position], asked.states(changed)[:, :position]) & long
        for row in differs.nonzero().squeeze(1).tolist():
            moved.setdefault(row, position)
    if not moved:
        return []
    what = f"The states of {count(len(moved), len(asked.users), 'histories')} change when only later items change."
    where = [text for row, position in moved.items() for text in asked.where([row], position - 1)]
    fix = "Mask the attention (is_causal=True) or pad convolutions on the left only; bidirectional layers cannot be "
    fix += "trained at every position."
    return [finding("sees-the-future", what, where, _worth_of_the_future(asked), fix)]


def _worth_of_the_future(asked: Asked) -> str:
    """NDCG in the middle of histories: with what comes later in the input, and cut off before it."""
    long = asked.lengths >= 2
    items, middle = asked.items[long], asked.lengths[long] // 2
    with torch.no_grad():
        seeing = asked.student(items, asked.lengths[long])[torch.arange(len(items)), middle - 1]
        cut = torch.where(torch.arange(items.shape[1]) < middle[:, None], items, PAD)
        blind = asked.student.last_hidden(cut, middle)
    targets = items[torch.arange(len(items)), middle]
    return (
        f"In the middle of {len(items)} histories it predicts the next item with NDCG@{AT} "
        f"{asked.ndcg(seeing, targets):.4f} while that item stands in its input, and {asked.ndcg(blind, targets):.4f} "
        "when the history ends there, as it does in use."
    )


def _padding(asked: Asked) -> list[Finding]:
    """The same history in a wider batch must get the same answer."""
    plain = asked.last(asked.items, asked.lengths)
    wider = torch.nn.functional.pad(asked.items, (0, 7), value=PAD)
    padded = asked.last(wider, asked.lengths)
    rows = _differ(plain, padded).nonzero().squeeze(1).tolist()
    if not rows:
        return []
    figures = [asked.ndcg(states, asked.targets) for states in (plain, padded)]
    what = f"{count(len(rows), len(asked.users), 'histories')} get another answer with seven more columns of padding."
    effect = f"NDCG@{AT} on them is {figures[0]:.4f} without and {figures[1]:.4f} with the padding."
    fix = "Mask padded positions in attention, pooling and recurrence; read the state at lengths - 1, not the last one."
    return [finding("reads-padding", what, asked.where(rows), effect, fix)]


def _neighbours(asked: Asked) -> list[Finding]:
    """The same row, alone in its batch, must get the same answer."""
    few = range(min(16, len(asked.users)))
    together = asked.last(asked.items, asked.lengths)[: len(few)]
    alone = torch.cat([asked.last(asked.items[row : row + 1], asked.lengths[row : row + 1]) for row in few])
    rows = _differ(together, alone).nonzero().squeeze(1).tolist()
    if not rows or _differ(asked.last(asked.items, asked.lengths)[: len(few)], together).any():
        return []
    targets = asked.targets[: len(few)]
    what = f"{count(len(rows), len(few), 'histories')} get another answer when they are alone in their batch."
    effect = (
        f"NDCG@{AT} on them is {asked.ndcg(together, targets):.4f} together, {asked.ndcg(alone, targets):.4f} alone."
    )
    fix = "Leave out what mixes rows: batch normalisation in training mode, statistics over a batch."
    return [finding("depends-on-batch", what, asked.where(rows), effect, fix)]


def _twice(asked: Asked) -> list[Finding]:
    first, second = (asked.last(asked.items, asked.lengths) for _ in range(2))
    rows = _differ(first, second).nonzero().squeeze(1).tolist()
    if not rows:
        return []
    what = f"{count(len(rows), len(asked.users), 'histories')} get another answer when they are asked again."
    figures = [asked.ndcg(states, asked.targets) for states in (first, second)]
    effect = f"NDCG@{AT} on them is {figures[0]:.4f} the first and {figures[1]:.4f} the second time."
    fix = "Switch dropout and sampling off in evaluation mode (module.eval())."
    return [finding("not-deterministic", what, asked.where(rows), effect, fix)]


def _constant(asked: Asked) -> list[Finding]:
    scores = asked.scores(asked.last(asked.items, asked.lengths))
    span = scores.amax(1) - scores.amin(1)
    rows = (span <= 1e-6 * scores.abs().amax(1)).nonzero().squeeze(1).tolist()
    if not rows:
        return []
    own = scores.gather(1, asked.targets[:, None])
    lucky = ndcg_of(1.0 + (scores > own).sum(1).double().numpy())
    fair = ndcg_of(exact_ranks(scores, asked.targets).numpy())
    what = f"{count(len(rows), len(asked.users), 'histories')} get one score for all {scores.shape[1]:,} items."
    effect = f"NDCG@{AT} is {fair.mean():.4f} by mean rank, and {lucky.mean():.4f} where ties count for the target."
    fix = "Look for a head of zeros, weights that were never loaded, or a loss that was never applied."
    return [finding("constant-scores", what, asked.where(rows), effect, fix)]


def _items_like_padding(asked: Asked) -> list[Finding]:
    """Items whose vector is zero, as padding's is: in the input or in the scores."""
    everything = torch.arange(asked.bundle.n_items)
    with torch.no_grad():
        read = (asked.student.items(everything) == 0).all(1)
        scored = (asked.student.item_table() == 0).all(1)
    wrong = read | scored
    if not wrong.any() or wrong.all():
        return []
    items = wrong.nonzero().squeeze(1).numpy()
    names, counts = asked.bundle.vocabulary[ITEM], np.bincount(asked.bundle.items, minlength=len(everything))
    what = f"{count(len(items), len(everything), 'items')} have the zero vector of padding, "
    what += f"{int(read.sum())} of them as input, {int(scored.sum())} as a candidate."
    effect = f"{count(int(counts[items].sum()), int(counts.sum()), 'events')} are read as nothing, and those items are "
    effect += (
        f"ranked by chance: {count(int(np.isin(asked.targets.numpy(), items).sum()), len(asked.users), 'targets')}."
    )
    fix = "Give padding a row of its own in the embedding (deshi: row 0, item i in row i + 1)."
    where = [location(item=names[item], index=item) for item in items.tolist()]
    return [finding("item-collides-with-padding", what, where, effect, fix)]
