"""experiment=auto: the rules by the shape of the data, whose words win, and when nothing is decided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import deshi
from deshi import stages
from deshi.data.splits import LeaveOneOut
from deshi.evaluation._seen_targets import MANY
from deshi.stages._auto import REPEATS, Shape, is_auto, rules, teaching
from deshi.types import DeshiError
from tiny_bundles import random_sequences, tiny_bundle
from tiny_movielens import SMALL

AMAZON = Shape(users=19_412, items=11_924, events=167_597, long_histories=19, texts=1.0)
SMALL_LONG = Shape(users=943, items=1_349, events=99_287, long_histories=300, texts=1.0)
LARGE_LONG = Shape(users=6_040, items=3_416, events=999_611, long_histories=550, texts=1.0)


@pytest.mark.parametrize(
    ("shape", "experiment"),
    [(AMAZON, "short-histories"), (SMALL_LONG, "long-histories"), (LARGE_LONG, "long-histories-large")],
)
def test_experiment_follows_length_and_number_of_events(shape: Shape, experiment: str) -> None:
    """The three kinds of data that the benchmarks know."""
    assert rules(shape, data="x")[0] == f"experiment={experiment}"


@pytest.mark.parametrize(
    ("shape", "texts", "recipe"),
    [(AMAZON, 1.0, "counts-words"), (AMAZON, 0.5, "counts-ids"), (SMALL_LONG, 1.0, "counts")],
)
def test_recipe_follows_texts_and_length(shape: Shape, texts: float, recipe: str) -> None:
    """Without texts a second ID model takes the text teacher's place."""
    words = teaching(replace(shape, texts=texts))
    assert f"recipe={recipe}" in words
    assert any(word.startswith("teachers.text.") for word in words) == (recipe == "counts-words")
    assert ("distill.hard_loss_weight=0.3" in words) == (recipe == "counts-words")


def test_items_with_hundreds_of_events_need_no_text() -> None:
    """On MovieLens-1M a second ID model is a better member than a text model; its student does without dropout."""
    words = [*rules(LARGE_LONG, data="x"), *teaching(LARGE_LONG)]
    assert words[1:] == ["recipe=counts-ids", "soft_labels.lists.min_context=100", "distilled.student.dropout=0.0"]


