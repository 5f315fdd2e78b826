"""The refit of an earlier run: trained on training and validation events for the epochs that the run selected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import deshi
from cut_trainings import cut_in_second_epoch
from deshi.artifacts import read_json
from deshi.configuration.targets import ConfigError
from deshi.data.bundle import Bundle
from deshi.runs import Run
from deshi.soft_labels import SoftLabels
from deshi.types import DeshiError
from tiny_movielens import SMALL

TRAIN = tuple(word for word in SMALL if word.startswith("train."))
WIDE = ("teacher=sasrec", "teacher.dim=16", "teacher.max_length=10")
SCHEDULE = (
    "train.schedule=cosine", "train.max_epochs=12", "train.patience=2", "train.learning_rate=0.2",
    "train.warmup_steps=2",
)  # fmt: skip
"""A training whose best epoch isn't its last: a schedule over the selected epochs would give other weights."""


def fit(root: Path, config_dir: Path, *words: str) -> Run:
    return deshi.fit(f"paths.root={root}", *SMALL, *words, config_dir=config_dir, data="tiny")


def teach(root: Path, config_dir: Path, *words: str) -> Run:
    return deshi.teach(f"paths.root={root}", *TRAIN, *words, config_dir=config_dir, data="tiny")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.network().state_dict()


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def test_a_refit_of_a_run_is_the_second_half_of_a_run_with_its_refit(finished_root: Path, config_dir: Path) -> None:
    """The same student by both ways, bit for bit; one run selects, the other has no figure that means nothing."""
    both = fit(finished_root, config_dir, *SCHEDULE, "train.refit=true")
    selected = fit(finished_root, config_dir, *SCHEDULE, "name=selected")
    refitted = fit(finished_root, config_dir, *SCHEDULE, "train.refit=selected")
    assert same(weights(refitted), weights(both)) and not same(weights(refitted), weights(selected))
    assert refitted.epochs == selected.epochs < pl.read_csv(selected.folder / "epochs.csv").height
    assert refitted.metrics == {} and refitted.finished and refitted.record["refit"] == selected.name
    assert refitted.config.train.refit == selected.name, "a name is made exact: the newest is another one tomorrow"
    curve, second = pl.read_csv(refitted.folder / "epochs.csv"), pl.read_csv(both.folder / "epochs-refit.csv")
    assert curve.drop("seconds").equals(second.drop("seconds"))
    assert "refitted on training and validation events" in " ".join(str(refitted).split())
    assert same(refitted.selected_student().state_dict(), weights(selected))


