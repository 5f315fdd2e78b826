"""Candidate sets: drawn once and the same for everyone, read from files that fit, ranked by the same exact rule."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, LeaveOneOut, Ratio
from deshi.evaluation import FromFile, Llara, Sampled, candidate_sets, candidates_frame, evaluate_ranks
from deshi.models.scorers import Scorer
from deshi.types import PAD, Batch, DeshiError
from tiny_bundles import random_sequences, tiny_bundle


class Fixed(Scorer):
    """Scores by a fixed table of users and items."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.n_items = table.shape[1]

    def scores(self, batch: Batch) -> Tensor:
        return self.table[batch.users]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, random_sequences(23, 60, 2, 12), n_items=60)


@pytest.fixture
def examples(bundle: Bundle) -> Examples:
    return LeaveOneOut()(bundle).examples(bundle, "test")


def uniform(bundle: Bundle) -> np.ndarray:
    return np.ones(bundle.n_items, dtype=np.int64)


def test_drawn_sets_hold_the_target_and_nothing_known(bundle: Bundle, examples: Examples) -> None:
    """The target once, no item of the history, no item twice, for every example."""
    sets = Llara()(bundle, examples, "test", uniform(bundle))
    assert sets.shape == (len(examples), 20) and sets.min() >= 0
    for example, row in enumerate(sets.tolist()):
        history = bundle.items[examples.starts[example] : examples.ends[example]].tolist()
        assert len(set(row)) == 20 and not set(row) & set(history)
        assert bundle.items[examples.target_rows[example]] in row


def test_the_targets_place_tells_nothing(bundle: Bundle, examples: Examples) -> None:
    """A prompt lists the candidates in this order, so the target must not always stand in the same position."""
    sets = Llara()(bundle, examples, "test", uniform(bundle))
    columns = (sets == bundle.items[examples.target_rows][:, None]).argmax(1)
    assert len(set(columns.tolist())) > 5


def test_a_seed_draws_the_same_for_each_user(bundle: Bundle, examples: Examples) -> None:
    """Whatever the other examples, the same seed, part and user give the same set; another seed or part another one."""
    sets = Llara(seed=3)(bundle, examples, "test", uniform(bundle))
    some = Examples(
        examples.users[4:6], examples.starts[4:6], examples.ends[4:6], np.arange(3), examples.target_rows[4:6]
    )
    assert np.array_equal(Llara(seed=3)(bundle, some, "test", uniform(bundle)), sets[4:6])
    for other in (
        Llara(seed=4)(bundle, examples, "test", uniform(bundle)),
        Llara(seed=3)(bundle, examples, "validation", uniform(bundle)),
    ):
        assert (np.sort(other) != np.sort(sets)).any(1).all()


def test_popularity_draws_popular_items(bundle: Bundle, examples: Examples) -> None:
    """In proportion to the training events, and never an item without any."""
    counts = np.where(np.arange(60) < 20, 0, np.where(np.arange(60) < 40, 1, 50))
    sets = Sampled(n=5, sampling="popularity")(bundle, examples, "test", counts)
    drawn = sets[sets != bundle.items[examples.target_rows][:, None]]
    assert drawn.min() >= 20 and (drawn >= 40).mean() > 0.8
    with pytest.raises(
        DeshiError, match=r"user 'u\d+' \(test\) has \d+ items .* never trained on; expected at least 45"
    ):
        Sampled(n=45, sampling="popularity")(bundle, examples, "test", counts)


def test_uniform_draws_are_uniform(tmp_path: Path) -> None:
    """Every free item is drawn equally often, 200 users x 4 of 16 items."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3]] * 200, n_items=20)
    examples = LeaveOneOut()(bundle).examples(bundle, "test")
    counts = np.bincount(Sampled(n=4)(bundle, examples, "test", uniform(bundle)).ravel(), minlength=20)
    assert counts[:4].tolist() == [0, 0, 0, 200] and (np.abs(counts[4:] - 50) < 30).all()


def test_several_targets_share_a_set(bundle: Bundle) -> None:
    """All targets of an example are candidates beside n others; LLaRA's protocol knows one next item only."""
    split = Ratio(0.2, 0.4, targets="all")(bundle)
    examples = split.examples(bundle, "test")
    sets = Sampled(n=10)(bundle, examples, "test", uniform(bundle))
    sizes = np.diff(examples.target_offsets)
    assert ((sets != PAD).sum(1) == 10 + sizes).all() and sizes.max() > 1
    frame = candidates_frame(bundle, examples, sets)
    assert (
        frame.height == len(examples.target_rows)
        and frame.select(pl.col("candidates").list.contains(pl.col("item_id")).all()).item()
    )
    with pytest.raises(DeshiError, match="split.targets=next"):
        Llara()(bundle, examples, "test", uniform(bundle))


