"""Losses with sampled negatives: hand values, agreement with the exact losses, seeds, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deshi.losses.base import Loss
from deshi.losses.bce import BCE, bce, bce_over
from deshi.losses.gbce import GBCE, gbce_beta
from deshi.losses.negatives import SharedNegatives, grouped_negatives, grouped_scores
from deshi.losses.sampled_softmax import SampledSoftmax, sampled_softmax
from deshi.losses.softmax import Softmax
from deshi.types import PAD, DeshiError, ShapeError

N_ITEMS, DIM, POSITIONS = 30, 8, 21
Strategy = Literal["uniform", "popularity", "batch", "mixed"]


def counted(strategy: Strategy) -> SampledSoftmax:
    loss = SampledSoftmax(negatives=12, strategy=strategy)
    loss.set_counts(torch.arange(N_ITEMS))
    return loss


LOSSES: dict[str, Callable[[], Loss]] = {
    "softmax": Softmax,
    "sampled_uniform": lambda: SampledSoftmax(negatives=12),
    "sampled_popularity": lambda: counted("popularity"),
    "sampled_batch": lambda: counted("batch"),
    "sampled_mixed": lambda: counted("mixed"),
    "bce": BCE,
    "bce_shared": lambda: BCE(negatives=3, share=4),
    "gbce": lambda: GBCE(negatives=6, calibration=0.75, share=5),
}


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden, table = torch.randn(POSITIONS, DIM, generator=generator), torch.randn(N_ITEMS, DIM, generator=generator)
    return hidden, table, torch.randint(N_ITEMS, (POSITIONS,), generator=generator)


@pytest.mark.parametrize("build", LOSSES.values(), ids=LOSSES)
class TestLossContract:
    def test_scalar_with_gradients(self, build: Callable[[], Loss]) -> None:
        """States and table both learn from a finite scalar."""
        hidden, table, targets = problem()
        hidden.requires_grad_(), table.requires_grad_()
        value = build()(hidden, table, targets)
        assert value.shape == () and value.dtype == torch.float32 and value > 0
        value.backward()
        for grad in (hidden.grad, table.grad):
            assert grad is not None and torch.isfinite(grad).all() and grad.abs().sum() > 0
        assert hidden.grad is not None and (hidden.grad.abs().sum(1) > 0).all(), "every position must learn"

    def test_step_against_the_gradient_raises_the_targets(self, build: Callable[[], Loss]) -> None:
        """The sign must be right: after a step on the states the targets score higher."""
        hidden, table, targets = problem()
        hidden.requires_grad_()
        build()(hidden, table, targets).backward()
        assert hidden.grad is not None
        moved = hidden.detach() - 0.1 * hidden.grad
        assert ((moved - hidden.detach()) * table[targets]).sum() > 0

    def test_trailing_dimension_names_both_shapes(self, build: Callable[[], Loss]) -> None:
        """A [batch, 1] target broadcasts silently elsewhere; here both shapes are named."""
        hidden, table, targets = problem()
        with pytest.raises(ShapeError, match=rf"targets has shape \({POSITIONS}, 1\), expected \({POSITIONS}\)"):
            build()(hidden, table, targets[:, None])

    def test_other_widths_name_both_shapes(self, build: Callable[[], Loss]) -> None:
        """States and table of different widths belong to different students."""
        hidden, table, targets = problem()
        with pytest.raises(ShapeError, match=rf"table has shape \({N_ITEMS}, {DIM - 1}\), expected \(N, {DIM}\)"):
            build()(hidden, table[:, 1:], targets)

    @pytest.mark.parametrize("bad", [PAD, N_ITEMS])
    def test_targets_that_are_no_item_are_refused(self, build: Callable[[], Loss], bad: int) -> None:
        """Padding or an index beyond the table must not be trained on."""
        hidden, table, targets = problem()
        targets[2] = bad
        with pytest.raises(DeshiError, match=f"targets holds {bad}, expected item indices 0..{N_ITEMS - 1}"):
            build()(hidden, table, targets)

    def test_no_targets_are_refused(self, build: Callable[[], Loss]) -> None:
        """The mean of nothing is NaN: say so before it spreads."""
        hidden, table, targets = problem()
        with pytest.raises(DeshiError, match="no target at all"):
            build()(hidden[:0], table, targets[:0])

    def test_nan_stays_visible(self, build: Callable[[], Loss]) -> None:
        """A NaN in the states must come out as a NaN loss, never as a harmless number."""
        hidden, table, targets = problem()
        hidden[1, 1] = float("nan")
        assert math.isnan(build()(hidden, table, targets).item())

    def test_bf16_is_near_fp32(self, build: Callable[[], Loss]) -> None:
        """Autocast and bf16 states may be chosen for any loss: the value stays within 2 %."""
        hidden, table, targets = problem()
        exact = build()(hidden, table, targets).item()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = build()(hidden.bfloat16(), table, targets)
        assert rough.dtype == torch.float32
        assert rough.item() == pytest.approx(exact, rel=0.02)

    def test_nothing_to_store(self, build: Callable[[], Loss]) -> None:
        """Counts and streams come from the data and the seed, so a checkpoint needs none of them."""
        assert build().state_dict() == {}


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "softmax"])
def test_same_seed_same_bits(name: str) -> None:
    """A seed fixes the negatives whatever the global generator does; further draws differ."""
    inputs = problem()
    first, second = LOSSES[name](), LOSSES[name]()
    for loss in (first, second):
        loss.reseed([7, 1])
    values = [first(*inputs).item() for _ in range(3)]
    torch.rand(5)
    assert [second(*inputs).item() for _ in range(3)] == values
    assert len(set(values)) == 3
    first.reseed([7, 2])
    assert first(*inputs).item() != values[0]


def test_draws_leave_the_global_generator_alone() -> None:
    """A loss that reads the global stream would change everything drawn after it."""
    before = torch.get_rng_state()
    for name in LOSSES:
        LOSSES[name]()(*problem())
    assert torch.equal(torch.get_rng_state(), before)


def test_sampled_softmax_hand_value() -> None:
    """Target score 2; negative score 1 expected twice; the drawn target itself left out: log(e2 + e1/2) - 2."""
    hidden, table = torch.tensor([[1.0]]), torch.tensor([[2.0], [1.0], [5.0]])
    value = sampled_softmax(
        hidden, table, torch.tensor([0]), torch.tensor([1, 0]), torch.tensor([math.log(2.0), math.log(9.0)])
    )  # fmt: skip
    assert value.item() == pytest.approx(math.log(math.exp(2) + math.exp(1) / 2) - 2, rel=1e-6)


def test_sampled_softmax_where_every_negative_is_the_target() -> None:
    """A draw of the target alone teaches nothing, and must not give NaN gradients."""
    hidden, table = torch.randn(1, 4).requires_grad_(), torch.randn(3, 4).requires_grad_()
    value = sampled_softmax(hidden, table, torch.tensor([2]), torch.tensor([2, 2]), torch.zeros(2))
    value.backward()
    assert value.item() == 0.0
    assert hidden.grad is not None and table.grad is not None
    assert hidden.grad.abs().sum() == table.grad.abs().sum() == 0


@pytest.mark.parametrize("strategy", ["uniform", "popularity"])
def test_sampled_softmax_of_the_whole_catalogue_is_the_full_one(strategy: Strategy) -> None:
    """With every item in the sample nothing is estimated: value and gradients are the full softmax's."""
    hidden, table, targets = problem()
    results = []
    for loss in (Softmax(), SampledSoftmax(negatives=N_ITEMS, strategy=strategy)):
        leaves = hidden.clone().requires_grad_(), table.clone().requires_grad_()
        value = loss(*leaves, targets)
        value.backward()
        results.append([value.detach(), *(leaf.grad for leaf in leaves)])
    for full, sampled in zip(*results, strict=True):
        torch.testing.assert_close(sampled, full, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strategy", ["uniform", "popularity"])
def test_sampled_softmax_approaches_the_full_one(strategy: Strategy) -> None:
    """More negatives must bring the loss nearer to the full softmax's, at the square root's pace."""
    generator = torch.Generator().manual_seed(2)
    hidden, table = torch.randn(40, DIM, generator=generator) / 3, torch.randn(2000, DIM, generator=generator)
    targets = torch.randint(2000, (40,), generator=generator)
    full = Softmax()(hidden, table, targets).item()
    errors = []
    for size in (20, 1900):
        loss = SampledSoftmax(size, strategy)
        loss.set_counts(torch.arange(2000) % 7)
        errors.append(sum(abs(loss(hidden, table, targets).item() - full) for _ in range(10)) / 10)
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 4, "95 times the sample: the error should fall about tenfold"


@pytest.mark.parametrize("strategy", ["uniform", "popularity", "batch", "mixed"])
def test_log_q_correction_is_unbiased(strategy: Strategy) -> None:
    """Over many draws, the corrected denominators average to the full ones, for every target; mixed: cold items too."""
    counts = torch.arange(1, N_ITEMS + 1) - int(strategy == "mixed")
    everyone = torch.arange(N_ITEMS).repeat_interleave(counts)
    sampler = SharedNegatives(strategy)
    sampler.set_counts(counts)
    scores = problem()[0][0] @ problem()[1].T / 2
    mass, draws = scores.double().exp(), []
    for _ in range(3000):
        items, log_expected = sampler(everyone, N_ITEMS, 10)
        estimate = torch.zeros(N_ITEMS, dtype=torch.float64)
        draws.append(estimate.index_add_(0, items, mass[items] * (-log_expected.double()).exp()))
    estimates = torch.stack(draws)
    others = estimates.sum(1, keepdim=True) - estimates
    error = (others.mean(0) - (mass.sum() - mass)).abs()
    assert (error < 4.5 * others.std(0) / math.sqrt(len(others))).all()


def test_sampling_follows_the_counts_and_their_power() -> None:
    """Popularity must mean the training counts to the given power, or the correction corrects something else."""
    counts = torch.tensor([0, 1, 4, 16])
    for power, weights in ((1.0, [1, 1, 4, 16]), (0.5, [1, 1, 2, 4]), (0.0, [1, 1, 1, 1])):
        sampler = SharedNegatives("popularity", power)
        sampler.set_counts(torch.cat([counts, torch.ones(100_000)]))
        probability = torch.tensor(weights) / (sum(weights) + 100_000)
        items, log_expected = sampler(torch.tensor([0]), 100_004, 100_000)
        expected = torch.cat([probability, torch.full((100_000,), 1 / (sum(weights) + 100_000))])[items] * 100_000
        torch.testing.assert_close(log_expected.exp(), expected, rtol=1e-4, atol=0.0)
        for item, share in enumerate(probability.tolist()):
            assert abs(int((items == item).sum()) - share * 1e5) < 5 * math.sqrt(share * 1e5) + 1


def test_negatives_in_the_batch_are_its_targets() -> None:
    """In-batch negatives are nothing but targets of the same batch."""
    sampler = SharedNegatives("batch")
    sampler.set_counts(torch.ones(N_ITEMS))
    items, _ = sampler(torch.tensor([3, 5, 5]), N_ITEMS, 50)
    assert set(items.tolist()) == {3, 5}


def test_counts_must_be_there_and_fit() -> None:
    """Without counts, or with another data set's, popularity would be made up."""
    hidden, table, targets = problem()
    loss = SampledSoftmax(5, "popularity")
    with pytest.raises(DeshiError, match="call set_counts first"):
        loss(hidden, table, targets)
    loss.set_counts(torch.ones(N_ITEMS + 1))
    with pytest.raises(DeshiError, match=f"counts of {N_ITEMS + 1} items, but the item table has {N_ITEMS}"):
        loss(hidden, table, targets)
    with pytest.raises(ShapeError, match=r"counts has shape \(2, 1\), expected \(N\)"):
        loss.set_counts(torch.ones(2, 1))


def test_bce_hand_value() -> None:
    """Target score 1; negatives 0.5 and -2, of which the last is masked: means over all three terms."""
    value = bce(torch.tensor([1.0]), torch.tensor([[0.5, -2.0]]), torch.tensor([[True, False]]))
    assert value.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5))) / 3, rel=1e-6)


