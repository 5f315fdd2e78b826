"""The stage fit: what it leaves behind, that it repeats itself, resumes exactly and refuses what it should."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from deshi import hardware
from deshi.configuration.run_folders import load_config
from deshi.configuration.schemas import FitConfig
from deshi.configuration.validation import validate
from deshi.data.splits import LeakWarning
from deshi.hardware import choose_precision
from deshi.models.layers import Dropout
from deshi.runs import Run, load_weights, save_weights
from deshi.training import _precision, fit
from deshi.training._callbacks import InterruptBetweenSteps
from deshi.training.checkpoint import load_tree, save_tree
from deshi.training.module import TrainingModule
from deshi.training.trainer import target_counts
from deshi.types import DeshiError
from tiny_bundles import ring_bundle, tiny_bundle

SASREC = {"_target_": "deshi.models.sasrec.SASRec", "dim": 16, "max_length": 12, "heads": 2}
SOFTMAX = {"_target_": "deshi.losses.softmax.Softmax"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of 60 users who walk around a ring of 30 items."""
    folder = tmp_path_factory.mktemp("fit")
    ring_bundle(folder, 60)
    return folder


def config(root: Path, train: dict[str, Any] | None = None, **other: Any) -> FitConfig:
    values: dict[str, Any] = {
        "data": {"name": "tiny", "source": {"_target_": "deshi.data.sources.tabular.Tabular", "path": "none.csv"}},
        "student": SASREC,
        "loss": SOFTMAX,
        "paths": {"root": str(root)},
        "train": {
            "max_epochs": 4, "learning_rate": 0.01, "warmup_steps": 5, "batch_positions": 200, "threads": 1,
            "precision": "fp32", "progress": False, "accelerator": "cpu", "augment": {"item_drop": 0.1},
        } | (train or {}),
    }  # fmt: skip
    return validate(FitConfig, values | other)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    student = Run(folder).student()
    return student.state_dict()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def curve(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "epochs.csv").drop("seconds")


def test_validation_on_a_sample_of_users(root: Path) -> None:
    """Millions of users can't all be ranked after each epoch; the record says how many were."""
    run = fit.run(config(root, {"max_epochs": 1}, eval={"max_validation_users": 7}, name="sampled"))
    assert run.record["validation_examples"] == 7
    assert run.metrics["validation/hr@10"] * 7 == pytest.approx(round(run.metrics["validation/hr@10"] * 7))
    assert "validation_examples" not in fit.run(config(root, {"max_epochs": 1}, name="whole")).record


def test_a_run_learns_and_leaves_its_artifacts(root: Path) -> None:
    """A ring is easy: NDCG@10 gets well above chance, and every promised file is there and says what was done."""
    result = fit.run(config(root, {"max_epochs": 12}))
    assert result.metrics["validation/ndcg@10"] > 0.6
    for name in ("config.yaml", "overrides.yaml", "environment.json", "metrics.json", "time.json", "log.txt"):
        assert (result.folder / name).is_file()
    assert list((result.folder / "tensorboard").rglob("events.*"))
    record = json.loads((result.folder / "run.json").read_text())
    assert record["trained_epochs"] == 12 and record["selected_epoch"] == result.epochs
    assert json.loads((result.folder / "time.json").read_text())["student_baseline_train_time"] > 0
    epochs = curve(result.folder)
    assert epochs["epoch"].to_list() == list(range(1, 13))
    assert epochs["train/loss_epoch"][-1] < epochs["train/loss_epoch"][0]
    assert epochs["validation/ndcg@10"].max() == pytest.approx(result.metrics["validation/ndcg@10"])


def test_max_epochs_is_obeyed(root: Path) -> None:
    """Three epochs asked for are three epochs trained."""
    assert curve(fit.run(config(root, {"max_epochs": 3})).folder).height == 3


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(root: Path) -> None:
    """Initial weights, batches, augmentation and dropout all follow the seed, whatever the global generator does."""
    first = weights(fit.run(config(root, seed=5)).folder)
    torch.manual_seed(99)
    assert same(first, weights(fit.run(config(root, seed=5)).folder))
    assert not same(first, weights(fit.run(config(root, seed=6)).folder))