def test_ranks_among_candidates_by_the_definition(bundle: Bundle) -> None:
    """One loop over an example at a time, ties, several targets and sets of different sizes included."""
    examples = Ratio(0.2, 0.4, targets="all")(bundle).examples(bundle, "test")
    sets = Sampled(n=10)(bundle, examples, "test", uniform(bundle))
    table = torch.randint(0, 6, (bundle.n_users, 60), generator=torch.Generator().manual_seed(0)).float()
    ranking = evaluate_ranks(Fixed(table), bundle, examples, batch_size=5, top_k=12, candidates=sets)
    for row in ranking.ranks.iter_rows(named=True):
        candidates = [item for item in sets[row["example"]].tolist() if item != PAD]
        scores = table[row["user"]]
        higher = sum(bool(scores[j] > scores[row["target"]]) for j in candidates)
        same = sum(bool(scores[j] == scores[row["target"]]) for j in candidates)
        assert row["rank"] == 1 + higher + (same - 1) / 2 and row["n_candidates"] == len(candidates)
    for example, best in enumerate(ranking.top_items.tolist()):
        allowed = {item for item in sets[example].tolist() if item != PAD}
        shown = [item for item in best if item != PAD]
        assert set(shown) <= allowed and len(shown) == min(12, len(allowed))


def test_all_items_as_candidates_is_the_full_ranking(bundle: Bundle, examples: Examples) -> None:
    """The narrow path and the wide one are the same rule, its probabilities too."""
    table = torch.randn(bundle.n_users, 60, generator=torch.Generator().manual_seed(0))
    full = evaluate_ranks(Fixed(table), bundle, examples, filter_seen=False, calibrate=True)
    everything = np.tile(np.arange(60), (len(examples), 1))
    among = evaluate_ranks(Fixed(table), bundle, examples, candidates=everything, calibrate=True)
    assert among.ranks.equals(full.ranks) and np.array_equal(among.top_items, full.top_items)
    assert full.softmax is not None and among.softmax is not None and np.allclose(among.softmax, full.softmax)


def test_the_description_does_not_depend_on_the_part(bundle: Bundle) -> None:
    """An evaluation of test and one of both parts have the same protocol, another seed has another."""
    split = LeaveOneOut()(bundle)
    parts = {part: split.examples(bundle, part) for part in ("validation", "test")}
    both, of_both = candidate_sets(Llara(), bundle, split, parts)
    test, of_test = candidate_sets(Llara(), bundle, split, {"test": parts["test"]})
    assert of_both == of_test and set(of_test["sha256"]) == {"validation", "test"}
    assert np.array_equal(test["test"], both["test"])
    assert candidate_sets(Llara(seed=1), bundle, split, parts)[1]["sha256"] != of_both["sha256"]


def test_nonsense_is_refused() -> None:
    """Before any work."""
    for build in (lambda: Llara(n=1), lambda: Sampled(n=0), lambda: Sampled(seed=-1)):
        with pytest.raises(DeshiError, match="expected n from"):
            build()


# files


@pytest.fixture
def drawn(bundle: Bundle, examples: Examples) -> pl.DataFrame:
    return candidates_frame(bundle, examples, Llara()(bundle, examples, "test", uniform(bundle)))


def read(tmp_path: Path, frame: pl.DataFrame, bundle: Bundle, examples: Examples) -> np.ndarray:
    frame.write_parquet(tmp_path / "sets.parquet")
    return FromFile(tmp_path / "sets.parquet")(bundle, examples, "test", uniform(bundle))


@pytest.mark.parametrize("separator", [" ", ",", "', '"])
def test_files_come_back(
    tmp_path: Path, bundle: Bundle, examples: Examples, drawn: pl.DataFrame, separator: str
) -> None:
    """What deshi wrote, in any order of rows, and the same as csv, also as pandas prints a list."""
    sets = Llara()(bundle, examples, "test", uniform(bundle))
    frame = drawn.with_columns(pl.lit("test").alias("part")).reverse()
    assert np.array_equal(read(tmp_path, frame, bundle, examples), sets)
    text = pl.col("candidates").list.join(separator)
    text = pl.format("['{}']", text) if "'" in separator else text
    frame.with_columns(text).write_csv(tmp_path / "sets.csv")
    assert np.array_equal(FromFile(tmp_path / "sets.csv")(bundle, examples, "test", uniform(bundle)), sets)