def test_bce_equals_torch() -> None:
    """With no collision, BCE is PyTorch's over targets labelled 1 and negatives labelled 0."""
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(9, generator=generator), torch.randn(9, 4, generator=generator)
    labels = torch.cat([torch.ones(9, 1), torch.zeros(9, 4)], dim=1)
    expected = F.binary_cross_entropy_with_logits(torch.cat([positive[:, None], negative], dim=1), labels)
    torch.testing.assert_close(bce(positive, negative, torch.ones(9, 4, dtype=torch.bool)), expected)


def test_bce_wrong_shapes() -> None:
    """Scores of different numbers of positions must not broadcast."""
    kept = torch.ones(3, 2, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"positive has shape \(3, 1\)"):
        bce(torch.zeros(3, 1), torch.zeros(3, 2), kept)
    with pytest.raises(ShapeError, match=r"negative has shape \(2, 2\), expected \(3, K\)"):
        bce(torch.zeros(3), torch.zeros(2, 2), kept)


@pytest.mark.parametrize("share", [1, 4, 100])
def test_grouped_scores_equal_plain_indexing(share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sliced product with its own gradient must be indexing and summing, value and gradients."""
    monkeypatch.setattr("deshi.losses.negatives._FLOATS", 100)
    hidden, table, _ = problem()
    generator = torch.Generator().manual_seed(1)
    negatives = grouped_negatives(POSITIONS, N_ITEMS, 6, share, generator)
    weights = torch.randn(POSITIONS, 6, generator=generator)
    each = negatives.repeat_interleave(share, 0)[:POSITIONS]
    results = []
    for score in (
        lambda h, t: grouped_scores(h, t, negatives, share),
        lambda h, t: (h[:, None] * t[each]).sum(2),
    ):
        leaves = hidden.clone().requires_grad_(), table.clone().requires_grad_()
        scores = score(*leaves)
        (scores * weights).sum().backward()
        results.append([scores.detach(), *(leaf.grad for leaf in leaves)])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_a_negative_that_is_the_target_does_not_count() -> None:
    """Pushing the target down as its own negative would fight the positive term."""
    hidden, table = torch.tensor([[1.0], [1.0]]), torch.tensor([[2.0], [-1.0]])
    value = bce_over(hidden, table, torch.tensor([0, 1]), torch.tensor([[0, 1]]), share=2)
    positive = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))
    negative = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))
    assert value.item() == pytest.approx((positive + negative) / 6, rel=1e-6)


def test_gbce_without_calibration_is_bce() -> None:
    """T = 0 gives beta = 1: the same negatives, the same number."""
    inputs = problem()
    general, ordinary = GBCE(negatives=5, calibration=0.0, share=3), BCE(negatives=5, share=3)
    for loss in (general, ordinary):
        loss.reseed([4])
    assert general(*inputs).item() == ordinary(*inputs).item()


def test_gbce_beta() -> None:
    """The published formula at its ends and between: t = 1 gives the sampling rate; all items sampled give 1."""
    assert gbce_beta(0.0, 10, 101) == pytest.approx(1.0)
    assert gbce_beta(1.0, 10, 101) == pytest.approx(0.1)
    assert gbce_beta(0.5, 10, 101) == pytest.approx(0.55)
    assert gbce_beta(0.75, 100, 101) == gbce_beta(0.75, 500, 101) == pytest.approx(1.0)
    with pytest.raises(DeshiError, match="1 items"):
        gbce_beta(0.5, 1, 1)


def test_gbce_hand_value() -> None:
    """The target's term alone is multiplied by beta."""
    value = bce(torch.tensor([1.0]), torch.tensor([[0.5]]), torch.tensor([[True]]), beta=0.25)
    assert value.item() == pytest.approx((0.25 * math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5))) / 2)


