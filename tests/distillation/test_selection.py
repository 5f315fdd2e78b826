"""Selection strategies: what they look at is right, they keep to their budget, and both stages that use them say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

import deshi
from deshi.artifacts import read_json
from deshi.configuration.groups import ROOT
from deshi.configuration.targets import check_node
from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from deshi.distillation import selection
from deshi.distillation.selection import SelectionStrategy, k_center
from deshi.distillation.selection_inputs import SelectionInputs, windows
from deshi.runs import Run
from deshi.soft_labels import Histories, Labeller, SoftLabels, choose_rows, write_lists, write_soft_labels
from deshi.types import DeshiError
from hashed_scorer import META, sasrec, shop
from tiny_movielens import SMALL

N, LENGTH, K = 30, 6, 5
EXAMPLES: list[tuple[str, dict[str, Any]]] = [
    ("Random", {}),
    ("Confidence", {}),
    ("Confidence", {"measure": "entropy", "lowest": True}),
    ("Disagreement", {"student": "x"}),
    ("GroundTruthError", {"student": "x"}),
    ("Uncertainty", {"student": "x"}),
    ("Uncertainty", {"student": "x", "measure": "margin"}),
    ("Coreset", {"student": "x"}),
    ("Coreset", {"student": "x", "part": 7}),
]


class Scene:
    """Random histories, up to more than twice as long as the student reads, and another student's lists of them."""

    def __init__(self, folder: Path) -> None:
        self.bundle = shop(folder, users=14, items=N, longest=3 * LENGTH)
        self.histories = Histories.of(self.bundle)
        self.rows = choose_rows("train", self.bundle, LeaveOneOut()(self.bundle))
        self.student = sasrec(N, LENGTH).network
        teacher = sasrec(N, LENGTH, seed=1)
        self.store = write_soft_labels(
            Labeller(teacher, Histories.of(self.bundle), K), self.rows, folder / "store", teacher=META
        )

    def evidence(self, store: SoftLabels | None = None) -> SelectionInputs:
        return SelectionInputs(self.histories, self.rows, self.student, store or self.store)

    def logits(self, row: int, start: int) -> torch.Tensor:
        items = torch.from_numpy(np.asarray(self.bundle.items[start : row + 1]).astype(np.int64))[None]
        with torch.no_grad():
            return self.student.next_scores(items, torch.tensor([items.shape[1]]))[0]

    def starts(self) -> NDArray[np.int64]:
        """The first event of the window that answers for each row."""
        _, first, ends, answers = windows(self.histories, self.rows, LENGTH)
        found = np.full(self.bundle.n_interactions, -1)
        for begin, end, answer in zip(first, ends, answers, strict=True):
            assert (found[answer:end] == -1).all(), "an event is answered for once"
            found[answer:end] = begin
        return found[self.rows]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_windows_give_every_row_as_much_past_as_may_be(scene: Scene) -> None:
    """A student that is asked with less than it could see would look more wrong than it is."""
    starts, offsets = scene.starts(), scene.histories.offsets
    owners = scene.histories.owners(scene.rows)
    past = scene.rows + 1 - starts
    whole = scene.rows + 1 - offsets[owners]
    assert (starts >= offsets[owners]).all() and (past <= LENGTH).all()
    assert (past[whole <= LENGTH] == whole[whole <= LENGTH]).all()
    assert (past[whole > LENGTH] > LENGTH // 2).all() and (whole > 2 * LENGTH).any()


def test_the_students_evidence_is_that_of_each_history_asked_alone(scene: Scene) -> None:
    """Loss, entropy, margin, divergence and hidden state of every row against one question a row."""
    found, nexts = scene.evidence(), np.asarray(scene.bundle.items)[scene.rows + 1]
    for place, (row, start) in enumerate(zip(scene.rows, scene.starts(), strict=True)):
        logs = scene.logits(row, start).log_softmax(0)
        best = logs.exp().sort(descending=True).values
        items, scores = scene.store.rows([row])
        aim, own = torch.from_numpy(scores[0]).softmax(0), logs[items[0]].log_softmax(0)
        expected = [-logs[nexts[place]], -(logs.exp() * logs).sum(), best[0] - best[1], (aim * (aim.log() - own)).sum()]
        got = [found.student_stats.loss, found.student_stats.entropy, found.student_stats.margin, found.divergence]
        assert [one[place] for one in got] == pytest.approx([float(one) for one in expected], rel=1e-4, abs=1e-5)
        again = torch.from_numpy(found.hidden[place]) @ scene.student.item_table().T
        torch.testing.assert_close(again.detach().log_softmax(0), logs, rtol=1e-4, atol=1e-4)


def test_a_student_agrees_with_its_own_lists(scene: Scene, tmp_path: Path) -> None:
    """The divergence from oneself is 0: teacher and student are compared over the same items after the same events."""
    early = scene.rows[scene.rows + 1 - scene.histories.offsets[scene.histories.owners(scene.rows)] <= LENGTH]
    own = write_soft_labels(
        Labeller(sasrec(N, LENGTH), Histories.of(scene.bundle), K), early, tmp_path / "own", teacher=META
    )
    found = SelectionInputs(scene.histories, early, scene.student, own).divergence
    assert found == pytest.approx(0, abs=1e-5) and scene.evidence().divergence.mean() > 0.01


@pytest.mark.parametrize(("kind", "scores"), [
    ("logit", [2.0, 1.0, -3.0]), ("log_probability", [-1.0, -2.0, -6.0]),
    ("probability", list(0.5 * np.exp([-1.0, -2.0, -6.0]))),
])  # fmt: skip
def test_confidence_is_over_the_list_whatever_the_kind_of_scores(
    scene: Scene, tmp_path: Path, kind: str, scores: list[float]
) -> None:
    """What a list leaves to other items differs between kinds, its shape doesn't; a short list ends in padding."""
    lists = np.tile(np.array([3, 2, 1, -1], dtype=np.int32), (len(scene.rows), 1))
    values = np.tile(np.array([*scores, 0.0], dtype=np.float32), (len(scene.rows), 1))
    given: Any = {"teacher": META, "score_kind": kind}
    store = write_lists(scene.rows, lists, values, Histories.of(scene.bundle), tmp_path / "store", **given)
    shares = np.exp([2.0, 1.0, -3.0]) / np.exp([2.0, 1.0, -3.0]).sum()
    found = scene.evidence(store)
    assert found.confidence == pytest.approx(shares[0], rel=1e-5)
    assert found.teacher_entropy == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-4)


