"""The semantic-ID teacher: likelihoods that are exact, beams that aren't, and a run like any other teacher's."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny_models import write_tiny_bert
from torch import Tensor

import deshi
from cut_trainings import cut_in_second_epoch
from deshi.configuration.targets import ConfigError
from deshi.losses.bce import BCE
from deshi.losses.softmax import Softmax
from deshi.models.scorers import RecommenderScorer, Scorer, scorer_of
from deshi.runs import Run
from deshi.soft_labels import SoftLabels
from deshi.teachers._code_trie import GroupedCrossEntropy, Siblings, TrieLevel, trie_levels
from deshi.teachers.base import Resources
from deshi.teachers.residual_codes import ResidualCodes
from deshi.teachers.semantic_ids import SemanticIds
from deshi.testing import TeacherContract
from deshi.types import PAD, Batch, DeshiError, ScoreKind
from fake_gpu import DEVICE, never_waits
from tiny_movielens import SMALL

N_ITEMS = 40
TRAIN = tuple(word for word in SMALL if word.startswith("train."))
LENGTHS = torch.full((8,), 5)


class Vectors:
    """Stands for ItemEmbeddings: fixed random vectors in groups, some items alike."""

    def __init__(self, rows: int = N_ITEMS) -> None:
        self.rows = rows

    def __call__(self, *_: Any) -> Tensor:
        drawn = torch.randn(self.rows, 6, generator=torch.Generator().manual_seed(0))
        drawn[1:4] = drawn[0]
        return drawn

    def describe(self, *_: Any) -> dict[str, Any]:
        return {"name": "random"}


def network(cache: Path, seed: int = 0, beams: int | None = None, rows: int = N_ITEMS) -> SemanticIds:
    """A network whose codes are of ``seed``; its weights are the same for every seed."""
    resources = Resources(cast(Any, None), cache, cast(Any, None), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SemanticIds(
            N_ITEMS, resources, cast(Any, Vectors(rows)), ResidualCodes((5, 3), seed=seed), dim=16, max_length=6,
            dropout=0.0, branch_dim=16, beams=beams,
        )  # fmt: skip


def histories() -> Tensor:
    return torch.randint(N_ITEMS, (8, 6), generator=torch.Generator().manual_seed(1))


def batch() -> Batch:
    items = histories()
    return Batch(torch.arange(8), items[:, :-1], LENGTHS, items[:, 1:], torch.zeros(8, 5, dtype=torch.long))


def chain(teacher: SemanticIds, hidden: Tensor, item: int, length: int) -> float:
    """The log-probability of an item's first codes, level by level: a softmax over the codes that may follow."""
    codes, total = teacher.codes.tolist(), 0.0
    for level in range(length):
        beginning = codes[item][:level]
        children = sorted({row[level] for row in codes if row[:level] == beginning})
        paths = torch.tensor([[*beginning, child] for child in children])
        logits = teacher.states[level](paths) @ teacher.queries[level](hidden)
        total += float(logits.log_softmax(0)[children.index(codes[item][level])])
    return total


@torch.no_grad()
def test_the_ranking_is_the_chain_of_levels(tmp_path: Path) -> None:
    """Full-catalogue scores are log-probabilities that sum to one and equal p(c1) p(c2 | c1) ... by brute force."""
    teacher = network(tmp_path).eval()
    scores = teacher.next_scores(histories(), torch.full((8,), 6))
    assert scores.dtype == torch.float32 and scores.shape == (8, N_ITEMS)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(8))
    hidden = teacher.history.last_hidden(histories(), torch.full((8,), 6))
    for row, item in itertools.product((0, 5), range(N_ITEMS)):
        assert float(scores[row, item]) == pytest.approx(chain(teacher, hidden[row], item, 3), abs=1e-5)
    assert len(set(scores[0].tolist())) == N_ITEMS, "items of equal texts have their own IDs"