@pytest.mark.parametrize("loss", ["softmax.Softmax", "sampled_softmax.SampledSoftmax"])
def test_an_interrupted_run_resumes_to_the_same_weights(root: Path, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    """Interrupted inside the third epoch and resumed, a run ends with the uninterrupted run's weights and curve."""
    settings = {"ema_decay": 0.9, "schedule": "cosine"}
    node = {"_target_": f"deshi.losses.{loss}"}
    whole = fit.run(config(root, settings, loss=node)).folder
    step = TrainingModule.training_step

    def interrupted(self: TrainingModule, batch: Any, batch_index: int) -> torch.Tensor:
        if self.current_epoch == 2 and batch_index == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt, match="deshi fit resume="):
            fit.run(config(root, settings, loss=node, name="cut"))
    cut = max((root / "runs" / "fit").glob("*_cut*"))
    with pytest.raises(DeshiError, match="isn't finished"):
        Run(cut).student()
    result = fit.run(config(root, resume=str(cut)))
    assert result.folder == cut
    assert same(weights(whole), weights(cut))
    assert curve(whole).equals(curve(cut))
    finished = (cut / "metrics.json").stat().st_mtime_ns
    assert fit.run(config(root, resume=str(cut))).folder == cut
    assert (cut / "metrics.json").stat().st_mtime_ns == finished, "a complete run is left as it is"


@pytest.mark.parametrize("last", [False, True])
def test_ctrl_c_ends_a_training_between_two_steps(
    root: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, last: bool
) -> None:
    """Inside a step, a logger or a checkpoint it could keep a lock for ever; at the end it isn't forgotten."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells in the background have it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    settings = {"refit": True}  # the refit's last step is followed by nothing
    whole, step, steps = fit.run(config(root, settings)).folder, TrainingModule.training_step, list[int]()

    def pressed(self: TrainingModule, batch: Any, batch_index: int) -> torch.Tensor:
        is_end = self.trainer.limit_val_batches == 0 and self.trainer.is_last_batch
        if (is_end and self.current_epoch + 1 == self.trainer.max_epochs) if last else len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        steps.append(batch_index)
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", pressed)
        with pytest.raises(KeyboardInterrupt, match="deshi fit resume="):
            fit.run(config(root, settings, name="pressed"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert last or len(steps) == 4, "the step in which it came was finished, and none begun"
    cut = max((root / "runs" / "fit").glob("*_pressed*"))
    assert same(weights(whole), weights(fit.run(config(root, resume=str(cut))).folder))


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    """A step of a language model may take long."""
    interrupt = InterruptBetweenSteps()
    interrupt.handle()
    with pytest.raises(KeyboardInterrupt):
        interrupt.handle()


def test_an_interrupted_refit_resumes_to_the_same_weights(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut in the refit, the run goes on with the refit: the selection isn't trained again."""
    settings = {"max_epochs": 3, "refit": True}
    whole = fit.run(config(root, settings)).folder
    step, calls = TrainingModule.training_step, []

    def interrupted(self: TrainingModule, batch: Any, batch_index: int) -> torch.Tensor:
        if self.trainer.limit_val_batches == 0 and self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    def counted(self: TrainingModule, batch: Any, batch_index: int) -> torch.Tensor:
        calls.append(self.trainer.limit_val_batches)
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit.run(config(root, settings, name="refit"))
    cut = max((root / "runs" / "fit").glob("*_refit*"))
    monkeypatch.setattr(TrainingModule, "training_step", counted)
    fit.run(config(root, resume=str(cut)))
    assert calls and set(calls) == {0}
    assert same(weights(whole), weights(cut))


def test_refit_trains_on_the_validation_events_for_the_selected_epochs(root: Path) -> None:
    """After the selection, a fresh student sees one more target a user, for as many epochs as were selected."""
    result = fit.run(config(root, {"refit": True, "max_epochs": 5, "augment": {}}))
    refit = pl.read_csv(result.folder / "epochs-refit.csv")
    assert refit.height == result.epochs
    users = 60
    assert refit["train/positions"][0] == curve(result.folder)["train/positions"][0] + users


