"""The stage distill: from a store to an evaluated student, exact resumption, and stores that must not teach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import deshi
from cut_trainings import cut_in_second_epoch
from deshi.artifacts import read_json, write_json
from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from deshi.models.item_table import ItemEmbedding
from deshi.runs import Run
from deshi.soft_labels import Histories, choose_rows, write_lists
from deshi.types import DeshiError, ScoreKind
from tiny_movielens import SMALL

ADDED = "distill.item_table={_target_: deshi.distillation.item_tables.ItemTableAdapter, hidden: null}"


@pytest.fixture
def root(finished_root: Path) -> Path:
    """Tiny data, two finished students, and what the first one knows: ``lists``."""
    deshi.label(f"paths.root={finished_root}", run="tiny_seed0", k=10, store="lists")
    return finished_root


def distil(root: Path, config_dir: Path, *words: str, name: str = "pupil") -> Any:
    given = [f"paths.root={root}", *SMALL, "soft_labels=[lists]", f"name={name}", *words]
    return deshi.distill(*given, config_dir=config_dir, data="tiny")


def test_a_student_is_distilled_and_evaluated(root: Path, config_dir: Path) -> None:
    """By the commands a user types; the record says from whom, and the other stages take the run as any other."""
    run = distil(root, config_dir)
    record, seconds = read_json(run.folder / "run.json"), read_json(run.folder / "time.json")
    assert record["stage"] == "distill" and "distill_student_train_time" in seconds
    (known,) = record["soft_labels"]
    assert known["store"] == "lists" and known["teacher"]["run"].endswith("tiny_seed0") and known["coverage"]["rows"]
    bundle = Bundle.load(root / "data" / "tiny")
    positions = len(choose_rows("train", bundle, LeaveOneOut()(bundle)))
    assert record["distilled"] == positions, "held-out rows of the store are never taught"
    assert f"{positions} of {positions} training positions" in (run.folder / "log.txt").read_text()
    curve = pl.read_csv(run.folder / "epochs.csv")
    assert {"distill/loss", "distill/kl"} <= set(curve.columns) and curve["distill/kl"].is_not_nan().all()
    result = deshi.evaluate(f"paths.root={root}", run="pupil", part="both")
    assert result.metrics["validation/ndcg@10"] == pytest.approx(run.metrics["validation/ndcg@10"], abs=1e-6)


def test_a_distilled_student_begins_with_an_older_run(root: Path, config_dir: Path) -> None:
    """Nightly work distils yesterday's student further: without a step its figures are the older run's."""
    run = distil(root, config_dir, "train.start_from=tiny_seed1", "train.learning_rate=1e-12", "train.max_epochs=1")
    older = Run.open("tiny_seed1", run.paths)
    assert run.record["start_from"] == {"run": older.name, "items": run.record["n_items"], "new_items": 0}
    assert run.metrics["validation/ndcg@10"] == pytest.approx(older.metrics["validation/ndcg@10"], abs=1e-6)


def test_a_table_of_the_teachers_vectors_is_merged_away(root: Path, config_dir: Path) -> None:
    """Inference needs no teacher: the run holds a plain student that scores as the trained one was validated."""
    run = distil(root, config_dir, ADDED)
    student = Run(run.folder).student()
    assert type(student.items) is ItemEmbedding
    plain = Run(next((root / "runs" / "fit").glob("*_tiny_seed0"))).student()
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (student, plain)]
    assert shapes[0] == shapes[1]
    result = deshi.evaluate(f"paths.root={root}", run="pupil", part="validation")
    assert result.metrics["validation/ndcg@10"] == pytest.approx(run.metrics["validation/ndcg@10"], abs=1e-6)


def test_states_learn_the_profiles_of_users(root: Path, config_dir: Path, tmp_path: Path) -> None:
    """Vectors of users go along with the lists; the student that is saved has nothing of them."""
    bundle, path = Bundle.load(root / "data" / "tiny"), tmp_path / "profiles.parquet"
    vectors = np.random.default_rng(0).normal(size=(bundle.n_users - 1, 5)).tolist()
    pl.DataFrame({"user_id": bundle.users["user_id"][1:], "profile": vectors}).write_parquet(path)
    words = ["profiles=vectors", f"profiles.path={path}"]
    result = deshi.label(f"paths.root={root}", *words, run="tiny_seed0", k=10, store="profiled")
    stored = result.soft_labels.user_embeddings()
    assert (
        stored is not None and stored.shape == (bundle.n_users, 5) and not stored[0].any() and stored[1:].any(1).all()
    )
    told = ["distill=listwise-profiles", "soft_labels=[profiled]"]
    run = distil(root, config_dir, *told, "train.max_epochs=12", "train.learning_rate=0.03")
    curve = pl.read_csv(run.folder / "epochs.csv")["distill/profile"]
    assert 0 < curve[-1] < curve[0]
    plain = distil(root, config_dir, name="plain")
    shapes = [
        {name: value.shape for name, value in Run(one.folder).student().state_dict().items()} for one in (run, plain)
    ]
    assert shapes[0] == shapes[1]
    with pytest.raises(DeshiError, match="no soft-label store here holds user_embeddings"):
        distil(root, config_dir, told[0], name="untold")
    pl.DataFrame({"user_id": bundle.users["user_id"][1:], "profile": vectors[::-1]}).write_parquet(path)
    with pytest.raises(DeshiError, match="user_embeddings"):
        deshi.label(f"paths.root={root}", *words, run="tiny_seed0", k=10, store="profiled")


def test_augmented_histories_are_joined(root: Path, config_dir: Path) -> None:
    """Beside the data's own lists and alone; without targets they add no training position."""
    export = ["augment.item_drop=0.3", "copies=2", "positions=train", "k=5", "store=augmented"]
    deshi.label(f"paths.root={root}", *export, run="tiny_seed0")
    runs = {
        name: distil(root, config_dir, "soft_labels=" + stores, *words, name=name)
        for name, stores, words in (
            ("own", "[lists]", []),
            ("both", "[lists,augmented]", []),
            ("alone", "[augmented]", ["distill.augmented_targets=true"]),
        )
    }
    records = {name: read_json(run.folder / "run.json") for name, run in runs.items()}
    assert records["both"]["positions"] == records["own"]["positions"] < records["alone"]["positions"]
    assert records["own"]["distilled"] < records["both"]["distilled"]
    assert records["both"]["distilled"] == records["own"]["distilled"] + records["alone"]["distilled"]
    assert [one["store"] for one in records["both"]["soft_labels"]] == ["lists", "augmented"]
    log = (runs["both"].folder / "log.txt").read_text()
    assert f"and at {records['alone']['distilled']} positions of augmented histories" in log