def test_an_interrupted_refit_of_a_run_goes_on(
    finished_root: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its last epoch, to the weights of an uninterrupted one."""
    assert fit(finished_root, config_dir, *SCHEDULE, "name=selected").epochs > 2
    words = [*SCHEDULE, "train.refit=selected"]
    whole = fit(finished_root, config_dir, *words, "name=whole")
    with cut_in_second_epoch(monkeypatch):
        fit(finished_root, config_dir, *words, "name=cut")
    again = deshi.fit(f"paths.root={finished_root}", resume="cut")
    assert same(weights(again), weights(whole)) and again.metrics == {}


def test_what_is_no_refit_of_a_run_is_refused(finished_root: Path, config_dir: Path) -> None:
    """Epochs that were selected for another model, on other data or by trained events say nothing about this one."""
    fit(finished_root, config_dir, "train.refit=tiny_seed0", "name=refitted")
    fit(finished_root, config_dir, "train.train_targets=including_validation", "name=leaky")
    teach(finished_root, config_dir, *WIDE, "cross_fit=2", "name=folds")
    before = sorted((finished_root / "runs").glob("*/*"))
    for words, message in (
        (["train.refit=refitted"], r"was refitted itself.*train.refit=\S+_tiny_seed0"),
        (["train.refit=leaky"], "selected its epochs on events that it was trained on"),
        (["train.refit=tiny_seed0", "student.dim=8"], r"student.dim is 16, but 8 here"),
        (["train.refit=tiny_seed0", "split=ratio"], "split._target_ is deshi.data.splits.LeaveOneOut, but deshi"),
        (["train.refit=tiny_seed0", "train.max_epochs=3"], "train.max_epochs is 2, but 3 here"),
        (["train.refit=absent"], "No run 'absent'"),
    ):
        with pytest.raises(DeshiError, match=message):
            fit(finished_root, config_dir, *words)
    with pytest.raises(DeshiError, match="holds 2 networks of parts of the users"):
        teach(finished_root, config_dir, *WIDE, "train.refit=folds")
    with pytest.raises(ConfigError, match="cross_fit=2 makes teachers of parts of the users"):
        teach(finished_root, config_dir, *WIDE, "train.refit=folds", "cross_fit=2")
    assert sorted((finished_root / "runs").glob("*/*")) == before, "a refused run leaves nothing"


def test_other_data_are_refused(finished_root: Path, config_dir: Path) -> None:
    """A run of the same keys on other events selected for those."""
    root = f"paths.root={finished_root}"
    deshi.prepare(root, "data.filters.min_rating=2", "data.name=other", config_dir=config_dir, data="tiny")
    with pytest.raises(DeshiError, match="was made on data with fingerprint"):
        fit(finished_root, config_dir, "train.refit=tiny_seed0", "data.name=other")


def test_teachers_are_refitted(finished_root: Path, config_dir: Path) -> None:
    """A network trains anew; an ensemble keeps the weights that validation chose, for members that are refits."""
    wide = teach(finished_root, config_dir, *WIDE, "name=wide")
    members = "teacher.members=[{},{}]".format
    both = teach(finished_root, config_dir, "teacher=ensemble", members("tiny_seed0", "wide"), "name=both")
    plain = fit(finished_root, config_dir, "train.refit=tiny_seed0", "name=plain-refit")
    teacher = teach(finished_root, config_dir, *WIDE, "train.refit=wide", "name=wide-refit")
    assert not same(weights(teacher), weights(wide)) and teacher.metrics == {}
    words = ["teacher=ensemble", "train.refit=both"]
    refitted = teach(finished_root, config_dir, *words, members(plain.name, teacher.name))
    assert read_json(refitted.folder / "teacher.json") == {
        "members": [plain.name, teacher.name],
        "weights": read_json(both.folder / "teacher.json")["weights"],
    }
    assert refitted.metrics == {} and refitted.record["refit"] == both.name
    for given, message in (
        ([*words, members("tiny_seed0", teacher.name)], "which is no refit of it"),
        ([*words, members(teacher.name, plain.name)], "which is no refit of it"),
        ([*words, f"teacher.members=[{plain.name},{teacher.name},wide]"], "expected their 2 refits, got 3"),
        (["teacher=ensemble", "train.refit=true", members("tiny_seed0", "wide")], "Run it without first"),
    ):
        with pytest.raises(DeshiError, match=message):
            teach(finished_root, config_dir, *given)


def test_refitted_counts_have_the_settings_that_validation_chose(finished_root: Path, config_dir: Path) -> None:
    """Counted anew with the validation events: the pairs of those are in, and nothing is searched again."""
    selected = teach(finished_root, config_dir, "teacher=pairwise", "name=counts")
    refitted = teach(finished_root, config_dir, "teacher=pairwise", "train.refit=counts")
    settings = read_json(selected.folder / "teacher.json")["settings"]
    assert read_json(refitted.folder / "teacher.json") == {"settings": settings}
    events = [len(run.scorer().counts.events.items) for run in (selected, refitted)]  # type: ignore[attr-defined]
    assert events[1] == events[0] + 60


def label(root: Path, run: str, store: str, *words: str) -> SoftLabels:
    return deshi.label(f"paths.root={root}", *words, run=run, store=store, k=5).soft_labels


def distil(root: Path, config_dir: Path, *words: str) -> Run:
    return deshi.distill(f"paths.root={root}", *SMALL, *words, config_dir=config_dir, data="tiny")


def test_a_refitted_teacher_labels_what_it_was_trained_on(finished_root: Path, config_dir: Path) -> None:
    """Its training positions reach up to the validation event, and only the test event is held out."""
    fit(finished_root, config_dir, "train.refit=tiny_seed0", "name=refitted")
    bundle = Bundle.load(finished_root / "data" / "tiny")
    last = np.asarray(bundle.offsets[1:]) - 1  # the test event, after which nothing came
    for rule, covered in (("train", 12), ("train+held_out", 13), ("held_out", 1)):
        rows = np.flatnonzero(label(finished_root, "refitted", rule, f"positions={rule}").covered)
        assert np.bincount(np.searchsorted(last, rows)).tolist() == [covered] * 60
        assert np.isin(last - 2, rows).all() == (rule != "held_out"), "the validation event comes next"
    with pytest.raises(DeshiError, match="positions=validation chooses none"):
        label(finished_root, "refitted", "none", "positions=validation")
    augmented = label(finished_root, "refitted", "altered", "augment.item_drop=0.3", "positions=train")
    sources = np.asarray(augmented.histories(bundle).sources)
    assert np.isin(last - 1, sources).all() and not np.isin(last, sources).any()
    inspection = deshi.inspect_labels(f"paths.root={finished_root}", store="train+held_out")
    parts = {part.name: part for part in inspection.parts}
    assert (parts["train"].rows, parts["validation"].positions, parts["test"].rows) == (720, 0, 60)


def test_a_student_is_refitted_on_the_lists_of_a_refitted_teacher(
    finished_root: Path, config_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Labels are written anew for the refit; lists that end before the validation events are no labels for it."""
    label(finished_root, "tiny_seed0", "lists")
    label(finished_root, "tiny_seed0", "early", "positions=train")
    fit(finished_root, config_dir, "train.refit=tiny_seed0", "name=refitted")
    label(finished_root, "refitted", "anew")
    selected = distil(finished_root, config_dir, "soft_labels=[lists]", "name=pupil")
    refitted = distil(finished_root, config_dir, "soft_labels=[anew]", "train.refit=pupil")
    assert (selected.record["distilled"], refitted.record["distilled"]) == (660, 720)
    assert "lists of up to 5 at 720 of 720 training positions" in (refitted.folder / "log.txt").read_text()
    assert refitted.metrics == {} and not same(weights(refitted), weights(selected))
    with pytest.raises(DeshiError, match="which the student is selected on.*learns from these lists with train.refit"):
        distil(finished_root, config_dir, "soft_labels=[anew]")
    with pytest.raises(DeshiError, match="no list at the events that are followed by a validation event"):
        distil(finished_root, config_dir, "soft_labels=[early]", "train.refit=pupil")
    caplog.clear()
    distil(finished_root, config_dir, "soft_labels=[lists]", "train.refit=pupil")
    assert "was not refitted: its lists don't know the validation events" in caplog.text


def test_a_refitted_run_goes_through_the_other_commands(finished_root: Path, config_dir: Path) -> None:
    """Each says that it was refitted, and none shows a validation figure of it."""
    root = f"paths.root={finished_root}"
    run = fit(finished_root, config_dir, "train.refit=tiny_seed0", "name=refitted")
    result = deshi.evaluate(root, run="refitted", part="both", with_baselines=True)
    assert {name.split("/")[0] for name in [*result.metrics, *result.baselines["popularity"]]} == {"test"}
    assert any(note.startswith("Refitted: the model and the baselines") for note in result.notes)
    assert not any("LEAK" in warning for warning in result.warnings)
    with pytest.raises(DeshiError, match=r"would mean nothing. Use part=test; .* is in the run \S+_tiny_seed0"):
        deshi.evaluate(root, run="refitted", part="validation")
    alone = deshi.compare(root, runs=["refitted"])
    assert [model.name for model in alone.comparison.models] == ["refitted sasrec"]
    assert not any("Two protocols" in warning for warning in alone.comparison.warnings)
    mixed = deshi.compare(root, runs=["refitted", "tiny_seed0"])
    assert "Two protocols: refitted sasrec learnt the validation events" in mixed.comparison.warnings[0]
    with pytest.raises(DeshiError, match="validation is asked for: its model was refitted"):
        deshi.compare(root, runs=["refitted"], part="validation")
    page = deshi.report(root, runs=["refitted", "tiny_seed0"]).page.read_text(encoding="utf-8")
    assert "Two protocols" in page and "Refitted, so without a validation figure" in page
    gap = {each.name: each for each in deshi.gap(root, run="refitted", samples=100).counterfactuals}
    assert gap["refit on training and validation"].test.mean == pytest.approx(result.metrics["test/ndcg@10"], abs=1e-6)
    audit = deshi.audit(root, run="refitted")
    assert [finding.name for finding in audit.findings if finding.severity == "error"] == []
    card = (deshi.export(root, run="refitted").folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "refitted: trained on training and validation together" in card and str(run.config.train.refit) in card


def test_seeds_of_a_refit_are_one_model(finished_root: Path, config_dir: Path) -> None:
    """The runs that selected differ by seed, and by nothing that makes another model."""
    for seed in (0, 1):
        fit(finished_root, config_dir, f"train.refit=tiny_seed{seed}", f"seed={seed}", f"name=refit{seed}")
        deshi.evaluate(f"paths.root={finished_root}", run=f"refit{seed}")
    models = deshi.compare(f"paths.root={finished_root}", runs=["refit0", "refit1"]).comparison.models
    assert [(model.name, model.seeds) for model in models if not model.is_baseline] == [("refitted sasrec", (0, 1))]