def test_training_on_the_validation_targets_is_named_a_leak(root: Path) -> None:
    """The option exists to reproduce other programs; it warns and adds a target a user."""
    plain = fit.run(config(root, {"max_epochs": 1, "augment": {}}))
    with pytest.warns(LeakWarning, match="LEAK"):
        leaky = fit.run(config(root, {"max_epochs": 1, "augment": {}, "train_targets": "including_validation"}))
    gained = curve(leaky.folder)["train/positions"][0] - curve(plain.folder)["train/positions"][0]
    assert gained == 60
    assert "LEAK" in (leaky.folder / "log.txt").read_text()


def test_resuming_on_other_data_is_refused(tmp_path: Path) -> None:
    """A run whose bundle has changed meanwhile can't go on: both fingerprints are named."""
    tiny_bundle(tmp_path / "data", [[0, 1, 2, 3, 4], [2, 3, 4, 0, 1]])
    folder = fit.run(config(tmp_path, {"max_epochs": 1})).folder
    (folder / "metrics.json").unlink()
    tiny_bundle(tmp_path / "data", [[4, 3, 2, 1, 0], [2, 3, 4, 0, 1]])
    with pytest.raises(DeshiError, match="was made on data"):
        fit.run(config(tmp_path, resume=str(folder)))


def test_bf16_trains_too(root: Path) -> None:
    """Mixed precision with clipping and averaging learns the ring as fp32 does."""
    result = fit.run(config(root, {"max_epochs": 12, "precision": "bf16", "ema_decay": 0.5}))
    assert result.metrics["validation/ndcg@10"] > 0.6
    assert json.loads((result.folder / "run.json").read_text())["precision"] == "bf16-mixed"


def test_a_missing_bundle_names_the_command_that_makes_it(tmp_path: Path) -> None:
    """No data: the error says how to prepare them."""
    with pytest.raises(DeshiError, match="deshi prepare data=tiny"):
        fit.run(config(tmp_path))


def test_a_diverging_loss_stops_with_advice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN loss ends the run at the epoch's end and says what to change."""
    step = TrainingModule.training_step
    monkeypatch.setattr(TrainingModule, "training_step", lambda self, *args: step(self, *args) * float("nan"))
    with pytest.raises(DeshiError, match=r"learning_rate|scores are NaN"):
        fit.run(config(root, {"gradient_clip": None}))


def test_target_counts_leave_out_each_range_s_first_event(tmp_path: Path) -> None:
    """Counts for the sampled losses: written out for two users, the second with a single training event."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 1, 2, 3], [2, 0, 1]], n_items=5)
    starts, ends = np.array([0, 5]), np.array([3, 6])
    assert target_counts(bundle, starts, ends).tolist() == [0, 2, 0, 0, 0]


def test_checkpoints_hold_any_nesting_and_refuse_other_objects(tmp_path: Path) -> None:
    """Dicts with integer keys, tuples, tensors and infinities survive; an object that JSON can't hold is named."""
    tree = {"a": [1, 2.5, None, True, float("inf")], 3: ("x", torch.arange(4)), "t": torch.tensor(2.0), "e": {}}
    path = tmp_path / "tree.ckpt"
    save_tree(tree, path)
    back = load_tree(path)
    assert back["a"] == tree["a"] and back[3][0] == "x" and back["t"] == 2 and back["e"] == {}
    assert torch.equal(back[3][1], torch.arange(4))
    with pytest.raises(DeshiError, match="checkpoint.bad is a .*Path"):
        save_tree({"bad": tmp_path}, path)
    assert load_tree(path)["t"] == 2


def test_damaged_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    """A broken file, a missing file and weights of another network each say what is wrong."""
    path = tmp_path / "model.safetensors"
    save_weights(torch.nn.Linear(2, 2), path)
    with pytest.raises(DeshiError, match="doesn't fit the Linear"):
        load_weights(torch.nn.Linear(3, 3), path)
    with pytest.raises(DeshiError, match="no deshi checkpoint"):
        load_tree(path)
    path.write_bytes(b"broken")
    for load in (lambda: load_weights(torch.nn.Linear(2, 2), path), lambda: load_tree(path)):
        with pytest.raises(DeshiError, match="model.safetensors"):
            load()
    with pytest.raises(DeshiError, match="can't be read"):
        load_tree(tmp_path / "none.ckpt")


