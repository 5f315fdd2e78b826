"""Comparisons against hand values, what is refused, and the stage from runs to files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import deshi
from deshi.artifacts import read_json, write_json
from deshi.comparison._compute import compare_evaluations
from deshi.comparison._result import CompareResult
from deshi.metrics import bootstrap_interval, holm, wilcoxon
from deshi.runs import Evaluation
from deshi.types import DeshiError
from evaluation_folders import PROTOCOL, SASREC, frame_of, write_evaluation

GRU = {"student": {"_target_": "deshi.models.gru4rec.GRU4Rec", "dim": 64}}


def random_ranks(seed: int, size: int = 300, scale: float = 20.0) -> list[float]:
    return (1 + np.floor(np.random.default_rng(seed).exponential(scale, size))).tolist()


@pytest.fixture
def three(tmp_path: Path) -> list[Evaluation]:
    """A SASRec of two seeds and a GRU4Rec of one, with a baseline beside the first; the GRU4Rec is much better."""
    return [
        write_evaluation(tmp_path, "a", random_ranks(0), SASREC, 0, baselines={"popularity": random_ranks(7)}),
        write_evaluation(tmp_path, "b", random_ranks(1), SASREC, 1),
        write_evaluation(tmp_path, "c", random_ranks(2, scale=5.0), GRU, 0, "gru4rec"),
    ]


def test_hand_values(tmp_path: Path) -> None:
    """Four users: hits of the first seed for 0 and 1, of the second for 0; the other model hits 0, 2 and 3."""
    runs = [
        write_evaluation(tmp_path, "a", [1, 2, 11, 12], SASREC, seed=0),
        write_evaluation(tmp_path, "b", [1, 20, 20, 20], SASREC, seed=1),
        write_evaluation(tmp_path, "c", [1, 30, 3, 10], GRU, student="gru4rec"),
    ]
    comparison = compare_evaluations(runs, metrics=["recall@10", "mrr@10", "recall@10"])
    recall = comparison.figures["sasrec"]["recall@10"]
    assert comparison.n_users == 4 and comparison.metrics == ["recall@10", "mrr@10"]
    assert recall.by_seed == (0.5, 0.25) and recall.mean == 0.375
    assert recall.std == pytest.approx(0.125 * math.sqrt(2))
    assert comparison.figures["gru4rec"]["recall@10"].std is None
    assert comparison.figures["gru4rec"]["mrr@10"].mean == pytest.approx((1 + 1 / 3 + 1 / 10) / 4)
    test = comparison.tests[0]
    assert (test.first, test.second, test.metric) == ("sasrec", "gru4rec", "recall@10")
    assert test.difference == 0.375 - 0.75 and (test.wins, test.ties, test.losses) == (1, 1, 2)
    assert test.effect_size == pytest.approx(-0.375 / np.std([0, 0.5, -1, -1], ddof=1))
    assert comparison.best("recall@10") == ["gru4rec"]


def test_the_statistics_are_the_shared_ones(three: list[Evaluation]) -> None:
    """Audit, gap and report use the same functions: a figure must not depend on the page that shows it."""
    comparison = compare_evaluations(three, metrics=["recall@10"], seed=5)
    order = np.argsort([f"u{user}" for user in range(300)])  # resampling depends on it: users are sorted by their id
    first = (np.array([random_ranks(0), random_ranks(1)]) <= 10).mean(axis=0)[order]
    second = (np.array(random_ranks(2, scale=5.0)) <= 10)[order]
    figure, (test,) = comparison.figures["sasrec"]["recall@10"], comparison.tests
    interval = bootstrap_interval(first, seed=5)
    assert (figure.mean, figure.low, figure.high) == pytest.approx((interval.mean, interval.low, interval.high))
    assert test.wilcoxon_p == wilcoxon(first, second.astype(float))
    between = bootstrap_interval(first - second, seed=5)
    assert (test.low, test.high) == pytest.approx((between.low, between.high))
    assert test.permutation_p == test.permutation_holm < 0.001 and comparison.marked("recall@10") == {"sasrec"}


def test_the_correction_is_over_pairs_and_metrics(three: list[Evaluation]) -> None:
    """Every test that is shown is a chance to be lucky."""
    comparison = compare_evaluations(three, metrics=["recall@10", "ndcg@10"], with_baselines=True)
    assert len(comparison.tests) == 6 and [model.name for model in comparison.models] == [
        "sasrec",
        "gru4rec",
        "popularity",
    ]
    assert [test.permutation_holm for test in comparison.tests] == holm(
        [test.permutation_p for test in comparison.tests]
    )
    assert [test.wilcoxon_holm for test in comparison.tests] == holm([test.wilcoxon_p for test in comparison.tests])


def test_a_baseline_is_second_in_every_pair(three: list[Evaluation]) -> None:
    """A positive difference then always means better than the baseline, and fewer tests are corrected for."""
    comparison = compare_evaluations(three, metrics=["recall@10"], with_baselines=True, against="popularity")
    assert [(test.first, test.second) for test in comparison.tests] == [
        ("sasrec", "popularity"),
        ("gru4rec", "popularity"),
    ]
    assert comparison.compared_with("recall@10") == "popularity" and comparison.marked("recall@10") == {"gru4rec"}


def test_enough_flips_for_the_correction(three: list[Evaluation]) -> None:
    """With 10,000 flips and 760 tests nothing could ever be significant after Holm's correction."""
    comparison = compare_evaluations(three, with_baselines=True, confidence=0.999)
    assert (
        comparison.permutations in (30_000, 30_001) and min(test.permutation_holm for test in comparison.tests) < 0.001
    )
    assert compare_evaluations(three).permutations == 10_000
    assert compare_evaluations(three, permutations=500).permutations == 500


