"""What a distilled student is trained on: loss and terms in one pass, partial coverage, weights and their schedules."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.data.rank_batches import RankBatch
from deshi.distillation.cd import CD
from deshi.distillation.listwise import ListwiseKL
from deshi.distillation.margin_mse import MarginMSE
from deshi.distillation.objective import Distillation, Objective
from deshi.distillation.rrd import RRD
from deshi.distillation.score_chunk import FewScores
from deshi.distillation.soft_label_batches import SoftLabelBatch, SoftLabelLists
from deshi.distillation.term import Context, HiddenTerm, Term
from deshi.losses.base import Loss
from deshi.losses.bce import BCE
from deshi.losses.gbce import GBCE
from deshi.losses.sampled_softmax import SampledSoftmax
from deshi.losses.softmax import Softmax
from deshi.models.item_table import ItemEmbedding
from deshi.models.sasrec import SASRec
from deshi.soft_labels import SoftLabels
from deshi.types import PAD, Batch, DeshiError, ScoreKind

N, ROWS, K = 20, 60, 4


class Pull(HiddenTerm):
    """Draws hidden states to the origin: the simplest term over them."""

    def forward(self, hidden: Tensor, table: Tensor, signal: SoftLabelBatch) -> Tensor:
        return hidden.pow(2).sum(1)


def store(covered: np.ndarray, augmented: bool = False, k: int = K, kind: str = "logit", seed: int = 0) -> SoftLabels:
    """Random lists at the covered rows."""
    draw = np.random.default_rng(seed)
    items = np.stack([draw.permutation(N)[:k] for _ in range(len(covered))]).astype(np.int32)
    scores = -np.sort(-draw.normal(size=items.shape).astype(np.float32), axis=1)
    items[~covered], scores[~covered] = PAD, 0
    manifest = {
        "score_kind": kind, "k": k, "n_rows": len(covered), "sequences": "augmented" if augmented else "bundle",
    }  # fmt: skip
    return SoftLabels(Path("none"), manifest, items, scores)


def lists(covered: np.ndarray | None = None) -> SoftLabelLists:
    return SoftLabelLists(ROWS, [store(np.ones(ROWS, dtype=bool) if covered is None else covered)])


def student() -> SASRec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SASRec(N, 8, 10, blocks=1, heads=1, dropout=0.0)
        assert isinstance(network.items, ItemEmbedding)
        with torch.no_grad():
            network.items.weight[1:] *= 20
        return network


def batch() -> Batch:
    """Six histories of 4 to 9 events at rows 0, 10, 20 ..., one position of each without a target."""
    draw = np.random.default_rng(1)
    lengths = np.arange(4, 10)
    items, targets, rows = (np.full((6, 9), PAD, dtype=np.int64) for _ in range(3))
    for number, length in enumerate(lengths):
        items[number, :length] = draw.integers(0, N, length)
        targets[number, : length - 1] = draw.integers(0, N, length - 1)
        rows[number, :length] = 10 * number + np.arange(length)
    return Batch(*(torch.from_numpy(one) for one in (np.arange(6), items, lengths, targets, rows)))


def gradients(network: nn.Module, value: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(value, list(network.parameters()), allow_unused=True)
    return [torch.zeros(1) if one is None else one for one in found]


def floats(logs: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}


def assert_same(network: nn.Module, left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients(network, left), gradients(network, right), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def plainly(
    network: SASRec, asked: Batch, taught: Tensor, signal: SoftLabelBatch, base: float, weight: float
) -> Tensor:
    """Cross-entropy and listwise KL at temperature 2, by autograd over the whole score matrix."""
    hidden, table = network(asked.items, asked.lengths), network.item_table()
    told = asked.targets != PAD
    own = F.cross_entropy(hidden[told] @ table.T, asked.targets[told])
    scores = (hidden[taught] @ table.T).gather(1, signal.items) / 2
    aim = (signal.scores / 2).softmax(1)
    divergence = (aim * (aim.log() - scores.log_softmax(1))).sum(1).mean() * 4
    return base * own + weight * divergence


def test_without_terms_it_is_the_students_own_loss() -> None:
    """Plain training is distillation with no terms: to the bit in its figures, or the comparison would be unfair."""
    network, asked = student(), batch()
    assert_same(
        network,
        Distillation(Softmax(chunk=7), {}, lists())(network, asked)[0],
        Objective(Softmax(chunk=7))(network, asked)[0],
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("base", "weight"), [(1.0, 0.7), (0.0, 1.0), (0.5, 0.0)])
def test_one_pass_gives_what_autograd_gives(share: float, base: float, weight: float) -> None:
    """Value and every gradient, whatever share of the rows is covered: a missing row is a row of the data alone."""
    network, asked = student(), batch()
    covered = np.random.default_rng(2).random(ROWS) < share
    given = lists(covered)
    taught = torch.from_numpy(covered)[asked.rows.clamp(min=0)] & (asked.rows != PAD)
    found = Distillation(Softmax(chunk=5), {"kl": ListwiseKL(temperature=2, weight=weight)}, given, base)
    value, logs = found(network, asked)
    expected = plainly(network, asked, taught, given.at(asked.rows[taught]), base, weight if share else 0.0)
    assert_same(network, value, expected.nan_to_num() if share else base * network.training_loss(asked, Softmax()))


@pytest.mark.parametrize("loss", [BCE(negatives=3), GBCE(negatives=3)])
def test_any_loss_is_distilled(loss: Loss) -> None:
    """A sampled loss is computed apart, with the negatives it would draw alone, and the terms are added to it."""
    network, asked = student(), batch()
    hidden, table = network(asked.items, asked.lengths), network.item_table()
    found = Distillation(loss, {"kl": ListwiseKL(weight=0.5), "pull": Pull(weight=0.1)}, lists(), hard_loss_weight=2.0)
    found.start_epoch([3], 0.0)
    value, logs = found(network, asked)
    both = asked.rows != PAD
    told = asked.targets[both] != PAD
    loss.reseed([3, 1])
    own = loss(hidden[both][told], table, asked.targets[both][told])
    kl = Distillation(Softmax(), {"kl": ListwiseKL(weight=0.5)}, lists(), hard_loss_weight=0.0)(network, asked)[0]
    pull = hidden[both].pow(2).sum(1).mean()
    assert_same(network, value, 2 * own + kl + 0.1 * pull)
    assert logs["loss"] == pytest.approx(float(own.detach()), rel=1e-5)
    assert logs["pull"] == pytest.approx(float(pull.detach()), rel=1e-5)


@pytest.mark.parametrize("loss", [Softmax(), BCE()])
def test_a_batch_without_anything_to_learn_has_a_zero_loss_that_can_be_differentiated(loss: Loss) -> None:
    """With hard_loss_weight=0 and few covered rows such batches come; the optimizer's step must not fail on them."""
    network = student()
    given = lists(np.zeros(ROWS, dtype=bool))
    found = Distillation(loss, {"pull": Pull()}, given, hard_loss_weight=0.0)
    value, _ = found(network, batch())
    value.backward()
    assert float(value.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


def test_weights_move_over_the_training_and_the_values_are_logged_without_them() -> None:
    """A schedule is read from the progress; what is logged must be comparable from epoch to epoch."""
    network, asked = student(), batch()
    found = Distillation(Softmax(), {"kl": ListwiseKL(weight=0.0, final_weight=2.0)}, lists(), hard_loss_weight=0.5)
    totals = []
    for progress, weight in ((0.0, 0.0), (0.5, 1.0), (1.0, 2.0)):
        found.start_epoch([0], progress)
        total, logs = found(network, asked)
        value, logs = float(total.detach()), floats(logs)
        assert value == pytest.approx(0.5 * logs["loss"] + weight * logs["kl"], rel=1e-5)
        totals.append(logs["kl"])
    assert totals[0] > 0 and totals == pytest.approx([totals[0]] * 3), "the value itself doesn't move"
    with pytest.raises(DeshiError, match="final_weight=-1"):
        ListwiseKL(final_weight=-1.0)


def test_values_name_only_what_the_batch_had() -> None:
    """A term that no position of a batch had must not enter the epoch's mean, nor one of the batch before."""
    network, asked = student(), batch()
    covered = np.arange(ROWS) < 10
    found = Distillation(BCE(), {"kl": ListwiseKL(), "pull": Pull()}, lists(covered))
    assert set(found(network, asked)[1]) == {"loss", "kl", "pull"}
    assert set(found(network, asked.select(torch.arange(1, 6)))[1]) == {"loss"}


def test_what_is_no_term_or_no_weight_is_refused() -> None:
    """Both can come from a configuration, whose types alone don't tell."""
    with pytest.raises(DeshiError, match="expected subclasses of"):
        Distillation(Softmax(), {"kl": nn.Linear(1, 1)}, lists())  # type: ignore[dict-item]
    with pytest.raises(DeshiError, match="expected 0 or more"):
        Distillation(Softmax(), {}, lists(), hard_loss_weight=-1.0)


def test_a_term_refuses_scores_that_it_cannot_read() -> None:
    """Before training, and with the way out."""
    context = Context(N, 8, ScoreKind.SCORE, K, torch.ones(N, dtype=torch.int64))
    with pytest.raises(DeshiError, match="only their order has a meaning"):
        ListwiseKL().prepare(context)

    class Margins(Pull):
        needs_calibrated_scores = True

    with pytest.raises(
        DeshiError, match="can't read scores of the kind 'score', expected logit or log_probability or probability"
    ):
        Margins().prepare(context)
    with pytest.raises(DeshiError, match="no soft-label store here holds item_embeddings"):
        context.needed_embeddings("hint")


def test_lists_of_several_stores_lie_behind_one_row_number() -> None:
    """The bundle's rows come first, each augmented store's follow in the order given; shorter lists end in padding."""
    own = store(np.arange(ROWS) % 2 == 0)
    first, second = store(np.ones(7, dtype=bool), True, 2, seed=1), store(np.arange(9) > 3, True, seed=2)
    joined = SoftLabelLists(ROWS, [first, own, second])
    assert joined.n_rows == ROWS + 16 and joined.k == K
    assert joined.covered.tolist() == [*own.covered, *first.covered, *second.covered]
    asked = joined.at(torch.tensor([0, 1, ROWS, ROWS + 6, ROWS + 7, ROWS + 15, PAD]))
    assert (asked.items[:, 0] != PAD).tolist() == [True, False, True, True, False, True, False]
    assert asked.items[0].tolist() == own.items[0].tolist()
    assert asked.items[2].tolist() == [*first.items[0].tolist(), PAD, PAD]
    assert asked.items[5].tolist() == second.items[8].tolist()
    assert not asked.scores[[1, 4, 6]].any()
    chosen = np.zeros(joined.n_rows, dtype=bool)
    chosen[[0, ROWS + 1]] = True
    some = SoftLabelLists(ROWS, [first, own, second], k=1, chosen=chosen)
    assert np.flatnonzero(some.covered).tolist() == [0, ROWS + 1]
    assert some.at(torch.tensor([0, 2, ROWS, ROWS + 1])).items[:, 0].tolist() == [
        own.items[0, 0], PAD, PAD, first.items[1, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stores", "message"),
    [
        ([], "Got 0 soft-label stores"),
        ([store(np.ones(ROWS, dtype=bool))] * 2, "2 of them about the data's own histories"),
        ([store(np.ones(ROWS, dtype=bool)), store(np.ones(5, dtype=bool), True, kind="score")], "logit.*score"),
    ],
)
def test_stores_that_do_not_go_together_are_refused(stores: list[SoftLabels], message: str) -> None:
    """Two lists at one row, or logits beside ranks, would be learnt as if they were one teacher's."""
    with pytest.raises(DeshiError, match=message):
        SoftLabelLists(ROWS, stores)


def test_a_schedule_is_part_of_every_term() -> None:
    """All terms inherit it, so that no term needs a schedule of its own."""
    term: Term = Pull(weight=1.0, final_weight=0.0)
    assert [term.weight_at(p) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("covered", [0.0, 0.3])
@pytest.mark.parametrize("loss", [Softmax(chunk=7), SampledSoftmax(negatives=12), None])
def test_the_mean_over_ranks_is_the_whole_batch(ranks: int, covered: float, loss: Loss | None) -> None:
    """As DDP averages losses and gradients, also of ranks without a history, a target or a list of their own."""
    network, asked = student(), batch()
    taught = np.random.default_rng(0).random(ROWS) < covered
    terms = {"kl": ListwiseKL(temperature=2.0, weight=0.7), "pull": Pull(weight=0.3)}

    def outcome(part: Batch) -> tuple[Tensor, dict[str, float], list[Tensor]]:
        objective = Objective(Softmax()) if loss is None else Distillation(loss, terms, lists(taught), 0.8)
        objective.start_epoch([0, 0, 3], 0.0, rank=0 if part is asked else 1)
        value, logs = objective(network, part)
        return value.detach(), floats(logs), gradients(network, value)

    value, logs, grads = outcome(asked)
    parts = [outcome(RankBatch.of(asked, rank, ranks)) for rank in range(ranks)]
    torch.testing.assert_close(torch.stack([part[0] for part in parts]).mean(), value, rtol=1e-5, atol=1e-6)
    assert all(part[1].keys() == logs.keys() for part in parts)
    means = {name: sum(part[1][name] for part in parts) / ranks for name in logs}
    assert means == pytest.approx(logs, rel=1e-4, abs=1e-6)
    for number, grad in enumerate(grads):
        mean = torch.stack([part[2][number].expand_as(grad) for part in parts]).mean(0)
        torch.testing.assert_close(mean, grad, rtol=1e-4, atol=1e-6)


def test_ranks_draw_for_themselves_but_for_what_a_batch_shares() -> None:
    """Negatives of single positions would be the same on all ranks; shared ones would differ between them."""
    hidden, table, targets = torch.randn(12, 8), torch.randn(N, 8), torch.arange(12)
    for loss, same in ((BCE(negatives=3), False), (SampledSoftmax(negatives=12), True)):
        objective, values = Objective(loss), []
        for rank in (0, 0, 1):
            objective.start_epoch([5, 0, 3], 0.0, rank)
            values.append(float(loss(hidden, table, targets)))
        assert values[0] == values[1] and (values[0] == values[2]) == same


def few_scores(hidden: Tensor, table: Tensor, labels: SoftLabelBatch, negatives: Tensor, expected: float) -> FewScores:
    log_expected = torch.full((len(negatives),), expected).log()
    targets = torch.full((len(hidden),), PAD)
    return FewScores(hidden, table, targets, labels, torch.Generator(), negatives, log_expected)


def test_few_scores_are_those_of_the_catalogue() -> None:
    """With every item drawn once, scores and logsumexp from few rows are those of the whole matrix, gradients too."""
    labels = lists().at(torch.arange(ROWS))
    generator = torch.Generator().manual_seed(0)
    hidden, table = torch.randn(ROWS, 8, generator=generator), torch.randn(N, 8, generator=generator)
    values, grads = [], []
    for few in (True, False):
        leaf = table.clone().requires_grad_()
        if few:
            chunk = few_scores(hidden, leaf, labels, torch.arange(N), 1.0)
            taken, logsumexp = chunk.scores_of(labels.items), chunk.logsumexp(2.0)
        else:
            scores = hidden @ leaf.T
            taken, logsumexp = scores.gather(1, labels.items.clamp(min=0)), (scores / 2).logsumexp(1)
            taken = taken.masked_fill(labels.items == PAD, 0.0)
        (taken.square().sum() + logsumexp.sum()).backward()
        assert leaf.grad is not None and leaf.grad.is_sparse is few
        values.append(torch.cat([taken, logsumexp[:, None]], 1).detach())
        grads.append(leaf.grad.to_dense())
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_sum_over_few_scores_is_unbiased() -> None:
    """Over many draws the estimated ``sum exp`` averages to that over the catalogue, list items counted once."""
    labels = lists().at(torch.arange(4))
    generator = torch.Generator().manual_seed(0)
    hidden, table = torch.randn(4, 8, generator=generator) / 2, torch.randn(N, 8, generator=generator)
    draws = torch.stack(
        [
            few_scores(hidden, table, labels, torch.randint(N, (6,), generator=generator), 6 / N).logsumexp().exp()
            for _ in range(2000)
        ]
    ).double()
    full = (hidden @ table.T).exp().sum(1)
    assert ((draws.mean(0) - full).abs() < 4.5 * draws.std(0) / 2000**0.5).all()


@pytest.mark.parametrize("term", [ListwiseKL(), CD(), MarginMSE()])
def test_sparse_distillation_is_that_of_all_scores(term: Term) -> None:
    """Terms over lists alone give value and gradients of the fused pass, the item table's as a sparse tensor."""
    network, value = student(), []
    dense = Distillation(BCE(), {"term": term}, lists(), hard_loss_weight=0.0)(network, batch())[0]
    value.append((dense, gradients(network, dense)))
    few = Distillation(BCE(), {"term": term}, lists(), hard_loss_weight=0.0)
    assert few.problem_of_sparse_gradients() is None
    few.use_sparse_gradients()
    cast(ItemEmbedding, network.items).sparse = True
    sparse = few(network, batch())[0]
    value.append((sparse, [grad.to_dense() for grad in gradients(network, sparse)]))
    torch.testing.assert_close(value[0][0], value[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(value[0][1], value[1][1], rtol=1e-3, atol=1e-5)


def test_terms_over_all_scores_need_dense_gradients() -> None:
    """A term that reads more than its lists names itself."""
    for terms in ({"pull": Pull()}, {"rrd": RRD()}):
        problem = Distillation(BCE(), terms, lists()).problem_of_sparse_gradients()
        assert problem is not None and next(iter(terms)) in problem
    assert Distillation(Softmax(), {"kl": ListwiseKL()}, lists()).problem_of_sparse_gradients() is not None