@pytest.mark.parametrize(("name", "arguments"), EXAMPLES)
@pytest.mark.parametrize("share", [0.001, 0.25, 1.0])
def test_every_strategy_keeps_to_its_budget(scene: Scene, name: str, arguments: dict[str, Any], share: float) -> None:
    """Exactly so many of the rows and no other, the same for the same generator: a share is a price."""
    strategy: SelectionStrategy = getattr(selection, name)(share=share, **arguments)
    chosen = strategy.choose(scene.evidence(), generator())
    assert chosen.shape == (scene.bundle.n_interactions,)
    assert chosen.sum() == max(1, round(share * len(scene.rows)))
    assert np.isin(np.flatnonzero(chosen), scene.rows).all()
    assert (strategy.choose(scene.evidence(), generator()) == chosen).all()


def test_ranked_strategies_take_the_extreme_rows(scene: Scene) -> None:
    """By the values that their names promise, from either end."""
    found = scene.evidence()
    for strategy, values in (
        (selection.GroundTruthError(0.2, "x"), found.student_stats.loss),
        (selection.GroundTruthError(0.2, "x", lowest=True), -found.student_stats.loss),
        (selection.Uncertainty(0.2, "x"), found.student_stats.entropy),
        (selection.Uncertainty(0.2, "x", "margin"), -found.student_stats.margin),
        (selection.Confidence(0.2), found.confidence),
        (selection.Confidence(0.2, "entropy"), -found.teacher_entropy),
        (selection.Disagreement(0.2, "x"), found.divergence),
    ):
        chosen = strategy.choose(found, generator())[scene.rows]
        assert values[chosen].min() >= values[~chosen].max()


def test_equal_values_are_chosen_at_random(scene: Scene) -> None:
    """The first rows belong to the first users: a tie that went by row number would choose users, not positions."""

    class Same(selection.Ranked):
        def values(self, evidence: SelectionInputs) -> NDArray[np.float32]:
            return np.zeros(len(evidence), dtype=np.float32)

    first, second = (Same(0.3).choose(scene.evidence(), generator(seed)) for seed in (0, 1))
    assert first.sum() == second.sum() and (first != second).any()