def test_users_are_paired_whatever_their_order(tmp_path: Path) -> None:
    """Rows come in the order of an evaluation's batches; pairing by row would compare strangers."""
    ranks = random_ranks(0, 50)
    straight = write_evaluation(tmp_path, "a", ranks, SASREC)
    turned = write_evaluation(tmp_path, "b", frame_of(ranks)[::-1], GRU, student="gru4rec")
    assert all(test.ties == 50 for test in compare_evaluations([straight, turned]).tests)


def test_several_targets_of_a_user_are_one_example(tmp_path: Path) -> None:
    """A temporal split takes all of a user's later items: users are the units, not targets."""
    frame = frame_of([1, 50, 1]).with_columns(example=pl.Series([0, 0, 1]), user_id=pl.Series(["u", "u", "v"]))
    frame = frame.with_columns(item_id=pl.Series(["i0", "i1", "i0"]))
    comparison = compare_evaluations([write_evaluation(tmp_path, "a", frame, SASREC)], metrics=["recall@10"])
    assert comparison.n_users == 2 and comparison.figures["sasrec"]["recall@10"].mean == 0.75


def test_one_model_has_intervals_only(three: list[Evaluation]) -> None:
    """There is nothing to test it against; that is a note, not an error."""
    for runs in (three[:1], three[:2]):
        comparison = compare_evaluations(runs)
        assert comparison.tests == [] and comparison.figures["sasrec"]["ndcg@10"].low > 0
        assert "nothing to test" in comparison.notes[-1]
    assert compare_evaluations(three[:1], against="sasrec").tests == []


def test_names_are_noted_with_their_runs(three: list[Evaluation]) -> None:
    """They go by the runs' order, which a shell may have changed: the output says which run got which."""
    (note, *_) = compare_evaluations(three, names=["ours", "theirs"]).notes
    first, second, third = (Path(str(run.record["run"])).name for run in three)
    assert note == f"Names: ours is sasrec of {first}, {second}; theirs is gru4rec of {third}."
    assert not any("Names:" in text for text in compare_evaluations(three).notes)