def test_dropout_keeps_the_mean_and_repeats_after_reseeding() -> None:
    """The byte-wise dropout zeroes its share, scales the rest so that the mean stays, and follows its seed."""
    layer = Dropout(0.3).train()
    x = torch.ones(400, 500)
    layer.reseed([1, 2])
    first = layer(x)
    layer.reseed([1, 2])
    assert torch.equal(first, layer(x))
    assert not torch.equal(first, layer(x))
    assert (first == 0).float().mean() == pytest.approx(77 / 256, abs=0.005)
    assert first.mean() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(layer.eval()(x), x)


def test_a_run_measures_its_precision_once(root: Path) -> None:
    """A resumed run that chose anew, on a busier machine, would not end with the same weights."""
    folder = fit.run(config(root, {"max_epochs": 1, "precision": "auto"})).folder
    saved = load_config(folder, FitConfig).train.precision
    assert saved in ("fp32", "bf16")
    assert json.loads((folder / "run.json").read_text())["precision"].startswith({"fp32": "32", "bf16": "bf16"}[saved])


@pytest.mark.parametrize(("bf16_seconds", "chosen"), [(2.0, "fp32"), (0.95, "fp32"), (0.5, "bf16")])
def test_auto_times_the_steps_of_the_student(
    root: Path, monkeypatch: pytest.MonkeyPatch, bf16_seconds: float, chosen: str
) -> None:
    """Large products are faster in bf16 where a small student's steps take twice as long in it; weights stay those."""
    monkeypatch.setattr(hardware, "_seconds", lambda dtype, *_: 0.5 if dtype == torch.bfloat16 else 1.0)
    step, formats = _precision._seconds, []

    def seconds(module: Any, optimizer: Any, batch: Any, bf16: bool) -> float:
        assert step(module, optimizer, batch, bf16) > 0
        formats.append(bf16)
        return bf16_seconds if bf16 else 1.0

    monkeypatch.setattr(_precision, "_seconds", seconds)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    result = fit.run(config(root, {"max_epochs": 1, "precision": "auto"}))
    assert torch.equal(torch.get_rng_state(), state)
    assert formats == [True, False] * 11
    assert load_config(result.folder, FitConfig).train.precision == chosen
    assert same(weights(result.folder), weights(fit.run(config(root, {"max_epochs": 1, "precision": chosen})).folder))


def test_a_run_records_the_threads_that_it_measured(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run with another number of threads would not end with the same weights."""
    monkeypatch.setattr(fit, "set_threads", lambda threads, processes=1: threads or 1)
    folder = fit.run(config(root, {"max_epochs": 1, "threads": None})).folder
    assert load_config(folder, FitConfig).train.threads == 1


def test_precision_is_taken_as_asked_and_measured_on_auto() -> None:
    """An explicit format is obeyed; auto answers with one of the two."""
    cpu = torch.device("cpu")
    assert choose_precision("bf16", cpu) == "bf16" and choose_precision("fp32", cpu) == "fp32"
    assert choose_precision("auto", cpu) in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("share", "chosen", "measured"),
    [(60.0, "fp32", {64}), (1.5, "fp32", {64, 512}), (0.9, "fp32", {64, 512}), (0.5, "bf16", {64, 512})],
)
def test_slow_bf16_is_ruled_out_by_a_small_product(
    share: float, chosen: str, measured: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bf16 instructions every training would wait for full products that take many times as long."""
    rows_seen = set()

    def seconds(dtype: torch.dtype, rows: int, inner: int, columns: int) -> float:
        rows_seen.add(rows)
        return share if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(hardware, "_seconds", seconds)
    assert choose_precision("auto", torch.device("cpu")) == chosen
    assert rows_seen == measured


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x"), RuntimeError("of a library")])
def test_a_training_that_fails_before_its_first_checkpoint_leaves_no_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Half a folder would look like a run that can be gone on with."""

    def fail(*_: Any) -> None:
        raise error

    before = set((root / "runs" / "fit").glob("*"))
    monkeypatch.setattr(fit, "train_run", fail)
    with pytest.raises(type(error)):
        fit.run(config(root))
    assert set((root / "runs" / "fit").glob("*")) == before
