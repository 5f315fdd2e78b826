"""DLLM2Rec against the paper's and the program's formulas, written out here a second time, and its parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from deshi.distillation.dllm2rec import DLLM2Rec, DLLM2RecReleased, distance_from_truth
from deshi.distillation.dro import DRO
from deshi.distillation.list_losses import draw_outside
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.testing.terms import ITEMS, chunk_of, context, lists, prepared, seeded
from deshi.types import PAD, DeshiError, ScoreKind

K = 4
SCORES = torch.randn(6, ITEMS, generator=seeded(1))
TARGETS = torch.randint(ITEMS, (6,), generator=seeded(2))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _propensity(power: float = 0.05) -> list[float]:
    more = [count + 1 for count in context().counts.tolist()]
    return [(count / sum(more)) ** power for count in more]


def _robust(scores: list[float], item: int, beta: float) -> float:
    """The program's inner_dro and its logarithm, item by item."""
    propensity = _propensity()
    every = sum(math.exp(score * score * p / beta) for score, p in zip(scores, propensity, strict=True))
    own = math.exp(scores[item] ** 2 * propensity[item] / beta)
    erring = math.exp((scores[item] - 1) ** 2 * propensity[item] / beta)
    return math.log(every - own + erring + 1e-24)


def _program(scores: Tensor, items: Tensor, distances: Tensor, negatives: Tensor, alpha: float, beta: float) -> float:
    """The distillation part of main.py for a batch, before ``lam``."""
    gamma_position, gamma_confidence, gamma_consistency = 0.3, 0.5, 0.1
    batch = len(scores)
    weights: list[list[float]] = []
    for b in range(batch):
        static = [math.exp(-(r + 1) / 1) for r in range(K)]
        position = [w / sum(static) for w in static]
        best = sorted(range(ITEMS), key=lambda n: -float(scores[b, n]))[:K]
        common = [(1 if int(items[b, k]) in best else 0) + 1e-8 for k in range(K)]
        near = [math.exp(-float(distances[b, k])) + 1e-8 for k in range(K)]
        confidence = [w / sum(near) for w in near]
        mixed = [
            gamma_position * position[k] + gamma_confidence * confidence[k] + gamma_consistency * common[k]
            for k in range(K)
        ]
        weights.append([w / sum(mixed) for w in mixed])
    total = 0.0
    for k in range(K):
        bce, robust = 0.0, []
        for b in range(batch):
            positive, negative = float(scores[b, items[b, k]]), float(scores[b, negatives[b]])
            bce += weights[b][k] * -(math.log(_sigmoid(positive)) + math.log(_sigmoid(1 - negative)))
            robust.append(_robust(scores[b].tolist(), int(items[b, k]), beta))
        total += bce / batch
        # (B, 1) * (B,) is a (B, B) tensor, and its mean the mean over all pairs
        total += alpha * sum(weights[a][k] * value for a in range(batch) for value in robust) / batch**2
    return total


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.7)])
def test_released_program(alpha: float, beta: float) -> None:
    """The name must mean the program's numbers, quirks included, to five digits."""
    signal = lists([K] * 6, K, kind="score")
    signal = SoftLabelBatch(
        signal.items, signal.scores - signal.scores.max() - 0.1, ScoreKind("score")
    )  # minus distances
    term = prepared(DLLM2RecReleased(top_k=K, alpha=alpha, beta=beta), kind="score")
    found = term(chunk_of(SCORES, signal, TARGETS, seed=9)).mean()
    negatives = draw_outside(chunk_of(SCORES, signal, seed=9), TARGETS[:, None], 1).squeeze(1)
    expected = _program(SCORES, signal.items, -signal.scores, negatives, alpha, beta)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_released_distances() -> None:
    """Logits have no distances: how far below the best takes their place; huge ones don't overflow."""
    signal = lists([K] * 6, K)
    distances = SoftLabelBatch(signal.items, signal.scores - signal.scores[:, :1], ScoreKind("score"))
    first, second = (
        prepared(DLLM2RecReleased(top_k=K), kind=given.score_kind)(chunk_of(SCORES, given, TARGETS))
        for given in (signal, distances)
    )
    torch.testing.assert_close(first, second)
    far = SoftLabelBatch(signal.items, signal.scores + 1000, ScoreKind("score"))
    assert DLLM2RecReleased(top_k=K)(chunk_of(SCORES, far, TARGETS)).isfinite().all()