def test_training_and_ranking_have_one_likelihood(tmp_path: Path) -> None:
    """The loss is the mean of minus the log-probabilities at all positions, with the gradient that autograd gives."""
    teacher = network(tmp_path).eval()
    loss = teacher.training_loss(batch(), Softmax())
    scores = teacher.position_scores(batch().items, LENGTHS, torch.ones(8, 5, dtype=torch.bool))
    exact = -scores.gather(1, batch().targets.flatten()[:, None]).mean()
    torch.testing.assert_close(loss, exact)
    parameters = [parameter for parameter in teacher.parameters() if parameter.numel()]
    pairs = zip(
        torch.autograd.grad(loss, parameters, allow_unused=True),
        torch.autograd.grad(exact, parameters, allow_unused=True),
        strict=True,
    )
    for ours, theirs in pairs:
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_level_without_siblings_costs_nothing() -> None:
    """Codes that alone continue their beginning have probability one and no row."""
    [first, second] = trie_levels(torch.tensor([[0, 0], [1, 0], [1, 1], [2, 5]]))
    assert isinstance(first, TrieLevel) and first.paths.tolist() == [[0], [1], [2]]
    assert isinstance(second, TrieLevel) and second.paths.tolist() == [[1, 0], [1, 1]]
    assert second.branches.tolist() == [2, 0, 1, 2], "2, the number of branches, stands for none"
    siblings = Siblings(second, torch.tensor([0, 3, 2, 1, 2]))
    assert siblings.positions.tolist() == [2, 3, 4] and siblings.shapes == [(3, 2)]
    nothing = Siblings(second, torch.tensor([0, 3]))
    total = GroupedCrossEntropy.apply(torch.empty(0, 4), torch.empty(0, 4), nothing)
    assert float(cast(Tensor, total)) == 0.0


def test_items_that_share_an_id_are_refused() -> None:
    """No hit may ever count for two items (arXiv 2605.25330)."""
    with pytest.raises(DeshiError, match="3 items have 2 semantic IDs"):
        trie_levels(torch.tensor([[0, 1], [0, 1], [1, 0]]))


@torch.no_grad()
def test_beams_rank_what_a_beam_search_reaches(tmp_path: Path) -> None:
    """As a search level by level by brute force; its scores are the exact ones; a wide beam is the exact ranking."""
    exact, narrow = network(tmp_path).eval(), network(tmp_path, beams=4).eval()
    lengths = torch.full((8,), 6)
    scores, searched = exact.next_scores(histories(), lengths), narrow.next_scores(histories(), lengths)
    reached = searched > -torch.inf
    assert torch.equal(searched[reached], scores[reached]) and reached.sum(1).tolist() == [4] * 8
    hidden = exact.history.last_hidden(histories(), lengths)
    codes = [tuple(row) for row in exact.codes.tolist()]
    for row in range(3):
        kept: set[tuple[int, ...]] = {()}
        for level in range(3):
            items = {code[: level + 1]: item for item, code in enumerate(codes) if code[:level] in kept}
            values = {path: chain(exact, hidden[row], item, level + 1) for path, item in items.items()}
            kept = set(sorted(values, key=lambda path: -values[path])[:4])
        assert {codes[item] for item in reached[row].nonzero()[:, 0].tolist()} == kept
    wide = network(tmp_path, beams=N_ITEMS).eval()
    assert torch.equal(wide.next_scores(histories(), lengths), scores)


def test_it_learns_a_tiny_batch_by_heart(tmp_path: Path) -> None:
    """Codes alone must tell all items apart, those of one text too."""
    teacher = network(tmp_path)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=0.03)
    for _ in range(70):
        loss = teacher.training_loss(batch(), Softmax())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2
    with torch.no_grad():
        scores = teacher.eval().position_scores(batch().items, LENGTHS, batch().targets != PAD)
    assert (scores.argmax(1) == batch().targets.flatten()).double().mean() > 0.95


@torch.no_grad()
def test_weights_bring_their_codes(tmp_path: Path) -> None:
    """On a machine where k-means ends elsewhere, a run must keep the codes that it was trained on."""
    trained, other = network(tmp_path).eval(), network(tmp_path, seed=7).eval()
    assert not torch.equal(trained.codes, other.codes)
    other.load_state_dict(trained.state_dict())
    lengths = torch.full((8,), 6)
    assert torch.equal(other.next_scores(histories(), lengths), trained.next_scores(histories(), lengths))


