"""STAR as a baseline of evaluate: named it makes the items' text vectors, beside others it takes cached ones only."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tiny_models import write_tiny_bert

import deshi
from deshi.evaluation import EvaluateResult
from deshi.teachers import ItemEmbeddings, SentenceEncoder
from deshi.types import DeshiError


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a tiny BERT that stands in for MiniLM."""
    folder = write_tiny_bert(tmp_path / "bert")
    embeddings = partial(ItemEmbeddings, encoder=SentenceEncoder(name=str(folder)))
    monkeypatch.setattr("deshi.stages._baselines.ItemEmbeddings", embeddings)
    return folder


def evaluate(root: Path, *words: str, config_dir: Path) -> EvaluateResult:
    result: EvaluateResult = deshi.evaluate(
        f"paths.root={root}", f"paths.cache={root}/cache", *words, data="tiny", config_dir=config_dir
    )
    return result


@pytest.mark.usefixtures("encoder")
def test_named_it_makes_the_vectors_that_it_takes_beside_others(finished_root: Path, config_dir: Path) -> None:
    """The vectors are computed once, by the command that says so, and then the same figures come beside a run's."""
    before = evaluate(finished_root, "with_baselines=true", config_dir=config_dir)
    assert "star" not in before.baselines and any("star was left out" in note for note in before.notes)
    alone = evaluate(finished_root, "baseline=star", config_dir=config_dir)
    assert alone.model == "star" and 0 < alone.metrics["test/ndcg@10"] < 1
    beside = evaluate(finished_root, "with_baselines=true", config_dir=config_dir)
    assert beside.baselines["star"]["test/ndcg@10"] == alone.metrics["test/ndcg@10"]
    assert not any("star" in note for note in beside.notes)


def test_items_without_texts_have_no_star(tmp_path: Path) -> None:
    """With all baselines it is left out with a note; named, it is refused."""
    events = tmp_path / "events.csv"
    rows = [f"{user},{(user + step) % 15},{step}" for user in range(20) for step in range(6)]
    events.write_text("\n".join(["user,item,timestamp", *rows]))
    words = [f"paths.root={tmp_path}", "data=tabular", "data.name=bare", f"data.source.path={events}"]
    words += ["data.source.user=user", "data.source.item=item", "data.source.timestamp=timestamp"]
    words += ["data.source.time_unit=position"]
    deshi.prepare(*words)
    result = deshi.evaluate(*words, "with_baselines=true")
    assert any(note == "star was left out: the items have no texts." for note in result.notes)
    with pytest.raises(DeshiError, match="item table"):
        deshi.evaluate(*words, "baseline=star")