def test_few_seeds_are_noted(three: list[Evaluation]) -> None:
    """A test over users says nothing about the next seed."""
    notes = "\n".join(compare_evaluations(three).notes)
    assert "One seed of gru4rec: the spread over seeds is unknown" in notes and "Two seeds of sasrec" in notes
    assert "different numbers of seeds" in notes
    alone = compare_evaluations(three, each_run=True)
    assert len(alone.models) == 3 and "Every run stands alone" in alone.notes[0] and len(alone.notes) == 1


def test_warnings_of_evaluations_are_carried(tmp_path: Path) -> None:
    """A leak that was found when it was evaluated must not be forgotten when it wins a comparison."""
    leaky = write_evaluation(
        tmp_path, "a", [1, 2], SASREC, warnings=["LEAK: 2 of 2 targets"], baselines={"ease": [1, 2]}
    )
    more = write_evaluation(tmp_path, "b", [1, 2], SASREC, seed=1, warnings=["LEAK: 1 of 2 targets"])
    assert compare_evaluations([leaky], with_baselines=True).warnings == ["sasrec: LEAK: 2 of 2 targets"]
    assert compare_evaluations([leaky, more]).warnings[1] == "sasrec, seed 1: LEAK: 1 of 2 targets"


def test_other_data_and_protocols_are_refused_field_by_field(tmp_path: Path) -> None:
    """Which setting it was is what the user wants to know, with both values."""
    first = write_evaluation(tmp_path, "A", [1, 2], SASREC)
    other = {**PROTOCOL, "filter_seen": False, "split": {"name": "temporal", "at": 3}, "extra": [1]}
    second = write_evaluation(
        tmp_path,
        "B",
        [1, 2],
        GRU,
        data_fingerprint="f" * 64,
        data="other",
        protocol=other,
        protocol_fingerprint="2" * 64,
    )
    with pytest.raises(DeshiError) as caught:
        compare_evaluations([first, second])
    assert sorted(str(caught.value).splitlines()[1:-1]) == [
        "  data: tiny in A, other in B",
        "  data_fingerprint: 0000000000000000 in A, ffffffffffffffff in B",
        "  protocol.extra: nothing in A, [1] in B",
        "  protocol.filter_seen: True in A, False in B",
        "  protocol.split.at: nothing in A, 3 in B",
        "  protocol.split.name: leave_one_out in A, temporal in B",
        "  protocol.split.targets: next in A, nothing in B",
    ]
    more = [write_evaluation(tmp_path, name, [1, 2], SASREC, protocol={"filter_seen": False}) for name in "CDE"]
    with pytest.raises(DeshiError, match="protocol.filter_seen: True in A, False in C and D and 1 more"):
        compare_evaluations([first, *more])
    with pytest.raises(DeshiError, match="protocol_fingerprint: 1111"):
        compare_evaluations([first, write_evaluation(tmp_path, "F", [1, 2], SASREC, protocol_fingerprint="2" * 64)])


def test_candidate_sets_beside_the_whole_catalogue_are_one_difference(tmp_path: Path) -> None:
    """Whoever follows the docs has both kinds of evaluations of a run, and must see at once which one to leave out."""
    llara = {"kind": "llara", "n": 20, "seed": 0, "sha256": {"test": "a" * 64}}
    runs = [
        write_evaluation(tmp_path, "A", [1, 2], SASREC),
        write_evaluation(tmp_path, "B", [1, 2], GRU, protocol={**PROTOCOL, "candidates": llara}),
    ]
    with pytest.raises(DeshiError) as caught:
        compare_evaluations(runs)
    lines = str(caught.value).splitlines()
    assert lines[1:-1] == ["  protocol.candidates: full in A, kind=llara n=20 seed=0 in B"]
    assert lines[-1].startswith("Name only those that were measured alike")
    other = {**PROTOCOL, "candidates": {**llara, "sha256": {"test": "b" * 64}}}
    with pytest.raises(DeshiError, match=r"protocol.candidates.sha256.test: a{16} in B, b{16} in C"):
        compare_evaluations([runs[1], write_evaluation(tmp_path, "C", [1, 2], GRU, protocol=other)])


