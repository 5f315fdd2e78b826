"""The stage teach: networks, folds and ensembles, their resumption, and what other stages make of their runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import write_tiny_bert

import deshi
from deshi import hardware
from deshi.configuration.targets import ConfigError
from deshi.data.bundle import Bundle
from deshi.models.scorers import SequentialScorer
from deshi.runs import Run
from deshi.soft_labels import Histories, Labeller, SoftLabels
from deshi.teachers.cross_fit import CrossFitted
from deshi.teachers.ensemble import Ensemble
from deshi.training import _precision
from deshi.types import DeshiError
from tiny_movielens import SMALL

TRAIN = tuple(word for word in SMALL if word.startswith("train."))
SASREC = ("teacher=sasrec", "teacher.dim=16", "teacher.max_length=10")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("bert"))


def text_words(bert: Path) -> list[str]:
    encoder = "teacher.embeddings.encoder"
    target = f"{encoder}._target_=deshi.teachers.encoders.SentenceEncoder"
    return [target, f"{encoder}.name={bert}", "teacher.dim=16", "teacher.max_length=10"]


def test_a_text_teacher_trains_and_is_evaluated_as_a_student_is(
    finished_root: Path, config_dir: Path, bert: Path
) -> None:
    """From titles to exact ranks by the commands a user types; `latest` of evaluate is the newest of both stages."""
    root = f"paths.root={finished_root}"
    run = deshi.teach(root, *TRAIN, *text_words(bert), "name=words", config_dir=config_dir, data="tiny")
    assert run.folder.parent.name == "teach" and 0 <= run.metrics["validation/ndcg@10"] <= 1
    record = json.loads((run.folder / "run.json").read_text())
    assert record["stage"] == "teach" and record["model"] == "text"
    assert "teacher_train_time_total" in json.loads((run.folder / "time.json").read_text())
    network = Run(run.folder).network()
    assert not any("items.weight" in name for name, _ in network.named_parameters()), "a text teacher has no ID table"
    latest = deshi.evaluate(root, "part=validation", run="latest")
    assert latest.model == "text"
    assert latest.metrics["validation/ndcg@10"] == pytest.approx(run.metrics["validation/ndcg@10"], abs=1e-6)
    assert deshi.evaluate(root, run="words").model == "text"
    assert deshi.gap(root, run="words", samples=100).validation.mean == pytest.approx(
        run.metrics["validation/ndcg@10"], abs=1e-6
    )


def test_auto_times_the_steps_of_a_teacher_built_like_a_student(
    finished_root: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large products alone would choose bf16 for it where its steps are slower in bf16."""
    monkeypatch.setattr(hardware, "_seconds", lambda dtype, *_: 0.5 if dtype == torch.bfloat16 else 1.0)
    monkeypatch.setattr(_precision, "_seconds", lambda module, optimizer, batch, bf16: 1.4 if bf16 else 1.0)
    words = [f"paths.root={finished_root}", *TRAIN, *SASREC, "train.precision=auto"]
    run = deshi.teach(*words, config_dir=config_dir, data="tiny")
    assert run.config.train.precision == "fp32"


def test_each_fold_is_answered_by_a_teacher_that_has_not_seen_it(finished_root: Path, config_dir: Path) -> None:
    """Cross-fitting is worth nothing if a fold's teacher was trained on that fold's users."""
    root = f"paths.root={finished_root}"
    run = deshi.teach(
        root, *TRAIN, *SASREC, "train.augment.item_drop=0", "cross_fit=3", config_dir=config_dir, data="tiny"
    )
    scorer, record = run.scorer(), run.record
    assert isinstance(scorer, CrossFitted) and record["cross_fit"] == 3 and len(record["fold_epochs"]) == 3
    bundle = Bundle.load(finished_root / "data" / "tiny")
    folds = np.load(run.folder / "folds.npy")
    assert sorted(np.bincount(folds)) == [20, 20, 20]
    trained = [json.loads((run.folder / f"fold-{fold}" / "run.json").read_text())["positions"] for fold in range(3)]
    per_epoch = sum(len(bundle.history(user)) - 3 for user in np.flatnonzero(folds != 0))
    assert trained[0] == 2 * per_epoch, "two epochs over the other folds' targets, and nothing else"
    assert deshi.evaluate(root, run=str(run.folder), part="validation").metrics["validation/ndcg@10"] == pytest.approx(
        run.metrics["validation/ndcg@10"], abs=1e-6
    )


