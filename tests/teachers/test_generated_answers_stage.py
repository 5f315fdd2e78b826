"""The stage evaluate asking in words, and what a teacher's run says of its language model, on tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tiny_llm import tiny_model, tiny_tokenizer

import deshi
from deshi.artifacts import read_json
from deshi.data.splits import Examples
from deshi.metrics import answer_metrics
from deshi.teachers.ilora import ILoRA
from deshi.types import DeshiError
from tiny_movielens import SMALL

TRAIN = tuple(word for word in SMALL if word.startswith("train."))
ILORA = ("teacher=ilora", "teacher.student=tiny_seed0", "teacher.max_length=8", "teacher.prompt.candidates=4")


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama as a folder in the hub's layout."""
    folder = tmp_path_factory.mktemp("llm") / "tiny-llama"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def teach(root: Path, config_dir: Path, llm: Path, *words: str) -> Any:
    given = (f"paths.root={root}", *TRAIN, *words, f"teacher.llm.name={llm}", "train.max_epochs=1")
    return deshi.teach(*given, config_dir=config_dir, data="tiny")


def test_a_written_answer_is_counted_beside_the_ranking(finished_root: Path, config_dir: Path, llm: Path) -> None:
    """The paper's protocol by one command: the figures follow from the texts that are kept, on a sample of examples."""
    root = f"paths.root={finished_root}"
    run = teach(finished_root, config_dir, llm, *ILORA, "teacher.objective=both", "name=words")
    found = deshi.evaluate(root, run="words", part="both", candidates="llara", answers=7)
    assert found.metrics["test/n_examples"] == 60 and found.metrics["test/generated_n_examples"] == 7
    answers = pl.read_parquet(found.folder / "answers.parquet")
    assert answers.group_by("part").len()["len"].to_list() == [7, 7]
    sets = pl.read_parquet(found.folder / "candidates.parquet")
    titles = {f"{n}": f"Film {n} (1990)" for n in range(1, 41)}
    own = answers.filter(pl.col("part") == "test").join(sets, on=["part", "example", "user_id", "item_id"])
    assert own.height == 7
    expected = answer_metrics(
        own["text"].to_list(),
        [titles[item] for item in own["item_id"]],
        [[titles[item] for item in row] for row in own["candidates"].to_list()],
    )
    for name, value in expected.items():
        assert found.metrics.get(f"test/generated_{name}", float("nan")) == pytest.approx(value, nan_ok=True)
    ranks = pl.read_parquet(found.folder / "ranks.parquet").join(answers, on=["part", "example"], how="semi")
    first = (ranks.filter(pl.col("part") == "test")["rank"] <= 1).mean()
    assert found.metrics["test/generated_ranked_first"] == pytest.approx(first)
    assert "Generated answers, test, 7 examples" in str(found) and "7 of 60 examples" in str(found)
    assert not any("never to answer" in warning for warning in found.warnings)
    assert set(read_json(found.folder / "time.json")["ilora"]) >= {"test", "test_generated"}
    silent = deshi.evaluate(root, run=str(run.folder), candidates="llara")
    assert "test/generated_n_examples" not in silent.metrics, "nobody waits for answers that were not asked for"
    assert silent.metrics["test/hit_ratio@1"] == found.metrics["test/hit_ratio@1"]


def test_what_generates_no_answers_is_refused(finished_root: Path, config_dir: Path, llm: Path) -> None:
    """Before any ranking: a student, candidates that hold several targets, and no candidates at all."""
    root = f"paths.root={finished_root}"
    with pytest.raises(DeshiError, match="sasrec only ranks"):
        deshi.evaluate(root, run="tiny_seed0", candidates="llara", answers=3)
    with pytest.raises(DeshiError, match="give run=FOLDER and candidates=llara"):
        deshi.evaluate(root, run="tiny_seed0", answers=3)
    teach(finished_root, config_dir, llm, *ILORA, "name=dense")
    with pytest.raises(DeshiError, match="may hold several targets"):
        deshi.evaluate(root, "candidates.n=5", run="dense", candidates="sampled", answers=3)
    untaught = deshi.evaluate(root, run="dense", candidates="llara", answers=2)
    assert any("never to answer (teacher" in warning for warning in untaught.warnings)


def test_a_run_tells_which_language_model_it_is_made_of(finished_root: Path, config_dir: Path, llm: Path) -> None:
    """A mirror's weights are others than the hub's: the record must say which of the two a figure belongs to."""
    run = teach(finished_root, config_dir, llm, *ILORA)
    told = read_json(run.folder / "run.json")["llm"]
    assert told["name"] == str(llm) and len(told["sha256"]) == 64 and str(llm) in told["origin"]
    assert told["dtype"] == "float32" or told["dtype"] == "bfloat16"
    random = teach(finished_root, config_dir, llm, *ILORA, "teacher.llm.random=true")
    told = read_json(random.folder / "run.json")["llm"]
    assert told["sha256"] is None and told["random_seed"] == 0


def test_a_slow_teacher_validates_on_a_sample(
    finished_root: Path, config_dir: Path, llm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """BIGRec generates for every example: an epoch must not wait for all users, and the record says so."""
    words = ("teacher=bigrec", "teacher.history=2", "teacher.max_new_tokens=20", "teacher.validation_examples=5")
    with caplog.at_level("INFO"):
        run = teach(finished_root, config_dir, llm, *words, "train.max_epochs=1")
    assert "validation on 5 of 60 examples" in caplog.text
    record = read_json(run.folder / "run.json")
    assert record["validation_examples"] == 5 and record["llm"]["name"] == str(llm)
    assert run.metrics["validation/ndcg@10"] <= 1


def test_samples_of_examples_are_nested_and_keep_their_targets() -> None:
    """A larger sample must hold the smaller one, or raising its size would draw other examples."""
    offsets = np.array([0, 1, 3, 4, 4 + 2])
    examples = Examples(np.arange(4), np.zeros(4), np.ones(4), offsets, np.arange(10, 16))
    small, large = examples.drawn(2, 7), examples.drawn(3, 7)
    assert small.sum() == 2 and large.sum() == 3 and not (small & ~large).any()
    assert examples.drawn(None, 7).all() and examples.drawn(99, 7).all()
    kept = examples.only(np.array([False, True, False, True]))
    assert kept.users.tolist() == [1, 3] and kept.target_rows.tolist() == [11, 12, 14, 15]
    assert kept.target_offsets.tolist() == [0, 2, 4]


def test_answers_are_written_in_parts(finished_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of a whole batch at once would need gigabytes; parts must say the same."""
    from test_ilora import histories
    from tiny_llm import tiny_teacher

    teacher: ILoRA = tiny_teacher(tmp_path).eval()
    items, lengths = histories([6, 2, 4])
    candidates = torch.tensor([[3, 9, 14], [20, 2, 1], [5, 6, 7]])
    whole = teacher.answer_candidates(items, lengths, candidates)
    monkeypatch.setattr("deshi.teachers.ilora.TOKENS", 1)
    parts = teacher.answer_candidates(items, lengths, candidates)
    assert whole.texts == parts.texts and torch.equal(whole.chosen, parts.chosen)
