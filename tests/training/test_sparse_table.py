"""Sparse gradients of the item table: the step, clipping and averaging are those of dense gradients, row by row."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.configuration.schemas import FitConfig, TrainConfig
from deshi.configuration.validation import validate
from deshi.distillation.objective import Objective
from deshi.losses.base import Loss
from deshi.losses.bce import BCE
from deshi.losses.gbce import GBCE
from deshi.losses.sampled_softmax import SampledSoftmax
from deshi.losses.softmax import Softmax
from deshi.models.item_table import ItemEmbedding
from deshi.models.sasrec import SASRec
from deshi.runs import Run
from deshi.training import _sparse_table, fit
from deshi.training._sparse_table import AdamWithSparseRows, LazyAverage, clip_gradients, use_sparse_gradients
from deshi.training.module import TrainingModule
from deshi.types import Batch, DeshiError
from tiny_bundles import batch_of, ring_bundle

N_ITEMS, DIM = 40, 8
LOSSES = {"sampled": SampledSoftmax, "bce": BCE, "gbce": GBCE}


def student(seed: int = 0) -> SASRec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SASRec(N_ITEMS, dim=DIM, max_length=6, blocks=1, dropout=0.0)


def module(loss: Loss, setting: bool, **train: Any) -> TrainingModule:
    network, objective = student(), Objective(loss)
    use_sparse_gradients(network, objective, setting)
    objective.start_epoch([0, 1], 0.0)
    settings = TrainConfig(warmup_steps=0, **train)
    return TrainingModule(network, objective, settings, total_steps=10, seed=0)


def batch(*rows: list[int]) -> Batch:
    histories = batch_of(*rows)
    targets = torch.where(histories.items >= 0, (histories.items + 1) % N_ITEMS, -1)
    return replace(histories, targets=targets)


def weight(part: TrainingModule) -> Tensor:
    assert isinstance(part.network, SASRec) and isinstance(part.network.items, ItemEmbedding)
    return part.network.items.weight


def step(part: TrainingModule, optimizer: torch.optim.Optimizer, rows: Batch) -> None:
    """A step as Lightning takes it."""

    def closure() -> Any:
        optimizer.zero_grad()
        loss, _ = part.objective(part.network, rows)
        loss.backward()
        part.on_before_optimizer_step(optimizer)
        part.configure_gradient_clipping(optimizer, part.settings.gradient_clip)
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_are_those_of_a_dense_table(kind: str) -> None:
    """What a sparse gradient holds, summed over repeated rows, is the dense gradient."""
    gradients = []
    for setting in (False, True):
        part = module(LOSSES[kind](), setting)
        part.objective(part.network, batch([1, 2, 3], [3, 4, 5, 6]))[0].backward()
        grad = weight(part).grad
        assert grad is not None and grad.is_sparse is setting
        gradients.append(grad.to_dense() if setting else grad)
    torch.testing.assert_close(*gradients)


def test_steps_equal_dense_ones_where_all_rows_are_touched() -> None:
    """With a gradient in every row lazy Adam is Adam; 5 steps, clipped."""
    tables = []
    for setting in (False, True):
        part = module(SampledSoftmax(negatives=N_ITEMS), setting)  # the whole catalogue is read
        optimizer = part.configure_optimizers()["optimizer"]
        for first in range(5):
            step(part, optimizer, batch([first, first + 7], [first + 20, 3, 2]))
        tables.append(weight(part).detach())
    torch.testing.assert_close(*tables, rtol=1e-4, atol=1e-6)


def test_a_step_changes_the_rows_alone_that_it_read() -> None:
    """Rows without a gradient keep weight and moments to the bit, padding too."""
    part = module(BCE(), True)
    optimizer = part.configure_optimizers()["optimizer"]
    step(part, optimizer, batch([1, 2, 3]))
    before, state = weight(part).detach().clone(), optimizer.state[weight(part)]
    moments = state["exp_avg"].clone()
    step(part, optimizer, batch([10, 11, 12]))
    changed = (weight(part) != before).any(1)
    assert changed[torch.tensor([11, 12, 13])].all() and not changed[0]
    assert changed.sum() <= 3 + 3 + 3  # inputs, targets, negatives
    assert torch.equal(state["exp_avg"][~changed], moments[~changed])


def sparse_step(optimizer: torch.optim.Optimizer, table: nn.Parameter, row: int, value: float) -> None:
    index, values = torch.tensor([[row]]), torch.tensor([[value]])
    table.grad = torch.sparse_coo_tensor(index, values, (len(table), 1), check_invariants=True)
    optimizer.step()


def test_a_row_that_misses_steps_by_hand() -> None:
    """Its moments decay, the bias correction counts all steps, and its step is as long as three of Adam's."""
    table, rate, (beta1, beta2), eps = nn.Parameter(torch.zeros(3, 1)), 0.1, (0.9, 0.99), 1e-8
    optimizer = AdamWithSparseRows([{"params": [table], "weight_decay": 0.0}], lr=rate, betas=(beta1, beta2), eps=eps)
    sparse_step(optimizer, table, 1, 2.0)
    assert float(table.detach()[1]) == pytest.approx(-rate, rel=1e-5)
    for _ in range(2):
        sparse_step(optimizer, table, 2, 1.0)
    sparse_step(optimizer, table, 1, -1.0)
    first = (1 - beta1) * (2.0 * beta1**3 - 1.0) / (1 - beta1**4)
    second = (1 - beta2) * (4.0 * beta2**3 + 1.0) / (1 - beta2**4)
    share = beta1 / beta2**0.5
    expected = -rate - rate * first / (second**0.5 + eps) * (1 + share + share**2)
    assert float(table.detach()[1]) == pytest.approx(expected, rel=1e-5)
    assert float(table.detach()[0]) == 0.0