def test_cross_fitted_text_teachers_give_their_vectors_to_students(
    finished_root: Path, config_dir: Path, bert: Path
) -> None:
    """All folds share a language model: out-of-sample lists and its vectors go into one store, also by an ensemble."""
    root = f"paths.root={finished_root}"
    run = deshi.teach(root, *TRAIN, *text_words(bert), "cross_fit=2", config_dir=config_dir, data="tiny")
    given = ["teacher=ensemble", f"teacher.members=[{run.folder},tiny_seed0]", "teacher.weights=[0.5,0.5]"]
    both = deshi.teach(root, *given, config_dir=config_dir, data="tiny")
    found = [one.scorer() for one in (run, both)]
    vectors = [scorer.text_vectors() for scorer in found if isinstance(scorer, CrossFitted | Ensemble)]
    assert len(vectors) == 2 and vectors[0] is not None and vectors[1] is not None
    assert len(vectors[0]) == found[0].n_items and np.array_equal(vectors[0], vectors[1])
    deshi.label(root, run=str(both.folder), vectors="text", k=5, store="folds")
    kept = SoftLabels.load(finished_root / "soft_labels" / "folds").item_embeddings()
    assert kept is not None and np.array_equal(kept.numpy(), vectors[0])


def test_counts_are_a_member_that_leaves_users_out(finished_root: Path, config_dir: Path) -> None:
    """Settings for the sum, a free weight, labels without the user's own pairs, and a student that learns of them."""
    root = f"paths.root={finished_root}"
    counts = deshi.teach(root, "teacher=pairwise", "teacher.members=[tiny_seed0]", config_dir=config_dir, data="tiny")
    state = json.loads((counts.folder / "teacher.json").read_text())
    best = max(state["tried_beside"], key=lambda settings: settings["ndcg@10"])
    assert state["settings"] == {name: value for name, value in best.items() if name != "ndcg@10"}
    given = ["teacher=ensemble", f"teacher.members=[tiny_seed0,{counts.folder}]", "teacher.weights=[1,6]"]
    both = deshi.teach(root, *given, config_dir=config_dir, data="tiny")
    scorer, bundle = both.scorer(), both.bundle
    assert isinstance(scorer, Ensemble) and scorer.weights == [1.0, 6.0] and scorer.scorers[1].is_evidence
    deshi.label(root, run=str(both.folder), vectors="scoring", k=5, positions="train", store="counted")
    store = SoftLabels.load(finished_root / "soft_labels" / "counted")
    rows = np.flatnonzero(store.covered)
    lists = next(iter(Labeller(scorer.leave_user_out(), Histories.of(bundle), 5).label(rows[:20])))
    assert np.array_equal(np.sort(store.items[lists[0]], 1), np.sort(lists[1], 1))
    vectors = store.item_embeddings()
    assert vectors is not None and vectors.shape[1] > 16, "the student's table and the decomposed counts"
    words = ["distill=listwise-table", "soft_labels=[counted]", *SMALL]
    assert deshi.distill(root, *words, config_dir=config_dir, data="tiny").metrics["validation/ndcg@10"] > 0


def test_given_settings_of_counts_stay(finished_root: Path, config_dir: Path) -> None:
    """What the user fixes is not searched."""
    words = [f"paths.root={finished_root}", "teacher=pairwise", "teacher.smoothing=7.0", "teacher.max_distance=3"]
    run = deshi.teach(*words, config_dir=config_dir, data="tiny")
    tried = json.loads((run.folder / "teacher.json").read_text())["tried"]
    assert {(settings["smoothing"], settings["max_distance"]) for settings in tried} == {(7.0, 3)} and len(tried) > 5


def test_an_interrupted_cross_fitting_goes_on_with_the_missing_fold(finished_root: Path, config_dir: Path) -> None:
    """Folds that are finished stay, the rest is trained, and the outcome is that of an uninterrupted run."""
    root = f"paths.root={finished_root}"
    run = deshi.teach(root, *TRAIN, *SASREC, "cross_fit=2", config_dir=config_dir, data="tiny")
    stamp = (run.folder / "fold-0" / "model.safetensors").stat().st_mtime_ns
    (run.folder / "metrics.json").unlink()
    shutil.rmtree(run.folder / "fold-1")
    with pytest.raises(DeshiError, match="deshi teach resume="):
        deshi.evaluate(root, run=str(run.folder))
    again = deshi.teach(root, resume=str(run.folder))
    assert again.metrics == run.metrics
    assert (run.folder / "fold-0" / "model.safetensors").stat().st_mtime_ns == stamp
    finished = (run.folder / "metrics.json").stat().st_mtime_ns
    deshi.teach(root, resume=str(run.folder))
    assert (run.folder / "metrics.json").stat().st_mtime_ns == finished, "a complete run is left as it is"


