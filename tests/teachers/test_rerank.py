"""The mathematics of a reranker: the blend, the choice of its weight, and the contract of scorers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from chat_server import ChatServer, by_title, candidates, chat_server, completion
from torch import Tensor

from deshi.data.example_batches import ExampleBatch
from deshi.metrics import metrics_from_ranks, rank_rows
from deshi.models.sasrec import SASRec
from deshi.models.scorers import Scorer, SequentialScorer
from deshi.teachers._rerank_weight import RerankPool, _held_out_gains, choose_weight
from deshi.teachers.base import Resources
from deshi.teachers.endpoint import Endpoint
from deshi.teachers.ensemble import normalised
from deshi.teachers.rerank import Rerank, blended, questions
from deshi.teachers.rerank_prompts import RerankPrompt
from deshi.testing import TeacherContract
from deshi.testing.teachers import history_batch
from deshi.types import PAD, Batch, DeshiError
from tiny_bundles import tiny_bundle

ITEMS = 20


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


def teacher(server: ChatServer, folder: Path, **settings: Any) -> Rerank:
    """Over an untrained network, its titles in the reverse order of its items."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = SequentialScorer(SASRec(ITEMS, 8, 8))
    titles = pl.DataFrame(
        {"item_id": [f"i{item}" for item in range(ITEMS)], "title": [f"T{ITEMS - item:02}" for item in range(ITEMS)]}
    )
    bundle = tiny_bundle(folder, [[0, 1, 2]], n_items=ITEMS, items=titles)
    resources = Resources(bundle, folder, cast(Any, None), torch.device("cpu"), lambda name, device: (first, {}))
    settings = dict[str, Any](candidates=5, weight=1.0, prompt=RerankPrompt()) | settings
    return Rerank(ITEMS, resources, "first", Endpoint(server.url, "scripted", retries=0), **settings)


class TestRerankIsATeacher(TeacherContract):
    @pytest.fixture
    def scorer(self, server: ChatServer, tmp_path: Path) -> Scorer:
        return teacher(server, tmp_path)