@pytest.mark.parametrize("gap", [1, 7, 50])
def test_rarely_read_rows_move_as_far_as_dense_ones(gap: int) -> None:
    """Over 2,000 steps with a gradient in every seventh or fiftieth; the first can't know how long the next takes."""
    ways = []
    for kind in (torch.optim.AdamW, AdamWithSparseRows):
        table = nn.Parameter(torch.zeros(2, 1))
        optimizer = kind([{"params": [table], "weight_decay": 0.0}], lr=0.01, betas=(0.9, 0.98))
        generator = torch.Generator().manual_seed(0)
        for number in range(2500):
            if number == 500:
                before = float(table.detach()[1])
            value = float(torch.randn((), generator=generator)) + 0.5 if number % gap == 0 else 0.0
            if kind is AdamWithSparseRows:
                sparse_step(optimizer, table, 1 if number % gap == 0 else 0, value)
            else:
                table.grad = torch.tensor([[0.0], [value]])
                optimizer.step()
        ways.append(float(table.detach()[1]) - before)
    assert ways[1] == pytest.approx(ways[0], rel=1e-4 if gap == 1 else 0.03)


def test_clipping_counts_the_sparse_rows() -> None:
    """The norm is that of all gradients together, a row that is listed twice counted by its sum."""
    table, other = nn.Parameter(torch.zeros(5, 2)), nn.Parameter(torch.zeros(3))
    rows, values = torch.tensor([[1, 1, 4]]), torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    table.grad = torch.sparse_coo_tensor(rows, values, (5, 2), check_invariants=True)
    other.grad = torch.tensor([0.0, 12.0, 0.0])
    clip_gradients([table, other], 1.0)
    assert table.grad.to_dense()[1, 0] == pytest.approx(3 / 13)
    assert table.grad.to_dense()[4, 1] == pytest.approx(4 / 13) and other.grad[1] == pytest.approx(12 / 13)