def test_all_is_all_and_random_is_random(scene: Scene) -> None:
    """The two ends of the scale that the others are measured on."""
    found = scene.evidence()
    assert np.flatnonzero(selection.All().choose(found, generator())).tolist() == scene.rows.tolist()
    draws = [selection.Random(0.3).choose(found, generator(seed)) for seed in range(2)]
    assert (draws[0] != draws[1]).any()


def test_k_center_takes_one_of_each_cluster_and_never_a_point_twice() -> None:
    """Three far clusters are covered by three centres; points that coincide are still different rows."""
    centres = np.array([[0, 0], [100, 0], [0, 100]], dtype=np.float32)
    points = (centres[:, None] + generator().normal(size=(3, 20, 2))).reshape(60, 2).astype(np.float32)
    for seed in range(5):
        assert sorted(k_center(points, 3, generator(seed)) // 20) == [0, 1, 2]
    assert sorted(k_center(np.ones((8, 2), dtype=np.float32), 8, generator())) == list(range(8))
    assert len(k_center(points, 0, generator())) == 0


def test_a_coreset_covers_more_than_chance_does(scene: Scene) -> None:
    """The largest distance of a row to its nearest chosen one is what the strategy is there to keep small."""
    found = scene.evidence()

    def radius(chosen: NDArray[np.bool_]) -> float:
        near = found.hidden[chosen[scene.rows]]
        return float(np.linalg.norm(found.hidden[:, None] - near[None], axis=2).min(1).max())

    mine = radius(selection.Coreset(0.1, "x").choose(found, generator()))
    chance = [radius(selection.Random(0.1).choose(found, generator(seed))) for seed in range(10)]
    assert mine < np.median(chance)


def test_what_cannot_be_chosen_from_is_refused(scene: Scene, tmp_path: Path) -> None:
    """Rows without a next event, rows that the store hasn't, scores without a scale, and nothing to look at."""
    last = np.array([scene.bundle.offsets[1] - 1])
    with pytest.raises(DeshiError, match="1 have no next event"):
        SelectionInputs(scene.histories, last)
    for rows in (scene.rows[:0], scene.rows[::-1], scene.rows + scene.bundle.n_interactions):
        with pytest.raises(DeshiError, match="ascending positions"):
            SelectionInputs(scene.histories, rows)
    few = write_soft_labels(
        Labeller(sasrec(N, LENGTH), Histories.of(scene.bundle), K), scene.rows[:3], tmp_path / "few", teacher=META
    )
    with pytest.raises(DeshiError, match=f"{len(scene.rows) - 3} no list in the store"):
        scene.evidence(few)
    items, scores = scene.store.rows(scene.rows)
    order = write_lists(
        scene.rows, items.astype(np.int32), scores, Histories.of(scene.bundle), tmp_path / "order", teacher=META
    )
    bare = SelectionInputs(scene.histories, scene.rows)
    for found, strategy, message in (
        (scene.evidence(order), selection.Disagreement(0.1, "x"), "kind 'score', whose order alone"),
        (bare, selection.Confidence(0.1), "no.* answers yet|there are none yet"),
        (bare, selection.GroundTruthError(0.1, "x"), "looks at a student"),
    ):
        with pytest.raises(DeshiError, match=message):
            strategy.choose(found, generator())
    with pytest.raises(DeshiError, match=r"Random got share=0, expected a share above 0 and up to 1"):
        selection.Random(0)
    with pytest.raises(DeshiError, match="part=0"):
        selection.Coreset(0.1, "x", part=0)


@pytest.mark.parametrize("path", sorted((ROOT / "selection").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_strategy_file_names_a_strategy_and_its_arguments(path: Path) -> None:
    """The files are the list of strategies that a user finds."""
    node = yaml.safe_load(path.read_text())
    assert not check_node(node | ({"student": "x"} if "student" in node else {}))
    assert issubclass(getattr(selection, node["_target_"].rpartition(".")[2]), SelectionStrategy)


def strategy(name: str, **arguments: Any) -> str:
    inner = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    return f"distill.selection={{_target_: deshi.distillation.selection.{name}, {inner}}}"


@pytest.fixture
def root(finished_root: Path) -> Path:
    deshi.label(f"paths.root={finished_root}", run="tiny_seed0", k=10, store="lists")
    return finished_root


def test_a_strategy_chooses_what_is_distilled_and_a_resumed_run_keeps_its_choice(root: Path, config_dir: Path) -> None:
    """The number is logged and recorded, the run that was looked at is pinned, and the choice is a file of the run."""
    words = [
        f"paths.root={root}",
        *SMALL,
        "soft_labels=[lists]",
        strategy("Disagreement", share=0.1, student="tiny_seed1"),
    ]
    run = deshi.distill(*words, config_dir=config_dir, data="tiny")
    record = read_json(run.folder / "run.json")
    assert record["selection"] == {"name": "disagreement", "chosen": 66, "of": 660} and record["distilled"] == 66
    assert "disagreement chose 66 of them" in (run.folder / "log.txt").read_text()
    (exact,) = (folder.name for folder in (root / "runs" / "fit").glob("*_tiny_seed1"))
    assert f"student: {exact}" in (run.folder / "config.yaml").read_text()
    chosen = np.load(run.folder / "chosen.npy")
    bundle = Bundle.load(root / "data" / "tiny")
    assert len(chosen) == 66 and np.isin(chosen, choose_rows("train", bundle, LeaveOneOut()(bundle))).all()
    np.save(run.folder / "chosen.npy", chosen[:50])
    (run.folder / "metrics.json").unlink()
    deshi.distill(f"paths.root={root}", resume=str(run.folder))
    assert read_json(run.folder / "run.json")["selection"]["chosen"] == 50


def test_rows_of_augmented_histories_are_not_the_strategys_business(root: Path, config_dir: Path) -> None:
    """A budget is about the data's own positions; without any there is nothing to choose from."""
    deshi.label(f"paths.root={root}", "augment.item_drop=0.3", run="tiny_seed0", k=5, positions="train", store="more")
    words = [f"paths.root={root}", *SMALL, strategy("Random", share=0.1)]
    run = deshi.distill(*words, "soft_labels=[lists,more]", config_dir=config_dir, data="tiny")
    record = read_json(run.folder / "run.json")
    assert record["selection"]["chosen"] == 66
    assert record["distilled"] == 66 + record["soft_labels"][1]["coverage"]["rows"]
    with pytest.raises(DeshiError, match="chooses among the data's own training positions"):
        deshi.distill(*words, "soft_labels=[more]", config_dir=config_dir, data="tiny")


def test_a_strategy_buys_only_the_rows_that_it_chose(root: Path) -> None:
    """Active distillation: the teacher is asked for a tenth of the training rows, held-out rows are kept."""
    words = [f"paths.root={root}", "selection=error", "selection.share=0.1", "selection.student=tiny_seed1"]
    result = deshi.label(*words, run="tiny_seed0", k=5, store="bought")
    bundle = Bundle.load(root / "data" / "tiny")
    split = LeaveOneOut()(bundle)
    covered, train = result.soft_labels.covered, choose_rows("train", bundle, split)
    assert covered[train].sum() == 66 and covered.sum() == 66 + 120
    positions = result.soft_labels.manifest["positions"]
    assert "GroundTruthError" in positions and "share=0.1" in positions and "_tiny_seed1" in positions
    student = Run(next((root / "runs" / "fit").glob("*_tiny_seed1"))).student()
    loss = SelectionInputs(Histories.of(bundle), train, student).student_stats.loss
    assert loss[covered[train]].min() >= loss[~covered[train]].max()
    augmented = deshi.label(*words, "augment.item_drop=0.3", "positions=train", run="tiny_seed0", store="drop")
    assert augmented.soft_labels.augmented and 0 < augmented.soft_labels.covered.sum() < 66


def test_teacher_answers_can_not_be_bought_by_what_they_say(root: Path) -> None:
    """And a student of another split may have seen what is tested on: both are refused before the teacher is asked."""
    words = [f"paths.root={root}", "store=bought"]
    for more in (["selection=confidence"], ["selection=disagreement", "selection.student=tiny_seed1"]):
        with pytest.raises(DeshiError, match="can choose among answers that exist"):
            deshi.label(*words, *more, run="tiny_seed0")
    config = next((root / "runs" / "fit").glob("*_tiny_seed1")) / "config.yaml"
    config.write_text(config.read_text().replace("train_targets: train", "train_targets: including_validation"))
    with pytest.raises(DeshiError, match="may have seen what is validated and tested"):
        deshi.label(*words, "selection=uncertainty", "selection.student=tiny_seed1", run="tiny_seed0")
    assert not (root / "soft_labels" / "bought").exists()
