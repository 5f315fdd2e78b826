"""Steps on a GPU: none of them waits for the device, and batches are made ahead of it.

No GPU is needed: tensors of PyTorch's device "meta" have shapes and no numbers, so that whatever must know a number on
the CPU fails, and a dispatch mode refuses copies that wait. Where CUDA exists, its own watch over synchronisation
looks at the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deshi.configuration.schemas import TrainConfig
from deshi.data.datamodule import DataModule
from deshi.data.sequences import Augmentation
from deshi.distillation import (
    CD,
    DE,
    DRO,
    RD,
    RRD,
    Context,
    Distillation,
    DLLM2Rec,
    DLLM2RecReleased,
    EmbeddingMatch,
    ItemTableAdapter,
    ListwiseKL,
    MarginMSE,
    Objective,
    SoftLabelLists,
    Term,
    UnKD,
)  # fmt: skip
from deshi.losses import BCE, GBCE, Loss, SampledSoftmax, Softmax
from deshi.models import HSTU, BSARec, Caser, GRU4Rec, LiGR, SASRec, SequentialRecommender
from deshi.soft_labels import SoftLabels
from deshi.training._preparation import Preparation, Prepared
from deshi.training._sparse_table import distinct_rows
from deshi.training.module import TrainingModule
from deshi.types import PAD, Batch, DeshiError, ScoreKind
from fake_gpu import DEVICE, never_waits
from tiny_bundles import ring_bundle

N, ROWS, K, DIM = 300, 200, 8, 16
LOSSES: dict[str, Callable[[], Loss]] = {
    "softmax": Softmax, "bce": BCE, "gbce": lambda: GBCE(negatives=16),
    "uniform": lambda: SampledSoftmax(32), "popularity": lambda: SampledSoftmax(32, "popularity"),
    "batch": lambda: SampledSoftmax(32, "batch"), "mixed": lambda: SampledSoftmax(32, "mixed"),
}  # fmt: skip
TERMS: dict[str, Callable[[], Term]] = {
    "cd": CD, "cd of the student": lambda: CD(guide="student", labels="ranks"), "de": DE, "dro": DRO, "rd": RD,
    "rrd": lambda: RRD(interesting=4), "dllm2rec": lambda: DLLM2Rec(alpha=0.5), "released": DLLM2RecReleased,
    "listwise": ListwiseKL, "bucket": lambda: ListwiseKL(other_items="bucket", other_share=0.3), "unkd": UnKD,
    "margin": MarginMSE, "items": EmbeddingMatch, "hidden": lambda: EmbeddingMatch(of="hidden", loss="cosine"),
    "infonce": lambda: EmbeddingMatch(loss="infonce"),
}  # fmt: skip
STUDENTS = {"sasrec": SASRec, "gru": GRU4Rec, "caser": Caser, "hstu": HSTU, "ligr": LiGR, "bsarec": BSARec}


def store() -> SoftLabels:
    draw = np.random.default_rng(0)
    items = np.stack([draw.permutation(N)[:K] for _ in range(ROWS)]).astype(np.int32)
    scores = -np.sort(-draw.normal(size=items.shape).astype(np.float32), axis=1)
    items[::3], scores[::3] = PAD, 0
    manifest = {"score_kind": "logit", "k": K, "n_rows": ROWS, "sequences": "bundle"}
    return SoftLabels(Path("none"), manifest, items, scores)


def batch(length: int = 9) -> Batch:
    """Six histories at rows 0, 20, 40 ..., one position of each without a target."""
    draw = np.random.default_rng(1)
    lengths = np.arange(length - 5, length + 1)
    items, targets, rows = (np.full((6, length), PAD, dtype=np.int64) for _ in range(3))
    for number, size in enumerate(lengths):
        items[number, :size] = draw.integers(0, N, size)
        targets[number, : size - 1] = draw.integers(0, N, size - 1)
        rows[number, :size] = 20 * number + np.arange(size)
    return Batch(*(torch.from_numpy(array) for array in (np.arange(6), items, lengths, targets, rows)))


def counts() -> Tensor:
    return torch.arange(N) % 7


def module_of(objective: Objective, network: SequentialRecommender) -> TrainingModule:
    objective.set_counts(counts())
    module = TrainingModule(network, objective, TrainConfig(ema_decay=0.9), 10, 0).train()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    return module


def distillation(loss: Loss, term: Callable[[], Term]) -> Distillation:
    with torch.random.fork_rng(devices=[]):
        built, vectors = term(), torch.randn(N, 12, generator=torch.Generator().manual_seed(2))
        built.prepare(Context(N, DIM, ScoreKind.LOGIT, K, counts(), vectors))
    return Distillation(loss, {"term": built}, SoftLabelLists(ROWS, [store()]), 0.5)


def step(module: TrainingModule, prepared: Prepared, device: torch.device | str) -> None:
    """All of a step but the optimizer's, of which the fake device has no fused one: it waits for nothing."""
    on_cpu, labelled = prepared
    moved = on_cpu.to(device), None if labelled is None else labelled.to(device)
    module.training_step(moved, 0).backward()
    module.configure_gradient_clipping(None, 1.0)  # type: ignore[arg-type]
    module.on_train_batch_end(None, moved, 0)


