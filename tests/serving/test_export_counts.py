"""Counts beside a student in a serving bundle: choice, file, every way of answering, evaluation of the sum."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import deshi
from deshi.artifacts import file_sha256, read_json, write_json
from deshi.baselines import Pairwise, training_events
from deshi.configuration.schemas import PathsConfig
from deshi.runs import Run
from deshi.serving import approximate_search
from deshi.serving.bundle import COUNTS_REPORT, MANIFEST, PAIRS, BundleError, ServingBundle
from deshi.serving.engine import Engine
from deshi.serving.pair_counts import JointScorer, choose_counts
from deshi.types import DeshiError
from service_process import client_on
from tiny_bundles import batch_of
from tiny_movielens import SMALL

HISTORIES = [[3, 1], [5], list(range(12)), [7, 8, 9, 7], [39] * 20]


@pytest.fixture(scope="module")
def exact(counted: Path) -> Engine:
    return deshi.load(counted, search="exact")


def run_of(root: Path) -> Run:
    return Run.open("tiny_seed0", PathsConfig.model_validate({"root": str(root)}))


def test_a_bundle_has_the_counts_of_the_training_events(counted: Path, _finished_root: Path) -> None:
    """Listed with its hash, without pickle; counts that knew validation events would not be those of the figures."""
    bundle = ServingBundle.load(counted)
    assert bundle.manifest["files"][PAIRS]["sha256"] == file_sha256(counted / PAIRS)
    counts, report = bundle.config["counts"], read_json(counted / COUNTS_REPORT)
    assert counts["weight"] == report["weight"] == 2 and bundle.pair_table is not None
    run = run_of(_finished_root)
    pairwise = Pairwise(**counts["settings"])
    pairwise.fit_events(training_events(run.bundle, *run.split.train_ranges(run.bundle)))
    assert report["all_entries"] == pairwise.table.nnz >= report["entries"] == len(bundle.pair_table.items)
    expected = JointScorer(run.scorer(), pairwise.pruned(200), 2.0).scores(batch_of(*HISTORIES)).numpy()
    engine = Engine(bundle, search="exact")
    items, scores = engine.top([np.array(history) for history in HISTORIES], 40, filter_seen=False)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, items.astype(int), 1), atol=1e-4)
    parity = read_json(counted / "parity.json")["fp32"]
    assert parity["holds"] and parity["ndcg10_graph"] == pytest.approx(report["ndcg10"])


def test_approximate_search_has_the_items_that_counts_name(
    counted: Path, exact: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index knows the student's scores alone: what only counts rank high would be missing."""
    monkeypatch.setattr(approximate_search, "LEAST", 4)
    monkeypatch.setattr(approximate_search, "FACTOR", 1)
    near = deshi.load(counted)
    monkeypatch.setattr(near, "_scores", lambda histories, rows: iter(()))  # nothing is scored whole
    for history in HISTORIES[:2]:
        answer, expected = near.recommend(history, 2), exact.recommend(history, 2)
        assert [item.index for item in answer.items] == [item.index for item in expected.items]
        assert [item.score for item in answer.items] == pytest.approx([item.score for item in expected.items], rel=1e-4)
    assert read_json(counted / "recall.json")["recall10"] == 1


def test_other_rules_are_as_before(exact: Engine, serving: Path) -> None:
    """Nobody's history, seen items, and similar items don't change by counts; the scores do."""
    alone = deshi.load(serving)
    assert exact.recommend([], 5) == alone.recommend([], 5) and exact.similar_items(3) == alone.similar_items(3)
    assert {item.index for item in exact.recommend([3, 1], 40).items} == set(range(40)) - {1, 3}
    assert exact.recommend([3, 1], 40).items != alone.recommend([3, 1], 40).items
    without = Engine(exact.bundle.without_counts(), search="exact")
    assert without.recommend([3, 1], 40) == alone.recommend([3, 1], 40)
    together = exact.recommend_batch([*HISTORIES, []], 6)
    assert [[item.index for item in answer.items] for answer in together[:-1]] == [
        [item.index for item in exact.recommend(history, 6).items] for history in HISTORIES
    ]


def test_the_service_answers_by_the_sum_and_says_so(counted: Path, serving: Path) -> None:
    """Whoever operates it must see what answers."""
    engine = deshi.load(counted)
    with client_on(counted) as client:
        answer = client.post("/recommend", json={"history": ["3", "14"], "k": 4}).json()
        assert [item["score"] for item in answer["items"]] == [i.score for i in engine.recommend(["3", "14"], 4).items]
        assert client.get("/ready").json()["counts"] == 2
    with client_on(serving) as client:
        assert client.get("/ready").json()["counts"] is None


def test_what_counts_cost_and_change_is_told(counted: Path, serving: Path) -> None:
    """Weight, bytes, quality and latency with and without belong to the bundle."""
    bundle, card = ServingBundle.load(counted), (counted / "MODEL_CARD.md").read_text()
    assert bundle.latency is not None and bundle.student_latency is not None
    assert ServingBundle.load(serving).student_latency is None
    assert "plus 2 times pooled transition counts" in card and "top-10 lists are those of all entries" in card
    assert "Counts beside" not in (serving / "MODEL_CARD.md").read_text()


