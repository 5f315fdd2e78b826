"""A chat model that reorders a student's lists, by the commands that a user types, against a scripted endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, by_title, chat_server

import deshi
from deshi.cli import main
from deshi.configuration.targets import ConfigError
from deshi.soft_labels import SoftLabels
from deshi.types import DeshiError
from tiny_movielens import SMALL

KEY = "sk-a-key-of-the-tests-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with chat_server() as server:
        yield server


def words(root: Path, server: ChatServer, *more: str) -> list[str]:
    first = [f"paths.root={root}", "teacher=rerank", "teacher.first=tiny_seed0", "teacher.candidates=5"]
    return [*first, f"teacher.endpoint.url={server.url}", "teacher.endpoint.model=scripted", *more]


def test_a_reranked_student_teaches_another(
    finished_root: Path, config_dir: Path, server: ChatServer, own_cache: Path
) -> None:
    """Choice on validation, lists, evaluation and distillation; the account stands where it should, the key nowhere."""
    root = f"paths.root={finished_root}"
    run = deshi.teach(*words(finished_root, server, "name=asked"), config_dir=config_dir, data="tiny")
    state = run.record["state"]
    validation, sent = state["validation"], len(server.bodies)
    assert 0 < validation["asked"] == validation["answerable"] == state["cost"]["questions"] < validation["examples"]
    assert (
        sent == state["cost"]["requests"] - state["cost"]["cached"] > 0
        and validation["low"] <= validation["gain"] <= validation["high"]
    )
    assert run.metrics["validation/ndcg@10"] == pytest.approx(max(each["ndcg@10"] for each in state["tried"]))
    heavy = deshi.teach(
        *words(finished_root, server, "name=heavy", "teacher.weight=3"), config_dir=config_dir, data="tiny"
    )
    assert len(server.bodies) == sent, "the same questions"
    # the figure that few answers gave is that of ranking everything
    full = deshi.evaluate(root, run="heavy", part="validation")
    assert full.metrics["validation/ndcg@10"] == pytest.approx(heavy.metrics["validation/ndcg@10"])
    sample = deshi.evaluate(root, run="heavy", sample=15)
    assert any("A sample of the examples: 15 test" in note for note in sample.notes)
    record = json.loads((sample.folder / "run.json").read_text())
    assert record["cost"]["questions"] == 15 and record["protocol"]["sample"] == 15

    server.rule, sent = (lambda body, number: "Sorry." if number % 5 == 0 else by_title(body)), len(server.bodies)
    result = deshi.label(root, run="heavy", k=10, positions="sample:0.1", store="lists")
    store = SoftLabels.load(finished_root / "soft_labels" / "lists", check=True)
    cost = store.manifest["cost"]
    assert cost["questions"] == store.covered.sum() and cost["second_attempts"] > 0
    assert cost["requests"] - cost["cached"] == len(server.bodies) - sent > 0
    assert f"Asked about {cost['questions']} lists" in str(result)
    distilled = deshi.distill(
        root, "distill=listwise", "soft_labels=[lists]", *SMALL, config_dir=config_dir, data="tiny"
    )
    assert distilled.metrics["validation/ndcg@10"] > 0
    assert server.asked_twice == 0
    for folder in (finished_root, own_cache):
        assert not [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_the_budget_stops_a_store_that_goes_on(
    finished_root: Path, config_dir: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line ends with a message and status 2; the same command finishes, and no answer is paid for twice."""
    scarce = ["teacher.weight=2", "teacher.budget.requests=15", "teacher.endpoint.model=poor"]
    deshi.teach(*words(finished_root, server, "name=poor", *scarce), config_dir=config_dir, data="tiny")
    command = ["label", "poor", f"paths.root={finished_root}", "k=8", "positions=validation+test", "store=poor"]
    codes: list[int] = []
    while len(codes) < 9 and not (codes and codes[-1] == 0):
        before = len(server.bodies)
        codes.append(main(command))
        assert len(server.bodies) - before <= 15
    assert codes[-1] == 0 and codes[0] == 2 and len(codes) >= 3
    assert "budget.requests=15 is reached: 15 requests, 1,650 tokens" in capsys.readouterr().err
    assert server.asked_twice == 0
    store = SoftLabels.load(finished_root / "soft_labels" / "poor", check=True)
    assert store.manifest["cost"]["questions"] == 120


def test_a_dry_run_tells_what_it_may_cost(
    finished_root: Path, config_dir: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any money is spent, for the choice of the weight, the lists and the ranks."""
    prices = ["teacher.endpoint.prices.prompt=2", "teacher.endpoint.prices.answer=8", "teacher.weight=1"]
    line = words(finished_root, server, *prices, "name=dear")

    def printed(*command: str) -> str:
        assert main([*command, "--dry-run"]) == 0
        return " ".join(capsys.readouterr().out.split())

    text = printed("teach", *line, "data=tiny", "--config-dir", str(config_dir))
    assert "at most 200 requests" in text and "of money" in text and "ends it at requests 10,000" in text
    assert not server.bodies
    deshi.teach(*line, config_dir=config_dir, data="tiny")
    sent, root = len(server.bodies), f"paths.root={finished_root}"
    assert "at most 60 requests" in printed("label", "dear", root, "positions=validation")
    assert "at most 25 requests" in printed("evaluate", "dear", root, "sample=25")
    assert len(server.bodies) == sent


def test_what_is_missing_is_told_first(
    finished_root: Path, config_dir: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key, the client's package, the endpoint; a first stage that doesn't exist."""
    line = words(finished_root, server)
    monkeypatch.delenv("OPENAI_API_KEY")
    away = [*line, "teacher.endpoint.url=https://api.example.org/v1"]
    with pytest.raises(DeshiError, match=r"no such variable.*export OPENAI_API_KEY"):
        deshi.teach(*away, config_dir=config_dir, data="tiny")
    monkeypatch.setattr("deshi.configuration.needs._is_installed", lambda module: module != "openai")
    with pytest.raises(DeshiError, match=r"needs openai, not installed(.|\n)*pip install 'deshi\[api\]'"):
        deshi.teach(*line, config_dir=config_dir, data="tiny")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="teacher.endpoint"):
        deshi.teach(*line[:4], config_dir=config_dir, data="tiny")
    with pytest.raises(DeshiError, match="nowhere"):
        deshi.teach(*line, "teacher.first=nowhere", config_dir=config_dir, data="tiny")
