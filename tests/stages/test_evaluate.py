"""The stage evaluate, end to end on a tiny data set: a trained run, the baselines, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

import deshi
from deshi.artifacts import read_json, write_json
from deshi.baselines import BASELINES
from deshi.evaluation import EvaluateResult, unbeaten
from deshi.types import DeshiError
from evaluation_folders import frame_of
from tiny_movielens import SMALL


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, config_dir: Path) -> Path:
    """A folder with the prepared tiny data and one run of two epochs."""
    folder = tmp_path_factory.mktemp("root")
    deshi.prepare(f"paths.root={folder}", config_dir=config_dir, data="tiny")
    deshi.fit(*SMALL, f"paths.root={folder}", config_dir=config_dir, data="tiny")
    return folder


def evaluate(root: Path, *overrides: str, config_dir: Path | None = None) -> EvaluateResult:
    result: EvaluateResult = deshi.evaluate(f"paths.root={root}", *overrides, config_dir=config_dir)
    return result


@pytest.fixture(scope="module")
def both(root: Path) -> EvaluateResult:
    """The run on both parts, beside all baselines."""
    return evaluate(root, "run=latest", "part=both", "with_baselines=true")


def test_validation_figures_are_those_of_training(root: Path, both: EvaluateResult) -> None:
    """Training's callback and the stage measure the same thing, so a selected epoch's figure must come back."""
    (run,) = (root / "runs" / "fit").iterdir()
    fitted = read_json(run / "metrics.json")
    assert both.metrics["validation/ndcg@10"] == pytest.approx(fitted["validation/ndcg@10"], abs=1e-6)


def test_the_run_folder_is_complete(both: EvaluateResult) -> None:
    """A later comparison reads the folder alone."""
    names = {path.name for path in both.folder.iterdir()}
    assert names >= {"config.yaml", "environment.json", "metrics.json", "ranks.parquet", "run.json", "time.json"}
    assert names >= {"lists.parquet", "slices.parquet", "calibration.parquet"} and "candidates.parquet" not in names
    assert not [name for name in names if name.endswith(".tmp")]
    ranks = pl.read_parquet(both.folder / "ranks.parquet")
    assert ranks.equals(both.ranks) and ranks.height == 120
    assert ranks.columns == ["part", "example", "user", "user_id", "target", "item_id", "rank", "n_candidates"]
    saved = read_json(both.folder / "metrics.json")
    assert saved["test/n_examples"] == 60 and saved["test/recall@10"] == both.metrics["test/recall@10"]
    assert set(saved["baselines"]) == set(BASELINES)
    assert pl.read_parquet(both.folder / "baselines" / "ease.parquet").height == 120
    record = read_json(both.folder / "run.json")
    assert record["protocol"]["filter_seen"] is True and len(record["protocol_fingerprint"]) == 64
    assert set(read_json(both.folder / "time.json")["sasrec"]) == {"validation", "test"}


def test_metrics_come_from_the_saved_ranks(both: EvaluateResult) -> None:
    """Anyone can compute the figures again from ranks.parquet."""
    test = both.ranks.filter(pl.col("part") == "test")
    assert both.metrics["test/hr@5"] == pytest.approx(float((test["rank"] <= 5).to_numpy().mean()))


def test_lists_are_what_the_ranks_say(both: EvaluateResult) -> None:
    """Who reads lists.parquet sees the target at its rank, no padding and nothing of the history."""
    lists = pl.read_parquet(both.folder / "lists.parquet")
    assert lists.schema == {"part": pl.String, "example": pl.Int64, "user": pl.Int64, "items": pl.List(pl.Int64)}
    rows = both.ranks.join(lists, on=["part", "example", "user"], validate="1:1")
    assert rows.height == 120 and min(rows["items"].explode()) >= 0
    for row in rows.iter_rows(named=True):
        assert len(set(row["items"])) == len(row["items"]) == min(50, row["n_candidates"])
        assert row["rank"] % 1 or row["items"][int(row["rank"]) - 1] == row["target"]


def test_figures_beyond_accuracy_are_there(both: EvaluateResult) -> None:
    """At every K for every model; diversity only where the model has item vectors and a list has a pair."""
    assert {f"test/{name}@{k}" for name in ("gini", "novelty", "popularity_lift") for k in (1, 10)} <= set(both.metrics)
    assert "test/ild@10" in both.metrics and "test/ild@1" not in both.metrics
    assert "test/gini@10" in both.baselines["ease"] and "test/ild@10" not in both.baselines["ease"]
    popularity = both.baselines["popularity"]
    assert popularity["test/popularity_lift@1"] > 1 and popularity["test/novelty@1"] < both.metrics["test/novelty@1"]


def test_the_frame_holds_every_figure(both: EvaluateResult) -> None:
    """Someone who joins metrics with other tables needs rows, not nested dictionaries."""
    frame = both.frame()
    assert frame.columns == ["model", "part", "metric", "value"]
    assert set(frame["model"]) == {both.model, *both.baselines} and set(frame["part"]) == {"validation", "test"}
    row = frame.filter(model=both.model, part="test", metric="ndcg@10")
    assert row["value"].to_list() == [both.metrics["test/ndcg@10"]]


def test_slices_of_every_model_are_kept(both: EvaluateResult) -> None:
    """The same examples for all, each once in a slice of its kind, and their mean is the figure of the whole."""
    slices = pl.read_parquet(both.folder / "slices.parquet")
    assert slices.columns[:5] == ["model", "part", "slice", "value", "n_examples"] and slices.equals(both.slices)
    assert set(slices["model"]) == {both.model, *both.baselines} and min(slices["n_examples"]) > 0
    for (model, _), rows in slices.filter(pl.col("part") == "test").group_by("model", "slice"):
        metrics = both.metrics if model == both.model else both.baselines[str(model)]
        mean = float((rows["n_examples"] * rows["ndcg@10"]).sum()) / 60
        assert rows["n_examples"].sum() == 60 and mean == pytest.approx(metrics["test/ndcg@10"])
    assert "target popularity: head" in str(both)


def test_calibration_of_the_student(both: EvaluateResult) -> None:
    """The bins hold all examples and their error is the figure; baseline scores are no logits."""
    bins = pl.read_parquet(both.folder / "calibration.parquet").filter(pl.col("part") == "test")
    assert bins.columns == ["part", "bin", "confidence", "accuracy", "n_examples"] and bins["n_examples"].sum() == 60
    apart = (bins["confidence"] - bins["accuracy"]).abs() * bins["n_examples"]
    assert both.metrics["test/ece"] == pytest.approx(float(apart.sum()) / 60)
    assert 0 < both.metrics["test/log_loss"] < 10 and "test/ece" not in both.baselines["popularity"]
    assert "Log loss" in str(both)


def test_tables_show_the_figures(both: EvaluateResult) -> None:
    """Terminal and notebook show the same table, the baselines beside the student."""
    text = str(both)
    assert f"{both.metrics['test/ndcg@10']:.4f}" in text and f"{both.baselines['markov']['test/ndcg@10']:.4f}" in text
    assert "NDCG" in both._repr_html_() and str(both.folder.name) in both._repr_html_()


def test_a_student_that_loses_is_reported(both: EvaluateResult) -> None:
    """Two epochs on a walk that item-to-item transitions predict well can't win, and must be told so."""
    for part in ("validation", "test"):
        figures = {name: metrics[f"{part}/ndcg@10"] for name, metrics in both.baselines.items()}
        best = max(figures, key=lambda name: figures[name])
        assert figures[best] > both.metrics[f"{part}/ndcg@10"]
        about = f"does not beat {best} ({figures[best]:.4f}), the best baseline on NDCG@10, {part} "
        assert sum(about in sentence and "60 examples: p " in sentence for sentence in both.unbeaten) == 1
    assert len(both.unbeaten) == 2 and "WARNING: sasrec (0." in str(both)