def test_damaged_ranks_are_refused_by_name(tmp_path: Path) -> None:
    """A file that was cut, or that holds NaN, must not be blamed on the other run or averaged over."""
    first = write_evaluation(tmp_path, "A", [1, 2, 3], SASREC)
    for name, frame in (("cut", frame_of([1, 2])), ("nan", frame_of([1, float("nan"), 3])), ("none", frame_of([]))):
        other = write_evaluation(tmp_path, name, [1, 2, 3], GRU)
        frame.write_parquet(other.folder / "ranks.parquet")
        with pytest.raises(DeshiError, match=rf"ranks of sasrec in .*{name} are damaged"):
            compare_evaluations([first, other])
    frame_of([1, 2, 3]).drop("rank").write_parquet(other.folder / "ranks.parquet")
    with pytest.raises(DeshiError, match="lacks rank"):
        compare_evaluations([first, other])


def test_baselines_that_are_not_beaten_are_one_sentence_a_model(tmp_path: Path) -> None:
    """A sentence a seed, part and baseline buries the warning that matters."""
    runs = []
    for seed in range(2):
        runs.append(write_evaluation(tmp_path, str(seed), [1, 2], SASREC, seed=seed, warnings=["LEAK: all of it."]))
    for run, figure in zip(runs, (0.1, 0.3), strict=True):
        figures = {"test/ndcg@10": figure, "test/n_examples": 2}
        baselines = {"pop": {"test/ndcg@10": 0.5}, "markov": {"test/ndcg@10": 0.15}}
        write_json(run.folder / "metrics.json", {**figures, "baselines": baselines})
    comparison = compare_evaluations([Evaluation(run.folder) for run in runs])
    assert comparison.warnings[-1] == "sasrec (0.2000) does not beat pop (0.5000), the best baseline on NDCG@10, test."
    assert comparison.warnings[0] == "sasrec, seed 0: LEAK: all of it." and len(comparison.warnings) == 3


def test_the_best_baseline_is_tested_by_user_over_the_mean_of_seeds(tmp_path: Path) -> None:
    """A lower mean may be chance and a higher one too: the sentence says how likely, from the ranks of both."""
    ranks = [[1.0, 9.0] * 30, [9.0, 1.0] * 30]
    runs = []
    for seed in range(2):
        run = write_evaluation(tmp_path, str(seed), ranks[seed], SASREC, seed=seed, baselines={"pop": [1.0] * 60})
        metrics = {"test/ndcg@10": 0.65, "test/n_examples": 60}
        write_json(run.folder / "metrics.json", {**metrics, "baselines": {"pop": {"test/ndcg@10": 1.0}}})
        runs.append(Evaluation(run.folder))
    assert compare_evaluations(runs).warnings == [
        "sasrec (0.6500) does not beat pop (1.0000), the best baseline on NDCG@10, test "
        "(paired permutation test over 60 examples: p < 0.001)."
    ]


def test_a_renamed_data_folder_is_no_other_data(tmp_path: Path) -> None:
    """The fingerprint decides, not the name."""
    runs = [
        write_evaluation(tmp_path, "a", [1, 2], SASREC),
        write_evaluation(tmp_path, "b", [1, 2], GRU, student="gru4rec", data="renamed"),
    ]
    assert len(compare_evaluations(runs).models) == 2