def log_probabilities(rows: int, items: int = 30, seed: int = 0) -> Tensor:
    return torch.randn(rows, items, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(1)


def test_the_blend_deals_out_the_mass_of_the_candidates() -> None:
    """By hand: shares of the first stage times exp(weight * opinion), the rest untouched."""
    scores = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    opinion = torch.tensor([[0.0, 1.0]])
    result = blended(scores, torch.tensor([[0, 1]]), opinion, 0.5, torch.tensor([0.2]).log()).exp()[0]
    weighted = torch.tensor([0.4, 0.3 * torch.e**0.5])
    torch.testing.assert_close(result, torch.cat([0.7 * weighted / weighted.sum(), torch.tensor([0.2, 0.1])]))


@pytest.mark.parametrize("weight", [0.1, 1.0, 8.0, 1e4])
def test_candidates_stay_above_the_rest(weight: float) -> None:
    """Whatever the answer says: the rest was never shown to the model, and keeps its scores and order."""
    scores, opinion = log_probabilities(50), torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    best = scores.topk(7)
    items = best.indices[:, :6]
    result = blended(scores, items, opinion, weight, best.values[:, 6])
    rest = torch.ones_like(scores, dtype=torch.bool).scatter_(1, items, False)
    assert torch.equal(result[rest], scores[rest])
    assert bool((result.gather(1, items).amin(1) > result.masked_fill(~rest, -torch.inf).amax(1)).all())
    mixed = scores.gather(1, items) + weight * opinion
    assert torch.equal(result.gather(1, items).argsort(1), mixed.argsort(1)), "in the order of the sum"


def test_fewer_candidates_than_places() -> None:
    """Histories that have seen nearly everything: padding is no candidate."""
    scores = log_probabilities(2, 4)
    items = torch.tensor([[2, 1, PAD], [0, 1, 2]])
    result = blended(scores, items, torch.zeros(2, 3), 1.0, torch.full((2,), -torch.inf))
    torch.testing.assert_close(result, scores)


def test_scores_follow_the_answer_and_refusals_keep_the_first_stage(server: ChatServer, tmp_path: Path) -> None:
    """End to end on two histories, of which one gets an answer that can't be used, twice."""
    reranker = teacher(server, tmp_path, weight=1e4)
    batch = history_batch(ITEMS, (3, 2))
    first = normalised(reranker.first.scores(batch), "log_softmax")
    asked = questions(batch, reranker._candidates(first, batch)[0])
    refused = {f"T{ITEMS - item:02}" for item in asked[1].candidates}

    def answer(body: dict[str, Any], number: int) -> str:
        return "I can't." if set(candidates(body).values()) == refused else by_title(body)

    server.rule = answer
    scores = reranker.scores(batch)
    assert torch.equal(scores[1], first[1])
    # alphabetical titles are descending item indices
    assert scores[0].masked_fill(torch.isin(torch.arange(ITEMS), batch.items[0]), -torch.inf).topk(
        5
    ).indices.tolist() == sorted(asked[0].candidates, reverse=True)
    cost = reranker.cost()
    assert (cost["questions"], cost["refused"], cost["requests"], cost["second_attempts"]) == (2, 1, 3, 1)
    second = server.bodies[-1]["messages"]
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    assert second[2]["content"] == "I can't." and "can't be used" in second[3]["content"]
    again = teacher(server, tmp_path / "again", weight=1e4)
    assert again.asker.cache is not reranker.asker.cache


def test_weight_0_asks_nothing(server: ChatServer, tmp_path: Path) -> None:
    """Where validation says that answers don't help, none is paid for."""
    reranker, batch = teacher(server, tmp_path, weight=0.0), history_batch(ITEMS)
    assert torch.equal(reranker.scores(batch), normalised(reranker.first.scores(batch), "log_softmax"))
    assert not server.bodies


def test_two_orders_are_averaged(server: ChatServer, tmp_path: Path) -> None:
    """A model that always prefers what stands first has said nothing; its two orders nearly cancel."""
    server.rule = lambda body, number: ", ".join(candidates(body))
    reranker, batch = teacher(server, tmp_path, prompt=RerankPrompt(orders=2)), history_batch(ITEMS, (3,))
    first = normalised(reranker.first.scores(batch), "log_softmax")
    opinion = reranker.questioner.ask(questions(batch, reranker._candidates(first, batch)[0]))[0]
    assert opinion is not None and len(server.bodies) == 2 and len({round(value, 6) for value in opinion}) == 3
    shown = [list(candidates(body).values()) for body in server.bodies]
    assert shown[0] == shown[1][::-1]


@pytest.mark.parametrize("method", ["letter", "yes"])
def test_pointwise_answers(method: Any, server: ChatServer, tmp_path: Path) -> None:
    """First tokens' log-probabilities order the candidates; without any, the message says what to take."""

    def answer(body: dict[str, Any], number: int) -> Any:
        assert body["max_tokens"] == 1 and body["logprobs"] is True and body["top_logprobs"] == 20
        text = body["messages"][-1]["content"]
        if method == "yes":
            title = int(text.rsplit('"T', 1)[1][:2])
            return completion("yes", {"yes": -0.1 * title, "no": -1.0})
        return completion("A", {name: -0.1 * int(title[1:]) for name, title in candidates(body).items()})

    server.rule = answer
    reranker, batch = teacher(server, tmp_path, weight=1e4, prompt=RerankPrompt(method)), history_batch(ITEMS, (3,))
    first = normalised(reranker.first.scores(batch), "log_softmax")
    items = reranker._candidates(first, batch)[0][0]
    scores = reranker.scores(batch)[0]
    assert items[scores[items].argsort(descending=True)].tolist() == sorted(items.tolist(), reverse=True)
    assert len(server.bodies) == (5 if method == "yes" else 1)
    server.rule = lambda body, number: completion("yes")
    with pytest.raises(DeshiError, match="gives no log-probabilities.*prompt.answer=list"):
        reranker.scores(history_batch(ITEMS, (4,), seed=3))


def _validation(rows: int, seed: int = 0) -> tuple[ExampleBatch, Tensor, Tensor, Tensor]:
    """Examples among 30 items with two targets each, the second one missing at times."""
    generator = torch.Generator().manual_seed(seed)
    scores = log_probabilities(rows, seed=seed)
    targets = torch.stack([torch.randperm(30, generator=generator)[:2] for _ in range(rows)])
    targets[::3, 1] = PAD
    nothing = torch.full((rows, 1), PAD)
    histories = Batch(torch.arange(rows), torch.zeros(rows, 1, dtype=torch.int64), torch.ones(rows, dtype=torch.int64),
                      nothing, nothing)  # fmt: skip
    best = scores.topk(9)
    return ExampleBatch(torch.arange(rows), histories, targets, nothing), scores, best.indices[:, :8], best.values[:, 8]


def test_ranks_among_candidates_are_the_full_ones() -> None:
    """The whole point of few answers: metrics by the pool are those of ranking the catalogue by the blend."""
    batch, scores, items, floor = _validation(60)
    opinion = torch.randn(60, 8, generator=torch.Generator().manual_seed(5))
    pool = RerankPool()
    pool.add(batch, scores, items, floor, questions(batch.histories, items))
    numbers = pool.drawn(60, 0)
    assert 20 < len(numbers) < 60, "only examples with a target among the candidates"
    opinions = [opinion[number].tolist() for number in numbers]
    choice = choose_weight(pool, numbers, opinions, blended, given=0.7)
    full = blended(scores, items, opinion, 0.7, floor)
    ranks = rank_rows(full, batch.targets, batch.seen)[0].numpy()
    examples = np.repeat(np.arange(60), 2).reshape(60, 2)
    real = ~np.isnan(ranks)
    expected = metrics_from_ranks(ranks[real], (10,), examples[real])
    assert choice.metrics == pytest.approx({f"validation/{name}": value for name, value in expected.items()})
    assert choice.tried[0]["ndcg@10"] == pytest.approx(choice.first)


def test_the_weight_is_large_for_an_oracle_and_0_for_its_opposite() -> None:
    """Answers that know the targets help, with an interval above 0; answers that know them and lie are not taken."""
    batch, scores, items, floor = _validation(300)
    pool = RerankPool()
    pool.add(batch, scores, items, floor, questions(batch.histories, items))
    numbers = pool.drawn(80, 0)
    assert len(numbers) == 80 and numbers == pool.drawn(80, 0) != pool.drawn(80, 1)
    hits = (items[:, :, None] == batch.targets[:, None]).any(2).float()
    wise = [hits[number].tolist() for number in numbers]
    choice = choose_weight(pool, numbers, wise, blended, None)
    assert choice.weight >= 5 and 0 < choice.low < choice.gain < choice.high and choice.alone > choice.first
    assert "asked about 80 of" in str(choice) and choice.state()["validation"]["asked"] == 80
    lying = choose_weight(pool, numbers, [[-value for value in row] for row in wise], blended, None)
    assert lying.weight == 0 and lying.gain == 0 and lying.alone < lying.first
    assert lying.metrics["validation/ndcg@10"] == pytest.approx(lying.first)


def test_noise_does_not_look_like_a_gain() -> None:
    """Each gain is measured by the weight that other examples chose; that of the best weight is far above 0 by luck."""
    drawn = [np.random.default_rng(seed).normal(size=(12, 60)) for seed in range(300)]
    assert abs(np.mean([_held_out_gains(gains).mean() for gains in drawn])) < 0.03
    assert np.mean([gains.mean(1).max() for gains in drawn]) > 0.15


def test_nothing_to_ask_is_weight_0() -> None:
    """No target among the candidates, or every answer refused."""
    batch, scores, items, floor = _validation(20)
    pool = RerankPool()
    pool.add(batch._replace(targets=torch.full((20, 1), 0)), scores, torch.where(items == 0, 29, items), floor,
             questions(batch.histories, items))  # fmt: skip
    assert choose_weight(pool, [], [], blended, None).weight == 0
    pool = RerankPool()
    pool.add(batch, scores, items, floor, questions(batch.histories, items))
    numbers = pool.drawn(10, 0)
    refused = choose_weight(pool, numbers, [None] * len(numbers), blended, None)
    assert refused.weight == 0 and refused.refused == len(numbers) and refused.gain == 0


def test_wrong_settings_are_refused(server: ChatServer, tmp_path: Path) -> None:
    """Before anything is asked."""
    wrong: list[dict[str, Any]] = [
        {"candidates": 1}, {"weight": -1.0}, {"weight": None, "validation_examples": 0}, {"validation_examples": -1},
        {"candidates": 27, "prompt": RerankPrompt("letter")},
    ]  # fmt: skip
    for number, settings in enumerate(wrong):
        with pytest.raises(DeshiError):
            teacher(server, tmp_path / str(number), **settings)
    with pytest.raises(DeshiError, match="no weight yet"):
        teacher(server, tmp_path / "last", weight=None).scores(history_batch(ITEMS))