def test_a_tie_or_nan_does_not_beat() -> None:
    """Equal figures are no win, and neither is a missing figure; of the baselines only the best is named."""
    baselines = {"popularity": {"test/ndcg@5": 0.5}, "markov": {"test/ndcg@5": 0.4}}
    for figure in (0.5, float("nan")):
        (sentence,) = unbeaten("s", {"test/ndcg@5": figure}, baselines)
        assert "popularity" in sentence and "markov" not in sentence
    assert unbeaten("s", {"test/ndcg@5": 0.6}, baselines) == []


def test_a_lead_within_chance_is_no_win() -> None:
    """Two of forty users differ: the figure is higher, and may be lower with other users."""
    ranks = {"pop": frame_of([2.0] * 40), "s": frame_of([1.0, 1.0] + [2.0] * 38), "t": frame_of([1.0] * 40)}
    metrics = {"s": {"test/ndcg@10": 0.65}, "t": {"test/ndcg@10": 1.0}, "pop": {"test/ndcg@10": 0.63}}
    sentences = {
        name: unbeaten(name, metrics[name], {"pop": metrics["pop"]}, lambda name, part: [ranks[name]]) for name in "st"
    }
    assert sentences["t"] == []
    assert sentences["s"][0].startswith("s (0.6500) is not reliably better than pop (0.6300), the best baseline on ")
    assert unbeaten("s", metrics["s"], {"pop": metrics["pop"]}) == []


