"""RD, CD, RRD, UnKD, margin-MSE: each against its formula in plain Python, and what the formulas imply."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch

from deshi.distillation.cd import CD
from deshi.distillation.list_losses import draw_outside
from deshi.distillation.margin_mse import MarginMSE
from deshi.distillation.rd import RD
from deshi.distillation.rrd import RRD
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Term
from deshi.distillation.unkd import UnKD, pairs_of_groups, popularity_groups
from deshi.testing.terms import ITEMS, chunk_of, context, lists, prepared, seeded
from deshi.types import PAD, DeshiError, ScoreKind

SCORES = torch.randn(4, ITEMS, generator=seeded(1))
LENGTHS = [5, 3, 1, 4]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _rows(signal: SoftLabelBatch) -> list[list[int]]:
    return [[item for item in row if item != PAD] for row in signal.items.tolist()]


def test_rd() -> None:
    """The hybrid weight is a product of two that are easily exchanged or normalised wrongly."""
    signal, decay, mu, samples = lists(LENGTHS, 5), 2.0, 0.05, 20
    found = RD(top_k=4, decay=decay, mu=mu, samples=samples)(chunk_of(SCORES, signal, seed=9)).detach()
    drawn = torch.randint(ITEMS, (4, samples), generator=seeded(9))
    for row, listed in enumerate(_rows(signal)):
        listed, value = listed[:4], 0.0
        total = sum(math.exp(-r / decay) for r in range(1, len(listed) + 1))
        for r, item in enumerate(listed, start=1):
            score = float(SCORES[row, item])
            above = sum(float(SCORES[row, other]) > score for other in drawn[row].tolist())
            rank = math.floor(above * (ITEMS - 1) / samples) + 1
            weight = math.exp(-r / decay) / total * math.tanh(max(mu * (rank - r), 0))
            value -= weight * math.log(_sigmoid(score))
        assert float(found[row]) == pytest.approx(value, abs=1e-6)


def test_rd_leaves_alone_what_the_student_ranks_well() -> None:
    """That is what the discrepancy is for: no weight on an item that stands where the teacher has it, or higher."""
    scores = torch.zeros(1, ITEMS)
    scores[0, 3] = 9.0
    signal = SoftLabelBatch(torch.tensor([[3, 4]]), torch.tensor([[2.0, 1.0]]))
    chunk = chunk_of(scores, signal)
    slope = chunk.gradient_in_place(RD()(chunk).sum())
    assert slope[0, 3] == 0 and slope[0, 4] == 0, "no drawn item is above one of equal score"
    assert (RD(mu=None)(chunk_of(scores, signal)) > 0).all()


@pytest.mark.parametrize("guide", ["teacher", "student"])
@pytest.mark.parametrize("labels", ["scores", "ranks"])
def test_cd(guide: Literal["teacher", "student"], labels: Literal["scores", "ranks"]) -> None:
    """Weights by one ranking, labels by the other: the two must not be mixed up."""
    signal, decay, temperature, offset = lists(LENGTHS, 5), 3.0, 2.0, 0.5
    term = CD(decay=decay, guide=guide, labels=labels, temperature=temperature, offset=offset)
    found = term(chunk_of(SCORES, signal)).detach()
    for row, listed in enumerate(_rows(signal)):
        own = [float(SCORES[row, item]) for item in listed]
        places = [1 + sum(other > score for other in own) for score in own]
        ranks = places if guide == "student" else list(range(1, len(listed) + 1))
        total = sum(math.exp(-r / decay) for r in ranks)
        value = 0.0
        for place, (score, rank) in enumerate(zip(own, ranks, strict=True)):
            soft = _sigmoid((float(signal.scores[row, place]) + offset) / temperature)
            label = soft if labels == "scores" else math.exp(-place / decay)
            cross = label * math.log(_sigmoid(score)) + (1 - label) * math.log(1 - _sigmoid(score))
            value -= math.exp(-rank / decay) / total * cross
        assert float(found[row]) == pytest.approx(value, abs=1e-6)


def test_cd_does_not_depend_on_the_scores_level() -> None:
    """A softmax's scores have no level; without an offset none is assumed."""
    signal = lists(LENGTHS, 5)
    moved = SoftLabelBatch(signal.items, signal.scores + 7, signal.score_kind)
    torch.testing.assert_close(CD()(chunk_of(SCORES, signal)), CD()(chunk_of(SCORES, moved)))


def test_rrd() -> None:
    """The sums run over what is left of the list and all uninteresting items."""
    signal = lists(LENGTHS, 5)
    found = RRD(interesting=None, uninteresting=6)(chunk_of(SCORES, signal, seed=9)).detach()
    others = draw_outside(chunk_of(SCORES, signal, seed=9), signal.items, 6)
    for row, listed in enumerate(_rows(signal)):
        rest = sum(math.exp(SCORES[row, item]) for item in others[row].tolist())
        value = 0.0
        for place, item in enumerate(listed):
            below = sum(math.exp(SCORES[row, other]) for other in listed[place:]) + rest
            value -= math.log(math.exp(SCORES[row, item]) / below)
        assert float(found[row]) == pytest.approx(value / len(listed), rel=1e-5)