def test_full_calibration_recovers_probabilities() -> None:
    """What gBCE is for: with t = 1 the learned sigmoid is the target's true probability, with BCE it's inflated."""
    counts = (200 / torch.arange(1, 21)).round().long()
    truth, targets = counts / counts.sum(), torch.arange(20).repeat_interleave(counts)
    learned = {}
    for name, calibration in (("gbce", 1.0), ("bce", 0.0)):
        table = torch.zeros(20, 1).requires_grad_()
        optimizer = torch.optim.Adam([table], lr=0.05)
        loss, average = GBCE(negatives=4, calibration=calibration, share=1), torch.zeros(20)
        for step in range(400):
            optimizer.zero_grad()
            loss(torch.ones(len(targets), 1), table, targets).backward()
            optimizer.step()
            average += torch.sigmoid(table.detach()[:, 0]) / 200 if step >= 200 else 0.0
        learned[name] = average
    assert (learned["bce"] > 1.5 * truth).all()
    # Drawing over all 20 items and leaving out the target makes the odds 20/19 too high: hence the tolerance.
    torch.testing.assert_close(learned["gbce"], truth, atol=0.005, rtol=0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SampledSoftmax(negatives=0), "negatives=0"),
        (
            lambda: SampledSoftmax(strategy="bacth"),  # type: ignore[arg-type]
            "strategy='bacth', expected uniform, popularity, batch or mixed",
        ),
        (lambda: SampledSoftmax(power=0.5), "power=0.5 with strategy=uniform"),
        (lambda: SampledSoftmax(strategy="mixed", uniform_share=1.0), "uniform_share=1.0"),
        (lambda: BCE(negatives=0), "BCE got negatives=0"),
        (lambda: GBCE(share=0), "GBCE got share=0"),
        (lambda: GBCE(calibration=1.5), "calibration=1.5"),
    ],
)
def test_arguments_without_meaning_are_refused(build: Callable[[], Loss], message: str) -> None:
    """A wrong hyperparameter must stop before the first step."""
    with pytest.raises(DeshiError, match=message):
        build()