def test_a_baseline_alone(root: Path, config_dir: Path, both: EvaluateResult) -> None:
    """The same baseline gives the same figures with and without a run beside it."""
    alone = evaluate(root, "baseline=markov", "data=tiny", config_dir=config_dir)
    assert alone.model == "markov" and not alone.baselines and not alone.warnings
    assert alone.metrics["test/ndcg@10"] == both.baselines["markov"]["test/ndcg@10"]


def test_llaras_protocol(root: Path) -> None:
    """HitRatio@1 among 20, every answer of a scorer valid; what can't miss is left out and said."""
    result = evaluate(root, "run=latest", "candidates=llara", "with_baselines=true")
    assert set(result.ranks["n_candidates"]) == {20} and "exact ranks among 20 candidates (llara)" in str(result)
    assert (
        result.metrics["test/hit_ratio@1"] == result.metrics["test/hr@1"] == result.metrics["test/hit_ratio_of_all@1"]
    )
    assert result.metrics["test/valid_ratio"] == 1.0 and "test/gini@10" not in result.metrics
    assert "test/hr@20" not in result.metrics and "K = 20, 50 left out" in str(result)
    sets = pl.read_parquet(result.folder / "candidates.parquet")
    assert sets.columns == ["part", "example", "user_id", "item_id", "candidates"]
    assert sets["candidates"].dtype == pl.List(pl.String) and set(sets["candidates"].list.len()) == {20}
    best = pl.read_parquet(result.folder / "lists.parquet")
    assert set(best["items"].list.len()) == {10}


def test_candidates_are_the_same_for_every_run(root: Path, config_dir: Path, tmp_path: Path) -> None:
    """Models of one run, of other runs and of other parts share their candidates; another seed draws others."""
    first = evaluate(root, "run=latest", "candidates=llara")
    other = evaluate(root, "baseline=markov", "data=tiny", "candidates=llara", "part=both", config_dir=config_dir)
    seed = evaluate(root, "run=latest", "candidates=llara", "candidates.seed=1")
    sets = [pl.read_parquet(result.folder / "candidates.parquet") for result in (first, other, seed)]
    assert sets[0].equals(sets[1].filter(pl.col("part") == "test")) and not sets[0].equals(sets[2])
    records = [read_json(result.folder / "run.json") for result in (first, other, seed)]
    prints = [record["protocol_fingerprint"] for record in records]
    assert prints[0] == prints[1] != prints[2]
    assert records[0]["protocol"]["candidates"]["kind"] == "llara"
    again = evaluate(root, "run=latest", "candidates=file", f"candidates.path={first.folder / 'candidates.parquet'}")
    assert again.ranks.equals(first.ranks) and again.metrics["test/hit_ratio@1"] == first.metrics["test/hr@1"]
    assert "sha256" in read_json(again.folder / "run.json")["protocol"]["candidates"]