def test_lazy_average_is_the_average_of_every_step() -> None:
    """Rows that catch up when they are changed end where a dense moving average ends."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    lazy, dense, average = table.clone(), table.clone(), LazyAverage(20)
    for number in range(60):
        decay, rows = min(0.95, (1 + number) / (10 + number)), torch.randint(20, (5,), generator=generator).unique()
        average.catch_up(lazy, table, rows)
        table[rows] += torch.randn(len(rows), 4, generator=generator, dtype=torch.float64)
        average.count(decay)
        dense.lerp_(table, 1 - decay)
    assert not torch.allclose(lazy, dense)
    average.catch_up_all(lazy, table)
    torch.testing.assert_close(lazy, dense, rtol=1e-12, atol=1e-12)


def test_where_it_cannot_be() -> None:
    """A loss over all items needs dense gradients: auto takes them, true is refused, many devices likewise."""
    for loss, devices in ((Softmax(), 1), (SampledSoftmax(), 2)):
        assert not use_sparse_gradients(student(), Objective(loss), "auto", devices)
        with pytest.raises(DeshiError, match="train.sparse_table=true is not possible"):
            use_sparse_gradients(student(), Objective(loss), True, devices)


def test_auto_is_for_large_catalogues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small catalogues keep their results: auto leaves them dense."""
    assert not use_sparse_gradients(student(), Objective(SampledSoftmax()), "auto")
    monkeypatch.setattr(_sparse_table, "MANY_ITEMS", N_ITEMS - 1)
    assert use_sparse_gradients(student(), Objective(SampledSoftmax()), "auto")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of 60 users who walk around a ring of 40 items."""
    folder = tmp_path_factory.mktemp("sparse")
    ring_bundle(folder, 60, N_ITEMS)
    return folder


def config(root: Path, epochs: int, sparse: bool) -> FitConfig:
    values: dict[str, Any] = {
        "data": {"name": "tiny", "source": {"_target_": "deshi.data.sources.tabular.Tabular", "path": "none.csv"}},
        "student": {"_target_": "deshi.models.sasrec.SASRec", "dim": 16, "max_length": 12, "heads": 2},
        "loss": {"_target_": "deshi.losses.sampled_softmax.SampledSoftmax", "negatives": 16, "strategy": "mixed"},
        "paths": {"root": str(root)},
        "train": {
            "max_epochs": epochs, "learning_rate": 0.01, "warmup_steps": 5, "batch_positions": 200, "threads": 1,
            "precision": "fp32", "progress": False, "accelerator": "cpu", "ema_decay": 0.9, "sparse_table": sparse,
        },
    }  # fmt: skip
    return validate(FitConfig, values)


def test_fit_learns_and_resumes_exactly(root: Path) -> None:
    """A whole run with an EMA: the ring is learnt, and a run that was interrupted ends with the same bits."""
    whole = fit.run(config(root, 3, True))
    assert whole.metrics["validation/ndcg@10"] > 0.3
    interrupted = config(root, 3, True)
    calls = []
    original = TrainingModule.on_train_epoch_start

    def stop(self: TrainingModule) -> None:
        calls.append(self.current_epoch)
        if len(calls) == 3:
            raise RuntimeError("stopped")
        original(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(TrainingModule, "on_train_epoch_start", stop)
        fit.run(interrupted)
    resumed = fit.run(interrupted.model_copy(update={"resume": "latest"}))
    assert calls == [0, 1, 2] and resumed.folder != whole.folder
    expected, state = Run(whole.folder).student().state_dict(), Run(resumed.folder).student().state_dict()
    assert all(torch.equal(expected[name], state[name]) for name in expected)


def test_average_of_a_fit_is_that_of_dense_weights(root: Path) -> None:
    """The EMA that a run keeps equals a dense average of the same weights, step by step."""
    part = module(BCE(), True, ema_decay=0.9)
    optimizer = part.configure_optimizers()["optimizer"]
    dense = copy.deepcopy(weight(part)).detach()
    for number in range(6):
        step(part, optimizer, batch([number, number + 9, number + 2]))
        part.on_train_batch_end(None, batch([0]), number)
        decay = min(0.9, 1 / 10)  # no trainer counts steps here
        dense.lerp_(weight(part).detach(), 1 - decay)
    part._finish_average()
    torch.testing.assert_close(part._mean_table(), dense)
    assert F.mse_loss(dense, weight(part)) > 0