@pytest.mark.parametrize("name", ["sets[1].csv", "sets.tsv.gz", "sets.jsonl", "floats.parquet"])
def test_files_of_other_systems(tmp_path: Path, name: str) -> None:
    """Numbers as floats, a mark at the beginning, packed files and names with brackets give the same sets."""
    texts_of_numbers = [[str(item) for item in items] for items in random_sequences(23, 60, 2, 12)]
    bundle = tiny_bundle(tmp_path, texts_of_numbers)
    examples = LeaveOneOut()(bundle).examples(bundle, "test")
    sets, path = Llara()(bundle, examples, "test", uniform(bundle)), tmp_path / name
    drawn = candidates_frame(bundle, examples, sets).select("user_id", "item_id", "candidates")
    floats = drawn.cast({"item_id": pl.Float64, "candidates": pl.List(pl.Float64)})
    texts = drawn.with_columns(pl.format("[{}]", pl.col("candidates").list.join(", ")).alias("candidates"))
    if name == "floats.parquet":
        floats.write_parquet(path)
    elif name == "sets.jsonl":
        floats.write_ndjson(path)
    elif name == "sets.tsv.gz":
        path.write_bytes(gzip.compress(texts.write_csv(separator="\t", line_terminator="\r\n").encode()))
    else:
        path.write_text("\ufeff" + texts.write_csv())
        texts.clear().write_csv(tmp_path / "sets1.csv")
    assert np.array_equal(FromFile(path)(bundle, examples, "test", uniform(bundle)), sets)


def test_sets_may_differ_in_size_and_rows_of_others_do_not_matter(
    tmp_path: Path, bundle: Bundle, examples: Examples, drawn: pl.DataFrame
) -> None:
    """A file for both parts, or for more users than a split asks, is as good."""
    shorter = drawn.with_columns(
        pl.when(pl.col("example") == 1).then(pl.concat_list("item_id")).otherwise("candidates").alias("candidates")
    )
    other = next(item for item in drawn["candidates"][0] if item != drawn["item_id"][0])
    extra = shorter.head(1).with_columns(
        pl.lit(other).alias("item_id"), pl.concat_list(pl.lit(other)).alias("candidates")
    )
    sets = read(tmp_path, pl.concat([shorter, extra]), bundle, examples)
    assert (sets[1] != PAD).sum() == 1 and (sets[2] != PAD).all()


def first(drawn: pl.DataFrame, change: pl.Expr) -> pl.DataFrame:
    """The frame with a column of its first two rows changed."""
    name = change.meta.output_name()
    return drawn.with_columns(pl.when(pl.col("example") < 2).then(change).otherwise(name).alias(name))


def test_what_does_not_fit_names_the_user(
    tmp_path: Path, bundle: Bundle, examples: Examples, drawn: pl.DataFrame
) -> None:
    """Each mistake with its count and its first user, so that it can be found in the file."""
    user = drawn["user_id"][0]
    lists = pl.col("candidates")
    size = len(examples)
    stranger = lists.list.concat(pl.lit(["x9"])).alias("candidates")
    repeated = lists.list.concat(lists.list.head(1)).alias("candidates")
    without = lists.list.set_difference(pl.concat_list("item_id")).alias("candidates")
    for frame, message in [
        (first(drawn, pl.lit("nobody").alias("user_id")), "2 rows of unknown users, the first is 'nobody'"),
        (first(drawn, stranger), f"1 unknown items in 2 users' rows, the first is 'x9' at the user '{user}'"),
        (drawn.slice(2), f"no candidates for 2 of {size} test examples, the first is the user '{user}'"),
        (pl.concat([drawn, drawn.head(1)]), f"2 rows that share user and target .* the user '{user}'"),
        (first(drawn, repeated), f"repeats candidates in 2 of {size} sets, the first is the user '{user}'"),
        (first(drawn, without), f"leaves the target out of 2 of {size} candidate sets, the first is the user '{user}'"),
        (drawn.rename({"candidates": "cans"}), "no column candidates; it has .*, cans. Expected user_id, item_id"),
        (first(drawn, pl.lit(None, pl.String).alias("user_id")), "2 rows of unknown users, the first is None"),
        (drawn.with_columns(pl.lit("[1, ..., 9]").alias("candidates")), f"{size} malformed rows, the first in line 1"),
        (drawn.with_columns(lists.list.len()), "expected lists of item ids"),
    ]:
        with pytest.raises(DeshiError, match=message):
            read(tmp_path, frame, bundle, examples)


def test_files_that_cannot_be_read(tmp_path: Path, bundle: Bundle, examples: Examples) -> None:
    """A missing file, another format, and examples with several targets."""
    (tmp_path / "sets.parquet").write_text("no parquet")
    (tmp_path / "sets.xlsx").write_text("no table")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"user_id,item_id,candidates\n" * 99)[:-12])
    for name, message in [
        ("none.csv", "There is no file"),
        ("sets.xlsx", "can't be told from its name"),
        ("cut.csv.gz", "cut.csv.gz is damaged or truncated"),
        ("sets.parquet", "can't be read as parquet"),
    ]:
        with pytest.raises(DeshiError, match=message):
            FromFile(tmp_path / name)(bundle, examples, "test", uniform(bundle))
    several = Ratio(0.2, 0.4, targets="all")(bundle).examples(bundle, "test")
    with pytest.raises(DeshiError, match="split.targets=next"):
        FromFile(tmp_path / "sets.parquet")(bundle, several, "test", uniform(bundle))