def test_settings_and_weight_are_those_of_the_ensemble_on_validation(finished_root: Path, config_dir: Path) -> None:
    """`teacher=ensemble members=[STUDENT,COUNTS]` is the same sum: two searches that disagree would be two models."""
    root = f"paths.root={finished_root}"
    given = ["teacher=pairwise", "teacher.members=[tiny_seed0]"]
    counts = deshi.teach(root, *given, "data=tiny", "name=counts", config_dir=config_dir)
    joint = deshi.teach(
        root, "teacher=ensemble", "teacher.members=[tiny_seed0,counts]", "teacher.scale=log_softmax", "data=tiny",
        "name=joint", config_dir=config_dir,
    )  # fmt: skip
    result = deshi.export(root, run="tiny_seed0", counts=True)
    weight = read_json(joint.folder / "teacher.json")["weights"][1]
    if not weight:
        assert result.bundle.pair_table is None and "the bundle has none" in str(result)
        return
    served = result.bundle.config["counts"]
    assert served["weight"] == weight
    assert served["settings"].items() >= read_json(counts.folder / "teacher.json")["settings"].items()


def test_a_refitted_run_serves_counts_of_validation_events_by_the_selection_before(
    finished_root: Path, config_dir: Path
) -> None:
    """What is deployed has seen the validation events; settings and figures of the choice must not."""
    refitted = deshi.fit(
        f"paths.root={finished_root}", *SMALL, "data=tiny", "train.refit=tiny_seed0", config_dir=config_dir
    )
    before, after = choose_counts(run_of(finished_root), 2.0), choose_counts(refitted, 2.0)
    assert before is not None and after is not None
    assert after.counts.settings == before.counts.settings and after.tried == before.tried
    split, bundle = refitted.split, refitted.bundle
    for served, ranges in ((before, split.train_ranges(bundle)), (after, split.refit_ranges(bundle))):
        again = Pairwise(**served.counts.settings).fit(bundle, *ranges)
        assert (served.counts.table != again.table).nnz == 0  # type: ignore[attr-defined]


def test_what_is_served_is_evaluated_beside_the_student(finished_root: Path, tmp_path: Path) -> None:
    """The sum needs figures of its own, and the student's must stay what they are."""
    root, folder = f"paths.root={finished_root}", str(tmp_path / "bundle")
    before = run_of(finished_root)
    alone = before.evaluation().metrics["test/ndcg@10"]
    deshi.export(root, run="tiny_seed0", counts=2, output=folder)
    result = deshi.evaluate(root, "run=tiny_seed0", f"served={folder}", "part=both")
    assert result.model == "sasrec+counts" and {"validation/ndcg@10", "test/ndcg@10"} <= set(result.metrics)
    report = read_json(Path(folder) / COUNTS_REPORT)
    assert result.metrics["test/ndcg@10"] == pytest.approx(report["ndcg10"])
    assert report["ndcg10_student"] == pytest.approx(alone) == before.evaluation().metrics["test/ndcg@10"]
    compared = deshi.compare(root, runs=["tiny_seed0", result.folder.name])
    assert "sasrec+counts" in str(compared)
    deshi.audit(root, f"run={result.folder}")
    with pytest.raises(DeshiError, match="expected one of .*tiny_seed1"):
        deshi.evaluate(root, "run=tiny_seed1", f"served={folder}")


def reweighted(weight: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = read_json(folder / "config.json")
        config["counts"] = config["counts"] | {"weight": weight}
        write_json(folder / "config.json", config)

    return edit


def emptied(folder: Path) -> None:
    tensors = load_file(folder / PAIRS)
    save_file(tensors | {"items": tensors["items"] + np.uint8(40)}, folder / PAIRS)


def unlisted(folder: Path) -> None:
    manifest = read_json(folder / MANIFEST)
    del manifest["files"][PAIRS]
    write_json(folder / MANIFEST, manifest)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (reweighted(0), "the weight 0, expected above 0 and up to 10"),
        (reweighted(11), "the weight 11"),
        (reweighted("2"), "the weight '2'"),
        (reweighted(float("nan")), "the weight nan"),
        (emptied, "names the item .* of 40"),
        (unlisted, "don't agree on whether it has pair_table.safetensors"),
        (lambda folder: (folder / PAIRS).write_bytes(b"0"), "can't be read"),
        (lambda folder: (folder / PAIRS).unlink(), "pair_table.safetensors missing"),
    ],
)
def test_damage_is_noticed_without_hashes(
    damage: Callable[[Path], None], message: str, counted: Path, tmp_path: Path
) -> None:
    """A reload may skip the hashes; counts of another catalogue would answer with other items."""
    shutil.copytree(counted, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(BundleError, match=message):
        ServingBundle.load(tmp_path / "copy", check=False)


@pytest.mark.parametrize("weight", [0, 11, -1])
def test_a_wrong_weight_is_refused(weight: float, finished_root: Path) -> None:
    """From above 0 to 10, as in ensembles."""
    with pytest.raises(DeshiError, match="counts"):
        deshi.export(f"paths.root={finished_root}", run="tiny_seed0", counts=weight)