def test_many_events_get_fewer_epochs_and_long_histories_longer_windows() -> None:
    """A training of thirty passes over twenty million events would take days."""
    words = rules(Shape(2_000_000, 50_000, 20_000_000, 80, 0.0), data="x")
    assert words == [
        "experiment=short-histories", "student.dropout=0.2", "student.max_length=100", "train.max_epochs=4",
        "loss=sampled_softmax", "loss.strategy=mixed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("items", "events", "sampled"), [(11_924, 167_597, False), (20_000, 3_000_000, False), (60_000, 2_000_000, True)]
)
def test_large_catalogues_are_trained_on_a_sample_of_items(items: int, events: int, sampled: bool) -> None:
    """The full softmax of 60,000 items after 50 million events takes hours; its sample costs 2 % on Toys."""
    words = rules(Shape(events // 12, items, events, 20, 1.0), data="x")
    assert ("loss=sampled_softmax" in words and "loss.strategy=mixed" in words) == sampled


@pytest.mark.parametrize(("items", "plain", "distilled"), [(6_000, None, 0.3), (5_000, 0.2, 0.1)])
def test_items_with_many_events_need_little_dropout(items: int, plain: float | None, distilled: float) -> None:
    """Half of the features dropped, Amazon's best, costs a fifth of NDCG@10 where an item has a hundred events."""
    shape = Shape(15_000, items, 150_000, 10, 1.0)
    words = [*rules(shape, data="x"), *teaching(shape)]
    assert [word for word in words if word.startswith("student.dropout=")] == (
        [] if plain is None else [f"student.dropout={plain}"]
    )
    assert f"distilled.student.dropout={distilled}" in words


def test_shape_of_a_bundle(tmp_path: Path) -> None:
    """Counts, the long histories, and the share of items with a title or a text that isn't empty."""
    items = pl.DataFrame(
        {"item_id": ["i0", "i1", "i2", "i3"], "title": ["A", "", None, None], "text": ["", "b", "", None]}
    )
    bundle = tiny_bundle(tmp_path, [[0, 1, 2], [3, 0, 1, 2, 1]], n_items=4, items=items)
    shape = Shape.of(bundle, LeaveOneOut()(bundle))
    assert (shape.users, shape.items, shape.events, shape.texts) == (2, 4, 8, 0.5)
    assert shape.mean_length == 4.0 and shape.long_histories == pytest.approx(4.9)


def test_repeated_consumption_stays_in_lists(tmp_path: Path) -> None:
    """Songs are heard again: where a run would warn of lists without seen items, the rules ask for the others."""
    again = [[user, user + 1, user + 2, user, user + 1] for user in range(20)]
    bundle = tiny_bundle(tmp_path, again, n_items=22)
    shape = Shape.of(bundle, LeaveOneOut()(bundle))
    assert shape.repeats == 1.0 and "eval.filter_seen=false" in rules(shape, data="x")
    assert REPEATS == MANY
    for repeats, kept in ((0.04, False), (0.05, True)):
        words = rules(replace(AMAZON, repeats=repeats), data="x")
        assert ("eval.filter_seen=false" in words) == kept


def test_when_it_decides() -> None:
    """By default in deshi run, where it is asked for elsewhere; not over a saved configuration or a chosen student."""
    assert is_auto("run", ["data=x"]) and is_auto("fit", ["experiment=auto"])
    assert not is_auto("fit", ["data=x"]) and not is_auto("run", ["experiment=ml-1m"])
    assert not is_auto("run", ["resume=latest"]) and not is_auto("run", ["config=latest"])
    assert not is_auto("run", ["student=gru4rec"]) and is_auto("run", ["student.dim=32", "resume=null"])


def test_what_is_typed_wins_over_the_rules(tmp_path: Path, config_dir: Path) -> None:
    """The run's record holds the rule's words before the user's, and no experiment=auto that would decide again."""
    deshi.prepare(f"paths.root={tmp_path}", config_dir=config_dir, data="tiny")
    words = ["data=tiny", f"paths.root={tmp_path}", "train.max_epochs=2"]
    config = stages.by_data("run", stages.compose("run", words, {}, config_dir), config_dir)
    assert config.train.max_epochs == 2 and config.train.ema_decay == 0.995 and "all" in config.teachers
    assert config.overrides[0].startswith("experiment=") and config.overrides[-3:] == words
    named = stages.by_data("run", stages.compose("run", [*words, "recipe=self"], {}, config_dir), config_dir)
    assert not named.teachers


def test_settings_of_a_typed_recipe_follow_the_data(tmp_path: Path, config_dir: Path) -> None:
    """A typed recipe is the one that the data choose, and a second text teacher has the settings of the first."""
    deshi.prepare(f"paths.root={tmp_path}", config_dir=config_dir, data="tiny")
    words = ["data=tiny", f"paths.root={tmp_path}"]
    counts, llm = (
        stages.by_data("run", stages.compose("run", [*words, f"recipe={name}"], {}, config_dir), config_dir)
        for name in ("counts-words", "counts-smollm2")
    )
    assert "teachers.text.train.learning_rate=3.0e-3" in llm.overrides and "recipe=counts-words" not in llm.overrides
    first, second = (dict(llm.teachers[name].teacher) for name in ("text", "smollm2"))
    assert first == counts.teachers["text"].teacher
    assert second.pop("embeddings")["encoder"]["llm"]["layers"] == 12
    assert second == {key: value for key, value in first.items() if key != "embeddings"}
    assert llm.teachers["smollm2"].train == llm.teachers["text"].train == counts.teachers["text"].train
    assert llm.distilled == counts.distilled and llm.distill == counts.distill
    assert llm.teachers["all"].teacher["members"] == ["text", "smollm2", "counts"]
    typed = stages.by_data("run", stages.compose("run", ["recipe=self", *words], {}, config_dir), config_dir)
    assert not any(word.startswith(("teachers.", "distilled.")) for word in typed.overrides)


def test_a_typed_loss_has_its_own_settings(tmp_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule's sampling strategy would be an unknown key of another loss."""
    monkeypatch.setattr("deshi.stages._auto.MANY_SCORES", 1)
    deshi.prepare(f"paths.root={tmp_path}", config_dir=config_dir, data="tiny")
    words = ["data=tiny", f"paths.root={tmp_path}"]
    chosen = stages.by_data("run", stages.compose("run", words, {}, config_dir), config_dir)
    assert chosen.loss["strategy"] == "mixed" and chosen.teachers["text"].loss["strategy"] == "mixed"
    typed = stages.by_data("run", stages.compose("run", [*words, "loss=bce"], {}, config_dir), config_dir)
    assert typed.loss["_target_"].endswith("BCE") and "strategy" not in typed.loss


def test_words_about_parts_of_a_recipe_come_before_the_decision(tmp_path: Path, config_dir: Path) -> None:
    """The teachers of the recipe that the data will choose can be changed without naming it; a typing error is told."""
    deshi.prepare(f"paths.root={tmp_path}", config_dir=config_dir, data="tiny")
    words = ["data=tiny", f"paths.root={tmp_path}", "teachers.all.teacher.members=[text,plain,counts]"]
    config = stages.by_data("run", stages.compose("run", words, {}, config_dir), config_dir)
    assert config.teachers["all"].teacher["members"] == ["text", "plain", "counts"]
    assert config.overrides[-3:] == words and config.overrides[1].startswith("recipe=counts")
    plain = stages.compose("run", ["data=tiny", f"paths.root={tmp_path}"], {}, config_dir)
    assert plain.overrides == ["data=tiny", f"paths.root={tmp_path}"]
    assert any(word.startswith("recipe=") for word in stages.by_data("run", plain, config_dir).overrides)
    with pytest.raises(DeshiError, match="teachers.txt"):
        stages.compose("run", ["data=tiny", "teachers.txt.teacher.dim=8"], {}, config_dir)


def test_run_prepares_the_data_that_decide(tmp_path: Path, config_dir: Path) -> None:
    """One command from files to a result; a dry run leaves the data as they are and decides nothing."""
    words = ["data=tiny", f"paths.root={tmp_path}", *SMALL]
    config = stages.compose("run", words, {}, config_dir)
    assert stages.by_data("run", config, config_dir, prepare=False) is config
    assert not (tmp_path / "data").exists()
    assert stages.by_data("run", config, config_dir).overrides[0].startswith("experiment=")
    assert (tmp_path / "data" / "tiny" / "manifest.json").is_file()


def test_sparse_data_have_a_shape_too(tmp_path: Path) -> None:
    """Items without a table have no texts."""
    bundle = tiny_bundle(tmp_path, random_sequences(5, 9, 3, 5), n_items=9)
    assert Shape.of(bundle, LeaveOneOut()(bundle)).texts == 0.0