class TestScorer(TeacherContract):
    @pytest.fixture(params=[None, 5])
    def scorer(self, request: pytest.FixtureRequest, tmp_path: Path) -> Scorer:
        scorer = scorer_of(network(tmp_path, beams=request.param))
        assert isinstance(scorer, RecommenderScorer) and scorer.max_length == 6
        assert scorer.score_kind is ScoreKind.LOG_PROBABILITY
        return scorer


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    """Beams of nothing, vectors of another catalogue, and losses that need an item table."""
    with pytest.raises(DeshiError, match=r"teacher.beams is 0, expected 1 or more"):
        network(tmp_path, beams=0)
    with pytest.raises(DeshiError, match="41 text embeddings, expected one for each of 40"):
        network(tmp_path, rows=N_ITEMS + 1)
    with pytest.raises(DeshiError, match="loss is BCE, but a semantic-ID teacher"):
        network(tmp_path).training_loss(batch(), BCE())


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("bert"))


def words(root: Path, bert: Path) -> list[str]:
    encoder = "teacher.embeddings.encoder"
    return [
        f"paths.root={root}", f"paths.cache={root / 'cache'}", *TRAIN, "teacher=semantic-ids", "teacher.dim=16",
        "teacher.max_length=10", "teacher.codes.sizes=[4,4]",
        f"{encoder}._target_=deshi.teachers.encoders.SentenceEncoder", f"{encoder}.name={bert}",
    ]  # fmt: skip


def test_a_run_is_evaluated_labelled_and_a_member(finished_root: Path, config_dir: Path, bert: Path) -> None:
    """From titles to lists like any other teacher; an interrupted training goes on to the same weights."""
    root = f"paths.root={finished_root}"
    run = deshi.teach(*words(finished_root, bert), "name=codes", config_dir=config_dir, data="tiny")
    record = json.loads((run.folder / "run.json").read_text())
    assert record["codes"]["sizes"] == [4, 4] and record["codes"]["most_items_of_equal_codes"] >= 1
    evaluated = deshi.evaluate(root, run="codes", part="validation")
    assert evaluated.metrics["validation/ndcg@10"] == pytest.approx(run.metrics["validation/ndcg@10"], abs=1e-6)

    deshi.label(root, run="codes", k=5, store="codes")
    store = SoftLabels.load(finished_root / "soft_labels" / "codes")
    assert store.score_kind is ScoreKind.LOG_PROBABILITY and store.item_embeddings() is None
    with pytest.raises(DeshiError, match="vectors=text, but semanticids isn't made of"):
        deshi.label(root, run="codes", vectors="text", store="none")
    distilled = deshi.distill(
        root, *SMALL, "distill=listwise", "soft_labels=[codes]", config_dir=config_dir, data="tiny"
    )
    assert 0 <= distilled.metrics["validation/ndcg@10"] <= 1

    members = ["teacher=ensemble", "teacher.members=[tiny_seed0,codes]"]
    both = deshi.teach(root, *members, config_dir=config_dir, data="tiny")
    assert both.metrics["validation/ndcg@10"] >= run.metrics["validation/ndcg@10"] - 1e-6


def test_an_interrupted_training_resumes_to_the_same_weights(
    finished_root: Path, config_dir: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in its second epoch and resumed, it answers as the uninterrupted run does."""
    given = words(finished_root, bert)
    whole = deshi.teach(*given, "name=whole", config_dir=config_dir, data="tiny")
    with cut_in_second_epoch(monkeypatch, "deshi teach resume="):
        deshi.teach(*given, "name=cut", config_dir=config_dir, data="tiny")
    cut = next((finished_root / "runs" / "teach").glob("*_cut"))
    deshi.teach(f"paths.root={finished_root}", resume=str(cut))
    state, expected = (Run(folder).network().state_dict() for folder in (cut, whole.folder))
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("teacher.codes.sizes=8", "teacher.codes.sizes"),
        ("teacher.code.sizes=[8]", "teacher.code"),
        ("teacher.beams=wide", "teacher.beams"),
        ("loss=bce", "Leave loss out"),
    ],
)
def test_wrong_words_say_what_is_expected(
    finished_root: Path, config_dir: Path, bert: Path, word: str, message: str
) -> None:
    """Configuration errors name the key."""
    with pytest.raises((DeshiError, ConfigError), match=message):
        deshi.teach(*words(finished_root, bert), word, config_dir=config_dir, data="tiny")


def test_no_step_waits_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The siblings of a batch's targets are looked up on the CPU."""
    teacher = network(tmp_path).train().to(DEVICE)
    with never_waits(monkeypatch):
        teacher.training_loss(batch().to(DEVICE), Softmax()).backward()