def weights(folder: Path) -> dict[str, Tensor]:
    return Run(folder).student().state_dict()


def interrupt(monkeypatch: pytest.MonkeyPatch, root: Path, config_dir: Path, *words: str) -> Path:
    """A run that was cut inside its second epoch."""
    with cut_in_second_epoch(monkeypatch, "deshi distill resume="):
        distil(root, config_dir, *words, name="cut")
    return next((root / "runs" / "distill").glob("*_cut"))


def test_an_interrupted_distillation_resumes_to_the_same_bits(
    root: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedules, the terms' random numbers, the table's adapter and the copies' turns all go on where they were."""
    deshi.label(f"paths.root={root}", "augment.item_drop=0.3", "copies=2", run="tiny_seed0", k=5, store="augmented")
    words = [
        "soft_labels=[lists,augmented]", ADDED, "distill.terms.kl.final_weight=0.2", "train.max_epochs=3",
        "train.ema_decay=0.9", "loss=sampled_softmax", "train.batch_positions=200",
    ]  # fmt: skip
    whole = distil(root, config_dir, *words, name="whole")
    folder = interrupt(monkeypatch, root, config_dir, *words)
    again = deshi.distill(f"paths.root={root}", resume=str(folder))
    assert again.folder == folder and again.metrics == whole.metrics
    left, right = weights(whole.folder), weights(folder)
    assert all(torch.equal(left[name], right[name]) for name in left)
    finished = (folder / "metrics.json").stat().st_mtime_ns
    deshi.distill(f"paths.root={root}", resume=str(folder))
    assert (folder / "metrics.json").stat().st_mtime_ns == finished, "a complete run is left as it is"


def test_a_store_that_changed_is_not_learnt_from_in_the_same_run(
    root: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a training on one teacher and half on another would be neither."""
    folder = interrupt(monkeypatch, root, config_dir)
    deshi.label(f"paths.root={root}", run="tiny_seed1", k=10, store="lists", force=True)
    with pytest.raises(DeshiError, match="soft-label stores have changed since"):
        deshi.distill(f"paths.root={root}", resume=str(folder))


def changed(root: Path, **teacher: Any) -> None:
    path = root / "soft_labels" / "lists" / "manifest.json"
    manifest = read_json(path)
    write_json(path, manifest | {"teacher": manifest["teacher"] | teacher})


def test_a_teacher_that_knew_validation_or_test_is_refused(root: Path, config_dir: Path) -> None:
    """Its lists would carry into training what the student is selected and tested on; both splits are named."""
    split = read_json(root / "soft_labels" / "lists" / "manifest.json")["teacher"]["split"]
    ratio = "deshi.data.splits.Ratio"
    changed(root, split={"_target_": ratio})
    with pytest.raises(DeshiError, match=rf"(?s)trained on the split .*{ratio}.* the student's is .*LeaveOneOut"):
        distil(root, config_dir)
    changed(root, split=split, train_targets="including_validation")
    with pytest.raises(DeshiError, match="trained on validation events"):
        distil(root, config_dir)


def test_a_refitted_teacher_is_refused(root: Path, config_dir: Path) -> None:
    """From the commands themselves: a refit trains on the validation events."""
    words = ["train.refit=true", "name=refitted"]
    deshi.fit(f"paths.root={root}", *SMALL, *words, config_dir=config_dir, data="tiny")
    deshi.label(f"paths.root={root}", run="refitted", k=5, store="refit")
    with pytest.raises(DeshiError, match="refit was trained on validation events"):
        distil(root, config_dir, "soft_labels=[refit]")


def test_a_foreign_fingerprint_is_refused_with_both(root: Path, config_dir: Path) -> None:
    """Rows of other data are lists after other events."""
    path = root / "soft_labels" / "lists" / "manifest.json"
    write_json(path, read_json(path) | {"data_fingerprint": "0" * 64})
    mine = Bundle.load(root / "data" / "tiny").fingerprint
    with pytest.raises(DeshiError, match=rf"(?s)(0{{12}}.*{mine[:12]}|{mine[:12]}.*0{{12}})"):
        distil(root, config_dir)


def test_a_store_with_changed_rows_is_refused(root: Path, config_dir: Path) -> None:
    """Duplicates and unknown items are refused with how many rows hold them."""
    path = root / "soft_labels" / "lists" / "topk_items.npy"
    items = np.load(path)
    rows = np.flatnonzero(items[:, 0] >= 0)[:3]
    items[rows, 1] = items[rows, 0]
    np.save(path, items)
    with pytest.raises(DeshiError, match=r"3 of 840 rows list an item twice"):
        distil(root, config_dir)
    with pytest.raises(DeshiError, match="no soft-label store"):
        distil(root, config_dir, "soft_labels=[absent]")


def test_lists_that_hold_the_answers_are_refused(root: Path, config_dir: Path) -> None:
    """The commonest mistake of foreign lists: they are off by one, so that each begins with what came next."""
    bundle = Bundle.load(root / "data" / "tiny")
    rows = choose_rows("train", bundle, LeaveOneOut()(bundle))
    nexts = np.asarray(bundle.items)[rows + 1]
    lists = np.stack([nexts, (nexts + 1) % bundle.n_items, (nexts + 2) % bundle.n_items], axis=1).astype(np.int32)
    scores = np.tile(np.array([3, 2, 1], dtype=np.float32), (len(rows), 1))
    write_lists(
        rows,
        lists,
        scores,
        Histories.of(bundle),
        root / "soft_labels" / "leak",
        teacher={"name": "leak"},
        score_kind=ScoreKind.LOGIT,
    )
    with pytest.raises(DeshiError, match=rf"100% of {len(rows):,} training rows"):
        distil(root, config_dir, "soft_labels=[leak]")


def test_wrong_requests_say_what_is_expected(root: Path, config_dir: Path) -> None:
    """Before any training, and no run folder is left: a term that can't read the scores, a table without vectors."""
    deshi.label(f"paths.root={root}", run="tiny_seed1", k=5, store="others", vectors="none")
    for words, message in (
        (["soft_labels=[lists,others]"], "one store on the data's histories at most"),
        (["soft_labels=[others]", ADDED], "no soft-label store here holds item_embeddings"),
        (["distill.terms.kl.other_items=bucket"], "normalise=true"),
        (["distill.terms.kl.temperature=0"], "temperature=0"),
    ):
        with pytest.raises(DeshiError, match=message):
            distil(root, config_dir, *words)
    assert list((root / "runs" / "distill").iterdir()) == []


def test_two_processes_distil_as_one_does(root: Path, config_dir: Path) -> None:
    """Lists, augmented histories without targets, and a term with parameters that a process may have no use for."""
    deshi.label(f"paths.root={root}", "augment.item_drop=0.3", "k=5", run="tiny_seed0", store="augmented")
    words = [
        "soft_labels=[lists,augmented]", "student.dropout=0", "train.max_epochs=2", "train.batch_positions=40",
        "distill.terms.match={_target_: deshi.distillation.embedding.EmbeddingMatch, top_k: 3}",
    ]  # fmt: skip
    alone, both = (distil(root, config_dir, *words, f"train.devices={n}", name=f"pupil{n}") for n in (1, 2))
    curves = [pl.read_csv(run.folder / "epochs.csv").drop("seconds") for run in (alone, both)]
    assert {"distill/loss", "distill/kl", "distill/match"} <= set(curves[0].columns)
    exact = [name for name in curves[0].columns if name.startswith("validation/") or name == "train/positions"]
    assert curves[0][exact].equals(curves[1][exact])
    for name in curves[0].columns:
        assert curves[1][name].to_list() == pytest.approx(curves[0][name].to_list(), rel=1e-5), name
    assert both.metrics == alone.metrics and both.record["processes"] == 2