def test_sampled_metrics_come_with_a_warning(root: Path) -> None:
    """Whoever reads the figures later must meet it too."""
    result = evaluate(root, "run=latest", "candidates=sampled", "candidates.n=15", "candidates.sampling=popularity")
    (warning,) = read_json(result.folder / "run.json")["warnings"]
    assert "SAMPLED METRICS" in warning and "Krichene and Rendle 2020" in warning and "SAMPLED" in str(result)
    assert "test/hit_ratio@1" not in result.metrics
    with pytest.raises(DeshiError, match="at most 20 candidates"):
        evaluate(root, "run=latest", "candidates=llara", "eval.ks=[20,50]")


def test_other_data_are_refused(root: Path, tmp_path: Path) -> None:
    """A run on data with another fingerprint would be ranked on the wrong items; both fingerprints are named."""
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    manifest = read_json(copy / "data" / "tiny" / "manifest.json")
    mine = manifest["fingerprint"]
    write_json(copy / "data" / "tiny" / "manifest.json", manifest | {"fingerprint": "f" * 64})
    with pytest.raises(DeshiError, match=f"fingerprint {mine[:16]}, but .* has fingerprint {'f' * 16}"):
        evaluate(copy, "run=latest")


def test_trained_targets_are_called_a_leak(root: Path) -> None:
    """Asking a leave-one-out run on an earlier split asks what it has learned by heart."""
    leaky = evaluate(root, "run=latest", "split=ratio", "split.validation=0.2", "split.test=0.4")
    assert any(sentence.startswith("LEAK: 60 of 60 test targets were trained on") for sentence in leaky.warnings)


def test_a_diverged_run_is_refused(root: Path, tmp_path: Path) -> None:
    """NaN weights give NaN scores: an error with their count instead of figures."""
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (weights,) = (copy / "runs" / "fit").glob("*/model.safetensors")
    save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(weights).items()}, weights)
    with pytest.raises(DeshiError, match="scores are NaN"):
        evaluate(copy, "run=latest")
    done = [sorted(path.name for path in (folder / "runs").glob("evaluate/*")) for folder in (copy, root)]
    assert done[0] == done[1]


def test_a_large_catalogue_leaves_ease_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison goes on without the one baseline that can't be computed, and says so."""
    monkeypatch.setattr("deshi.baselines.EASE.max_items", 10)
    result = evaluate(root, "run=latest", "with_baselines=true", "eval.ks=[5]")
    assert "ease" not in result.baselines and "ease was left out" in str(result)


def test_star_without_cached_vectors_is_left_out(both: EvaluateResult, root: Path) -> None:
    """A comparison with all baselines must not begin to download or to encode; it says what does."""
    assert any(note.startswith("star was left out") and "baseline=star data=tiny" in note for note in both.notes)
    assert "star" not in both.baselines and not (root / "cache").exists()
    seconds = read_json(both.folder / "time.json")
    assert seconds["pairwise"]["search"] > 0 and set(seconds["seqrules"]) == {"search", "fit", "validation", "test"}


def test_no_examples_are_refused(root: Path, config_dir: Path) -> None:
    """A split without a question has no answer; the error says what to change."""
    folder = root / "short.csv"
    folder.write_text("user,item,time\n" + "".join(f"u{n},i{t},{t}\n" for n in range(3) for t in range(2)))
    source = f"data.source={{_target_: deshi.data.sources.tabular.Tabular, path: {folder}}}"
    overrides = [f"paths.root={root}", "data=tabular", "data.name=short", source, "data.source.user=user"]
    overrides += ["data.source.item=item", "data.source.timestamp=time", "data.filters.min_history=1"]
    overrides += ["data.source.time_unit=position"]
    deshi.prepare(*overrides)
    with pytest.raises(DeshiError, match="has no test example"):
        deshi.evaluate(*overrides, "baseline=popularity")
