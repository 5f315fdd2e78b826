"""Black-box probes of a student: later items, padding, other rows of the batch, repetition, constant scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deshi.arrays import Array
from deshi.auditing._finding import Finding, count, finding, location
from deshi.auditing._probe import AT, ndcg_of
from deshi.data.bundle import Bundle
from deshi.data.sequences import history_batches
from deshi.data.splits import Examples
from deshi.metrics import exact_ranks
from deshi.models.base import SequentialRecommender
from deshi.types import ITEM, PAD, USER

HISTORIES = 128
LONGEST = 50
TOLERANCE = 1e-3
"""Two states are the same if they differ by less than this share of the states' own spread."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Real histories that a student is probed with.

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
    def of(cls, student: SequentialRecommender, bundle: Bundle, examples: Examples) -> Probe:
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

    def answers(self, items: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """``(B, D)`` the last states after these histories, or after others."""
        with torch.no_grad():
            items, lengths = self.items if items is None else items, self.lengths if lengths is None else lengths
            return self.student.last_hidden(items, lengths)

    def scores(self, states: Tensor) -> Tensor:
        """``(B, n_items)`` of last states."""
        with torch.no_grad():
            return states.float() @ self.student.item_table().float().T

    def ndcg(self, states: Tensor, targets: Tensor) -> float:
        """Mean NDCG of the states' rankings, seen items left in."""
        return float(ndcg_of(exact_ranks(self.scores(states), targets).numpy()).mean())

    def locations(self, rows: Sequence[int], position: int | None = None) -> list[str]:
        """Users, as a finding names them."""
        return [location(user=self.bundle.users[USER][int(self.users[row])], position=position) for row in rows]


def audit_student(student: SequentialRecommender, bundle: Bundle, examples: Examples) -> list[Finding]:
    """Probe a student with real histories and with changed ones.

    Args:
        student: any; it is switched to evaluation mode.
        bundle: the data that it was made for.
        examples: of one part of a split.
    """
    if not len(examples):
        return []
    probe = Probe.of(student, bundle, examples)
    broken = _not_a_number(probe)
    if broken:
        return broken
    checks = (_future, _padding, _neighbours, _twice, _constant, _items_like_padding)
    return [problem for check in checks for problem in check(probe)]


def _differ(first: Tensor, second: Tensor) -> Tensor:
    """``(B,)`` bool: which rows of ``(B, ...)`` differ by more than rounding."""
    spread = first.float().std().clamp(min=1e-12)
    return ((first - second).abs().flatten(1).amax(1) / spread) > TOLERANCE


def _not_a_number(probe: Probe) -> list[Finding]:
    scores = probe.scores(probe.answers())
    wrong = scores.isnan()
    if not wrong.any():
        return []
    rows = wrong.any(1).nonzero().squeeze(1).tolist()
    items = wrong.all(0).nonzero().squeeze(1).tolist()
    target_scores = scores.gather(1, probe.targets[:, None])
    naive = ndcg_of(1.0 + (scores > target_scores).sum(1).double().numpy())
    message = (
        f"{count(int(wrong.sum()), wrong.numel(), 'scores')} are NaN, in {count(len(rows), len(wrong), 'histories')}."
    )
    where = [location(item=probe.bundle.vocabulary[ITEM][item], index=item) for item in items[:2]] + probe.locations(
        rows
    )
    effect = f"A NaN is never smaller than anything: counting higher scores gives NDCG@{AT} {naive.mean():.4f} here, "
    effect += "where nothing can be ranked."
    fix = "Find where the training diverged (train.gradient_clip, a lower learning rate) or the scorer divides by 0."
    return [finding("nan-scores", message, where, effect, fix)]


def _future(probe: Probe) -> list[Finding]:
    """Change everything from a position on: earlier states must stay as they are."""
    length = probe.items.shape[1]
    if length < 2:
        return []
    before = probe.states(probe.items)
    moved: dict[int, int] = {}
    for position in sorted({1, length // 2, length - 1}):
        changed = probe.items.clone()
        later = changed[:, position:]
        changed[:, position:] = torch.where(later == PAD, PAD, (later + 1 + position) % probe.bundle.n_items)
        long = probe.lengths > position
        differs = _differ(before[:, :position], probe.states(changed)[:, :position]) & long
        for row in differs.nonzero().squeeze(1).tolist():
            moved.setdefault(row, position)
    if not moved:
        return []
    message = f"The states of {count(len(moved), len(probe.users), 'histories')} change when only later items change."
    where = [text for row, position in moved.items() for text in probe.locations([row], position - 1)]
    fix = "Mask the attention (is_causal=True) or pad convolutions on the left only; bidirectional layers cannot be "
    fix += "trained at every position."
    return [finding("sees-the-future", message, where, _effect_of_the_future(probe), fix)]


def _effect_of_the_future(probe: Probe) -> str:
    """NDCG in the middle of histories: with what comes later in the input, and cut off before it."""
    long = probe.lengths >= 2
    items, middle = probe.items[long], probe.lengths[long] // 2
    with torch.no_grad():
        seeing = probe.student(items, probe.lengths[long])[torch.arange(len(items)), middle - 1]
        cut = torch.where(torch.arange(items.shape[1]) < middle[:, None], items, PAD)
        blind = probe.student.last_hidden(cut, middle)
    targets = items[torch.arange(len(items)), middle]
    return (
        f"In the middle of {len(items)} histories it predicts the next item with NDCG@{AT} "
        f"{probe.ndcg(seeing, targets):.4f} while that item stands in its input, and {probe.ndcg(blind, targets):.4f} "
        "when the history ends there, as it does in use."
    )


def _padding(probe: Probe) -> list[Finding]:
    """The same history in a wider batch must get the same answer."""
    wider = torch.nn.functional.pad(probe.items, (0, 7), value=PAD)
    answers = {"without": probe.answers(), "with the padding": probe.answers(wider)}
    fix = "Mask padded positions in attention, pooling and recurrence; read the state at lengths - 1, not the last one."
    return _differing_answers(probe, "reads-padding", "with seven more columns of padding", answers, fix)


def _neighbours(probe: Probe) -> list[Finding]:
    """The same row, alone in its batch, must get the same answer."""
    few = range(min(16, len(probe.users)))
    together, again = (probe.answers()[: len(few)] for _ in range(2))
    if _differ(together, again).any():  # then it is chance, not the batch
        return []
    items, lengths = probe.items, probe.lengths
    alone = torch.cat([probe.answers(items[row : row + 1], lengths[row : row + 1]) for row in few])
    fix = "Leave out what mixes rows: batch normalisation in training mode, statistics over a batch."
    answers = {"together": together, "alone": alone}
    return _differing_answers(probe, "depends-on-batch", "when they are alone in their batch", answers, fix)


def _twice(probe: Probe) -> list[Finding]:
    answers = {"the first": probe.answers(), "the second time": probe.answers()}
    fix = "Switch dropout and sampling off in evaluation mode (module.eval())."
    return _differing_answers(probe, "not-deterministic", "when they are asked again", answers, fix)


def _differing_answers(probe: Probe, name: str, condition: str, answers: dict[str, Tensor], fix: str) -> list[Finding]:
    """A finding where two answers ``(B, D)`` to the same histories differ, with the figures of both."""
    first, second = answers.values()
    rows = _differ(first, second).nonzero().squeeze(1).tolist()
    if not rows:
        return []
    targets = probe.targets[: len(first)]
    figures = [f"{probe.ndcg(states, targets):.4f} {when}" for when, states in answers.items()]
    message = f"{count(len(rows), len(first), 'histories')} get another answer {condition}."
    effect = f"NDCG@{AT} on them is {' and '.join(figures)}."
    return [finding(name, message, probe.locations(rows), effect, fix)]


def _constant(probe: Probe) -> list[Finding]:
    scores = probe.scores(probe.answers())
    span = scores.amax(1) - scores.amin(1)
    rows = (span <= 1e-6 * scores.abs().amax(1)).nonzero().squeeze(1).tolist()
    if not rows:
        return []
    target_scores = scores.gather(1, probe.targets[:, None])
    lucky = ndcg_of(1.0 + (scores > target_scores).sum(1).double().numpy())
    fair = ndcg_of(exact_ranks(scores, probe.targets).numpy())
    message = f"{count(len(rows), len(probe.users), 'histories')} get one score for all {scores.shape[1]:,} items."
    effect = f"NDCG@{AT} is {fair.mean():.4f} by mean rank, and {lucky.mean():.4f} where ties count for the target."
    fix = "Look for a head of zeros, weights that were never loaded, or a loss that was never applied."
    return [finding("constant-scores", message, probe.locations(rows), effect, fix)]


def _items_like_padding(probe: Probe) -> list[Finding]:
    """Items whose vector is zero, as padding's is: in the input or in the scores."""
    everything = torch.arange(probe.bundle.n_items)
    with torch.no_grad():
        read = (probe.student.items(everything) == 0).all(1)
        scored = (probe.student.item_table() == 0).all(1)
    wrong = read | scored
    if not wrong.any() or wrong.all():
        return []
    items = wrong.nonzero().squeeze(1).numpy()
    names, counts = probe.bundle.vocabulary[ITEM], np.bincount(probe.bundle.items, minlength=len(everything))
    message = f"{count(len(items), len(everything), 'items')} have the zero vector of padding, "
    message += f"{int(read.sum())} of them as input, {int(scored.sum())} as a candidate."
    effect = f"{count(int(counts[items].sum()), int(counts.sum()), 'events')} are read as nothing, and those items are "
    effect += (
        f"ranked by chance: {count(int(np.isin(probe.targets.numpy(), items).sum()), len(probe.users), 'targets')}."
    )
    fix = "Give padding a row of its own in the embedding (deshi: row 0, item i in row i + 1)."
    where = [location(item=names[item], index=item) for item in items.tolist()]
    return [finding("item-collides-with-padding", message, where, effect, fix)]