def check(objective: Objective, network: SequentialRecommender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps on the fake device, and on a GPU where there is one."""
    prepare, module = Preparation(objective, N), module_of(objective, network)
    batches = [prepare(batch()), prepare(batch(12))]
    if torch.cuda.is_available():
        module.to("cuda")
        step(module, batches[0], "cuda")  # caches are filled, kernels loaded
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(module, batches[1], "cuda")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    module.to(DEVICE)
    with never_waits(monkeypatch):
        for prepared in batches:
            step(module, prepared, DEVICE)


@pytest.mark.parametrize("name", STUDENTS)
def test_no_student_waits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of every network, the full softmax, clipping and the average of the weights."""
    kind = STUDENTS[name]
    check(Objective(Softmax()), kind(N, DIM, 20, hidden=12) if kind is GRU4Rec else kind(N, DIM, 20), monkeypatch)


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negatives are drawn on the device, and targets checked before they go there."""
    check(Objective(LOSSES[name]()), SASRec(N, DIM, 20, blocks=1), monkeypatch)


@pytest.mark.parametrize("loss", ["softmax", "gbce", "mixed"])
@pytest.mark.parametrize("name", TERMS)
def test_no_term_waits(name: str, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions and lists are looked up on the CPU, and the logged means stay on the device."""
    check(distillation(LOSSES[loss](), TERMS[name]), SASRec(N, DIM, 20, blocks=1), monkeypatch)


def test_no_item_table_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table made of the teacher's vectors adapts each item once, without counting the distinct ones."""
    network = SASRec(N, DIM, 20, blocks=1)
    network.items = ItemTableAdapter(N, DIM, torch.randn(N, 12), dropout=0.1)
    check(distillation(Softmax(), ListwiseKL), network, monkeypatch)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(), lambda x: bool((x > 0).any()), lambda x: x[x > 0], lambda x: x.nonzero(),
        lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x.long().unique(), lambda x: x + torch.ones(3).to(x.device),
        lambda x: x[torch.tensor([0, 2])], lambda x: x * torch.tensor([1.0, 2.0, 3.0], device=x.device),
        lambda x: x.repeat_interleave(x.long()), lambda x: torch.where(x > 0), lambda x: x.masked_select(x > 0),
    ],
)  # fmt: skip
def test_waiting_is_noticed(wait: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake device fails on every way to wait for a real one, or the tests above would say nothing."""
    with never_waits(monkeypatch), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        wait(torch.empty(3, device=DEVICE))


def test_sums_of_sparse_rows_are_those_of_coalesce(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU keeps as many rows as were read; the sums are the CPU's, and the rows left over change nothing."""
    generator = torch.Generator().manual_seed(0)
    rows, values = torch.randint(1, 9, (30,), generator=generator), torch.randn(30, 4, generator=generator)
    distinct, sums = distinct_rows(rows, values)
    expected = torch.sparse_coo_tensor(rows[None], values, (9, 4), check_invariants=False)
    assert len(distinct) == 30 and len(distinct.unique()) == len(rows.unique()) + 1
    assert not sums[distinct == 0].any()
    torch.testing.assert_close(torch.zeros(9, 4).index_add_(0, distinct, sums), expected.to_dense())
    with never_waits(monkeypatch):
        distinct_rows(torch.empty(30, dtype=torch.long, device=DEVICE), torch.empty(30, 4, device=DEVICE))


def test_batches_are_made_ahead_as_they_are_made_here(tmp_path: Path) -> None:
    """A further process gives the same batches with the same look-ups in the same order, and leaves random numbers."""
    bundle = ring_bundle(tmp_path, 40)
    ends = np.asarray(bundle.offsets[1:]) - 2
    starts = np.asarray(bundle.offsets[:-1])
    objective = Distillation(Softmax(), {}, SoftLabelLists(bundle.n_interactions, [store()]))
    epochs = []
    before = torch.random.get_rng_state()
    for ahead in (False, True):
        augmented = Augmentation(item_drop=0.3)
        data = DataModule(bundle, starts, ends, None, 6, 40, 8, "all", augmented, (8, True), 3)
        data.prepare_batches(Preparation(objective, bundle.n_items), ahead)
        epochs.append(list(data.train_dataloader()))
    assert len(epochs[0]) == len(epochs[1]) > 1
    for (here, here_labelled), (there, there_labelled) in zip(*epochs, strict=True):
        for name in ("items", "targets", "rows", "lengths", "target_positions"):
            assert torch.equal(getattr(here, name), getattr(there, name))
        assert torch.equal(here_labelled.positions, there_labelled.positions)
        assert torch.equal(here_labelled.soft_labels.items, there_labelled.soft_labels.items)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("name", "value"), [("items", N), ("targets", N), ("items", -2), ("targets", -2)])
def test_wrong_batches_are_refused_before_they_go_to_a_device(name: str, value: int) -> None:
    """A GPU would end the process with an assertion of its own, far from the cause."""
    wrong = batch()
    getattr(wrong, name)[0, 0] = value
    with pytest.raises(DeshiError, match=str(value)):
        Preparation(Objective(Softmax()), N)(wrong)