def test_other_users_and_targets_are_refused(tmp_path: Path) -> None:
    """A mean over the users that both have would be a third protocol that nobody asked for."""
    first = write_evaluation(tmp_path, "A", [1, 2, 3], SASREC)
    fewer = write_evaluation(tmp_path, "B", frame_of([1, 2, 3], users=["u0", "x", "u2"]), GRU)
    with pytest.raises(DeshiError, match=r"A has 1 users that B lacks \(e.g. user_id u1\), and lacks 1 .*user_id x\)"):
        compare_evaluations([first, fewer])
    moved = write_evaluation(tmp_path, "C", frame_of([1, 2, 3]).with_columns(item_id=pl.lit("i9")), GRU)
    with pytest.raises(DeshiError, match="A and C have the same users but other targets"):
        compare_evaluations([first, moved])


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("ngcd@10", "Nearest valid metrics: ndcg@10"),
        ("coverage@10", "expected NAME@K of a metric that each user has"),
        ("ndcg", "expected NAME@K"),
        ("ndcg@0", "expected NAME@K"),
        ("ndcg@-1", "expected NAME@K"),
    ],
)
def test_unknown_metrics_are_refused(three: list[Evaluation], metric: str, message: str) -> None:
    """Coverage belongs to all lists together: there is no user to resample."""
    with pytest.raises(DeshiError, match=message):
        compare_evaluations(three, metrics=[metric])


def test_nothing_to_compare_is_refused() -> None:
    """From Python the list may be empty."""
    with pytest.raises(DeshiError, match="nothing to compare"):
        compare_evaluations([])


def test_the_same_seed_gives_the_same_comparison(three: list[Evaluation]) -> None:
    """A table in a paper must come out again."""
    assert compare_evaluations(three, seed=3) == compare_evaluations(three, seed=3)
    assert compare_evaluations(three, seed=3).tests != compare_evaluations(three, seed=4).tests


@pytest.fixture
def compared(finished_root: Path) -> CompareResult:
    """Both runs of the finished root, as models of their own, beside the baselines."""
    root = f"paths.root={finished_root}"
    result: CompareResult = deshi.compare(root, runs=["*_tiny_*"], each_run=True, with_baselines=True)
    return result


def test_the_stage_writes_a_run_folder(compared: CompareResult) -> None:
    """Its figures are those of the evaluations, and every file is there."""
    names = {path.name for path in compared.folder.iterdir()}
    assert names == {
        "config.yaml", "overrides.yaml", "environment.json", "run.json", "tests.csv",
        *(f"comparison.{suffix}" for suffix in ("json", "md", "csv", "tex", "html")),
    }  # fmt: skip
    record = read_json(compared.folder / "run.json")
    assert record["stage"] == "compare" and len(set(record["evaluations"])) == 2
    assert [model.name for model in compared.comparison.models] == [
        "sasrec seed=0", "sasrec seed=1", "ease", "itemknn", "markov", "pairwise", "popularity", "seqrules",
    ]  # fmt: skip
    for model in compared.comparison.models[:2]:
        metrics = read_json(Path(model.evaluations[0]) / "metrics.json")
        for metric, figure in compared.comparison.figures[model.name].items():
            assert figure.mean == pytest.approx(metrics[f"test/{metric}"])


def test_the_stage_joins_seeds_and_takes_validation(finished_root: Path) -> None:
    """The seeds of the finished root are one model; `latest` and a pattern lead to runs."""
    result = deshi.compare(f"paths.root={finished_root}", runs=["*_tiny_*", "latest"], part="validation")
    (model,) = result.comparison.models
    assert model.seeds == (0, 1) and result.comparison.part == "validation"
    assert "0.0" in str(result) and "Written to" in str(result) and "<table>" in result._repr_html_()


def test_a_missing_part_comes_with_its_command(finished_root: Path) -> None:
    """Nothing is written then."""
    root = f"paths.root={finished_root}"
    only = deshi.evaluate(root, run="latest", part="test")
    with pytest.raises(DeshiError, match="deshi evaluate .*part=both"):
        deshi.compare(root, runs=[str(only.folder)], part="validation")
    assert not (finished_root / "runs" / "compare").exists()