def test_an_ensemble_of_runs_is_chosen_on_validation_and_evaluated(finished_root: Path, config_dir: Path) -> None:
    """The chosen weights are the best of all that were tried, on validation, and no member alone is better there."""
    root = f"paths.root={finished_root}"
    members = ["tiny_seed0", "latest"]
    words = ["teacher=ensemble", f"teacher.members=[{','.join(members)}]"]
    run = deshi.teach(root, *words, config_dir=config_dir, data="tiny")
    saved = (run.folder / "config.yaml").read_text()
    assert all(folder.name in saved for folder in (finished_root / "runs" / "fit").iterdir()), "names are made exact"
    state = json.loads((run.folder / "teacher.json").read_text())
    best = max(one["ndcg@10"] for one in state["tried"])
    assert run.metrics["validation/ndcg@10"] == pytest.approx(best, abs=1e-6)
    alone = {tuple(one["weights"]): one["ndcg@10"] for one in state["tried"]}
    for place, member in enumerate(["tiny_seed0", "tiny_seed1"]):
        folder = next((finished_root / "runs" / "fit").glob(f"*_{member}"))
        expected = json.loads((folder / "metrics.json").read_text())["validation/ndcg@10"]
        assert alone[tuple(float(n == place) for n in range(2))] == pytest.approx(expected, abs=1e-6)
    result = deshi.evaluate(root, run=str(run.folder), part="both")
    assert result.model == "ensemble" and result.metrics["validation/ndcg@10"] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cross_fit=1"], "expected 0"),
        (["cross_fit=2", "teacher=ensemble", "teacher.members=[tiny_seed0,tiny_seed1]"], "isn't trained on histories"),
        (["teacher=ensemble", "teacher.members=[tiny_seed0]"], "expected two runs or more"),
        (["teacher=ensemble", "teacher.members=[tiny_seed0,absent]"], "No run 'absent'"),
        (["teacher=ensemble", "teacher.members=[tiny_seed0,tiny_seed1]", "teacher.weights=[1]"], "expected 2 numbers"),
        (["teacher=ensemble", "teacher.members=[tiny_seed0,tiny_seed1]", "teacher.scales=softmax"], "teacher.scale"),
        (["cross_fit=61", *SASREC], "expected 2 to 60 folds"),
    ],
)
def test_wrong_requests_say_what_is_expected(
    finished_root: Path, config_dir: Path, words: list[str], message: str
) -> None:
    """Nothing is trained for a request that can't be fulfilled, and the message leads to one that can."""
    with pytest.raises((DeshiError, ConfigError), match=message):
        deshi.teach(f"paths.root={finished_root}", *TRAIN, *words, config_dir=config_dir, data="tiny")


def test_members_of_other_data_are_refused(finished_root: Path, config_dir: Path) -> None:
    """Scores for other items added to these would be noise that looks like an ensemble."""
    root = f"paths.root={finished_root}"
    deshi.prepare(root, "data.filters.min_user_interactions=14", "data.name=other", config_dir=config_dir, data="tiny")
    folder = next((finished_root / "runs" / "fit").glob("*_tiny_seed1"))
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"data_fingerprint": "0" * 64}))
    words = ["teacher=ensemble", "teacher.members=[tiny_seed0,tiny_seed1]"]
    with pytest.raises(DeshiError, match="was made on data"):
        deshi.teach(root, *words, config_dir=config_dir, data="tiny")


def test_a_cross_fitted_scorer_asks_each_user_s_own_teacher() -> None:
    """Rows of a batch are mixed: each must come back in its place, from its fold's network."""
    from deshi.models.sasrec import SASRec
    from deshi.types import Batch

    networks = []
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks.append(SequentialScorer(SASRec(12, 8, 5)))
    folds = np.array([1, 0, 1, 0])
    both = CrossFitted(networks, folds)
    items = torch.randint(12, (4, 5), generator=torch.Generator().manual_seed(0))
    users = torch.tensor([3, 0, 2, 1])
    batch = Batch(users, items, torch.full((4,), 5), torch.full((4, 5), -1), torch.full((4, 5), -1))
    found = both.scores(batch)
    for row, user in enumerate(users.tolist()):
        alone = networks[folds[user]].scores(batch)[row]
        torch.testing.assert_close(found[row], alone)
    where = torch.ones(4, 5, dtype=torch.bool)
    where[1, 2:] = False
    asked = both.position_scores(batch, where)
    assert both.max_length == 5 and len(asked) == 17
    torch.testing.assert_close(asked[4], found[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(asked[-1], found[3], rtol=1e-4, atol=1e-5)


def test_runs_of_teachers_are_audited(finished_root: Path, config_dir: Path) -> None:
    """A network by its batches, answers and ranks, without a false alarm; what is no network by its ranks."""
    root = f"paths.root={finished_root}"
    deshi.teach(root, *TRAIN, *SASREC, "name=words", config_dir=config_dir, data="tiny")
    deshi.evaluate(root, run="words", part="both")
    found = deshi.audit(root, run="words")
    assert [one.name for one in found.findings if one.severity == "error"] == []
    ensemble = deshi.teach(
        root, "teacher=ensemble", "teacher.members=[tiny_seed0,words]", config_dir=config_dir, data="tiny"
    )
    evaluated = deshi.evaluate(root, run=str(ensemble.folder), part="both")
    assert [one.name for one in deshi.audit(root, run=str(evaluated.folder)).findings if one.severity == "error"] == []
    with pytest.raises(DeshiError, match="no single network"):
        deshi.audit(root, run=str(ensemble.folder))