def test_rrd_draws_in_the_teachers_order() -> None:
    """The likelihood is of an order: items that are drawn must keep it, and better ones must be drawn more often."""
    signal = lists([8] * 500, 8)
    drawn = RRD(interesting=3, decay=2.0)._drawn(chunk_of(torch.zeros(500, ITEMS), signal), signal.items)
    places = (drawn[:, :, None] == signal.items[:, None, :]).int().argmax(2)
    assert (places.diff(dim=1) > 0).all()
    times = places.flatten().bincount(minlength=8)
    assert times[0] > times[3] > times[7]
    short = lists([2] * 3, 8)
    drawn = RRD(interesting=3)._drawn(chunk_of(torch.zeros(3, ITEMS), short), short.items)
    assert torch.equal(drawn, short.items[:, :3]), "what is there comes first, padding after it"


def test_margin_mse() -> None:
    """The variance stands for all pairs, which are written out here."""
    signal = lists(LENGTHS, 5)
    found = MarginMSE(scale=0.5)(chunk_of(SCORES, signal)).detach()
    for row, listed in enumerate(_rows(signal)):
        gaps = [
            (float(SCORES[row, a] - SCORES[row, b]) - 0.5 * float(signal.scores[row, i] - signal.scores[row, j])) ** 2
            for i, a in enumerate(listed)
            for j, b in enumerate(listed)
            if i != j
        ]
        assert float(found[row]) == pytest.approx(sum(gaps) / max(len(gaps), 1), abs=1e-5)


def test_probabilities_are_read_as_logarithms() -> None:
    """A difference of probabilities is no difference of scores."""
    shares = lists(LENGTHS, 5, kind="probability")
    logs = SoftLabelBatch(
        shares.items, shares.scores.log().masked_fill(shares.items == PAD, 0.0), ScoreKind.LOG_PROBABILITY
    )
    for term in (MarginMSE(), CD()):
        torch.testing.assert_close(term(chunk_of(SCORES, shares)), term(chunk_of(SCORES, logs)))


@pytest.mark.parametrize("kind", ["score", "reciprocal_rank"])
def test_scores_without_a_scale_are_refused(kind: str) -> None:
    """Their differences would be learnt as if they meant something; what reads ranks takes them."""
    for term in (MarginMSE(), CD()):
        with pytest.raises(DeshiError, match="can't read scores of the kind"):
            term.prepare(context(kind))
    for other in (CD(labels="ranks"), RD(), RRD(), UnKD()):
        other.prepare(context(kind))


def test_unkd_groups() -> None:
    """Groups have about equal sums of counts, and unpopular ones more pairs, as in the program."""
    counts = torch.tensor([1, 40, 0, 30, 10, 10, 5, 4])
    group = popularity_groups(counts, 3)
    assert group.tolist() == [2, 0, 2, 1, 2, 2, 2, 2]
    # means 40, 30, 5: shares (40 + 5) - mean are 5, 15, 40 of 60
    assert pairs_of_groups(counts, group, 30) == [2, 8, 20]
    assert pairs_of_groups(torch.ones(4), torch.tensor([0, 0, 3, 3]), 10) == [5, 0, 0, 5]


def test_unkd_compares_inside_groups_only() -> None:
    """A pair adds to one score what it takes from the other: in each group the slopes cancel."""
    term = prepared(UnKD(groups=3, pairs=12))
    signal = lists([8, 8, 6, 3], 8)
    chunk = chunk_of(SCORES, signal)
    slope = chunk.gradient_in_place(term(chunk).sum())
    for number in range(3):
        torch.testing.assert_close(slope[:, term.group == number].sum(1), torch.zeros(4), atol=1e-6, rtol=0)
    assert slope.abs().sum() > 0


def test_unkd_pair() -> None:
    """With two items of one group on the list there is one pair to draw, and the teacher's first is the better."""
    term = prepared(UnKD(groups=1, pairs=50))
    signal = SoftLabelBatch(
        torch.tensor([[4, 9, PAD], [7, PAD, PAD]]), torch.tensor([[2.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    )
    found = term(chunk_of(SCORES[:2], signal)).detach()
    assert float(found[0]) == pytest.approx(-math.log(_sigmoid(float(SCORES[0, 4] - SCORES[0, 9]))), rel=1e-5)
    assert float(found[1]) == 0.0, "one item makes no pair"


def test_drawn_from_outside() -> None:
    """Negatives that are positives would undo the term; all others must have the same chance."""
    excluded = torch.tensor([[0, 1, 2, PAD]]).expand(4000, -1)
    signal = SoftLabelBatch(excluded, torch.zeros(4000, 4))
    drawn = draw_outside(chunk_of(torch.zeros(4000, 6), signal), excluded, 2)
    times = drawn[drawn != PAD].bincount(minlength=6)
    assert times[:3].sum() == 0 and (times[3:] - 8000 / 3).abs().max() < 5 * (8000 * 2 / 9) ** 0.5
    everything = torch.arange(6).expand(4000, -1)
    assert (draw_outside(chunk_of(torch.zeros(4000, 6), signal), everything, 2) == PAD).all()


@pytest.mark.parametrize("make", [lambda v: RD(decay=v), lambda v: CD(temperature=v), lambda v: RRD(uninteresting=v),
                                  lambda v: UnKD(pairs=v), lambda v: MarginMSE(scale=v)])  # fmt: skip
def test_arguments_are_checked(make: Callable[[float], Term]) -> None:
    """A width of 0 would divide by it hours later."""
    with pytest.raises(DeshiError, match="expected a positive number"):
        make(0)
    assert isinstance(make(1), Term)
