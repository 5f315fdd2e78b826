"""Profiles that a chat model writes: what it is shown, what is kept, what it may cost, by the commands a user types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import ChatServer, chat_server
from tiny_models import write_tiny_bert

import deshi
from deshi.cli import main
from deshi.configuration.targets import ConfigError
from deshi.data.bundle import Bundle
from deshi.types import DeshiError

pytest.importorskip("transformers")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-the-tests-0123456789")
    with chat_server() as server:
        server.rule = lambda body, number: f"<think>Hm.</think> Likes {len(titles(body))} films of love and war."
        yield server


def titles(body: dict[str, Any]) -> list[str]:
    """The titles that a request shows."""
    return re.findall(r'^- "(.*)"$', body["messages"][1]["content"], re.MULTILINE)


def words(root: Path, server: ChatServer, bert: Path, *more: str) -> list[str]:
    endpoint = [f"profiles.endpoint.url={server.url}", "profiles.endpoint.model=scripted"]
    encoder = f"profiles.encoder={{_target_: deshi.teachers.encoders.SentenceEncoder, name: {bert}}}"
    place = [f"paths.root={root}", f"profiles.path={root / 'written' / 'profiles.parquet'}"]
    return [*place, "profiles=asked", *endpoint, encoder, "k=5", *more]


def test_a_chat_model_writes_profiles_from_training_events(
    finished_root: Path, server: ChatServer, own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for each user, within the budget; the texts can be read, and nothing that is held out is shown."""
    bert, bundle = write_tiny_bert(tmp_path / "bert"), Bundle.load(finished_root / "data" / "tiny")
    told = words(finished_root, server, bert, "profiles.latest=1000", "store=told")
    assert main(["label", "tiny_seed0", *told, "profiles.endpoint.prices.prompt=5", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"at most {bundle.n_users} requests" in shown and "of money" in shown and not server.bodies
    scarce = [*told, "profiles.budget.requests=7"]
    assert main(["label", "tiny_seed0", *scarce]) == 2 and len(server.bodies) == 7
    assert "budget.requests=7 is reached" in capsys.readouterr().err
    result = deshi.label(*told, run="tiny_seed0")
    assert server.asked_twice == 0
    table = pl.read_parquet(finished_root / "written" / "profiles.parquet")
    lengths = (bundle.offsets[1:] - bundle.offsets[:-1]).tolist()
    assert table["user_id"].to_list() == bundle.users["user_id"].to_list()
    expected = [f"Likes {length - 2} films of love and war." for length in lengths]
    assert table["profile"].to_list() == expected, "two events of each are held out"
    stored = result.soft_labels.user_embeddings()
    assert stored is not None and stored.any(1).all()
    names = bundle.item_table()["title"].to_list()
    histories = {
        tuple(names[item] for item in bundle.items[start : end - 2])
        for start, end in zip(bundle.offsets[:-1], bundle.offsets[1:], strict=True)
    }
    assert {tuple(titles(body)) for body in server.bodies} == histories
    assert len(server.bodies) == len(histories), "users of the same history share an answer"


def test_what_cannot_be_asked_is_refused(finished_root: Path, server: ChatServer, tmp_path: Path) -> None:
    """Numbers out of range, a table that isn't one, texts without an encoder: before anything is asked."""
    told = words(finished_root, server, write_tiny_bert(tmp_path / "bert"))
    for word, message in (
        ("profiles.latest=0", "profiles.latest is 0"),
        ("profiles.path=profiles.csv", "expected the name of a .parquet"),
        ("profiles.encoder=null", "a chat model writes texts"),
        ("profiles.endpoint.url=nowhere", "endpoint.url is 'nowhere'"),
    ):
        with pytest.raises((DeshiError, ConfigError), match=message):
            deshi.label(*told, word, run="tiny_seed0", store="refused")
    assert not server.bodies