def _paper(
    row: int, signal: SoftLabelBatch, negatives: Tensor, gammas: tuple[float, float, float], decay: float
) -> float:
    """The paper's value at one position, with the confidence that DLLM2Rec's docstring defines."""
    listed = [item for item in signal.items[row].tolist()[:K] if item != PAD]
    scores = SCORES[row].tolist()
    best = sorted(range(ITEMS), key=lambda n: -scores[n])[:K]
    taught = signal.scores[row].tolist()
    at = listed.index(int(TARGETS[row])) if int(TARGETS[row]) in listed else len(listed) - 1
    confidence = math.exp(-(taught[0] - taught[at]) / decay)
    total = sum(math.exp(-r / decay) for r in range(1, len(listed) + 1))
    value = 0.0
    for r, item in enumerate(listed, start=1):
        weight = gammas[0] * math.exp(-r / decay) / total
        weight += gammas[1] * confidence / len(listed)
        weight += gammas[2] * (item in best) / len(listed)
        negative = scores[int(negatives[row, r - 1])]
        value -= weight * (math.log(_sigmoid(scores[item])) + math.log(1 - _sigmoid(negative)))
    return value


@pytest.mark.parametrize("gammas", [(0.3, 0.5, 0.1), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_paper(gammas: tuple[float, float, float]) -> None:
    """Each weight alone and all together, on lists with and without the true item, whole and short."""
    signal = lists([6, 6, 2, 6, 1, 3], 6)
    signal.items[0, 2], signal.items[2, 1] = TARGETS[0], TARGETS[2]
    term = DLLM2Rec(K, 2.0, *gammas)
    found = term(chunk_of(SCORES, signal, TARGETS, seed=9)).detach()
    excluded = torch.cat([signal.items[:, :K], TARGETS[:, None]], 1)
    negatives = draw_outside(chunk_of(SCORES, signal, seed=9), excluded, K)
    for row in range(6):
        assert found[row].item() == pytest.approx(_paper(row, signal, negatives, gammas, 2.0), abs=1e-6)


def test_distance_from_truth() -> None:
    """Scores with a scale are measured in it, others in places; an unknown truth counts as none missed."""
    items = torch.tensor([[3, 1, 2], [3, 1, 2], [3, 1, PAD], [3, 1, 2], [3, 1, 2]])
    scores = torch.tensor([[4.0, 3.0, 1.0]]).repeat(5, 1)
    targets = torch.tensor([3, 2, 7, 7, PAD])
    assert distance_from_truth(SoftLabelBatch(items, scores), targets).tolist() == [0.0, 3.0, 1.0, 3.0, 0.0]
    assert distance_from_truth(SoftLabelBatch(items, scores, ScoreKind("score")), targets).tolist() == [
        0.0,
        2.0,
        2.0,
        3.0,
        0.0,
    ]


def test_robust_loss() -> None:
    """The term for true items is the program's, computed without its overflow; no target, no loss."""
    targets = TARGETS.clone()
    targets[3] = PAD
    found = prepared(DRO(beta=0.7))(chunk_of(SCORES, lists([1] * 6, 1), targets)).detach()
    for row, target in enumerate(targets.tolist()):
        expected = 0.0 if target == PAD else _robust(SCORES[row].tolist(), target, 0.7)
        assert found[row].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("version", [DLLM2Rec, DLLM2RecReleased])
def test_arguments_are_checked(version: type) -> None:
    """Without any weight nothing is taught, and the released rows would divide 0 by 0."""
    with pytest.raises(DeshiError, match="one gamma above 0"):
        version(gamma_position=0.0, gamma_confidence=0.0, gamma_consistency=0.0)
    with pytest.raises(DeshiError, match="one gamma above 0"):
        version(gamma_position=-1.0)
    with pytest.raises(DeshiError, match="top_k=0"):
        version(top_k=0)
