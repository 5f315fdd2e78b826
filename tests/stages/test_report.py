"""The stage report, end to end on two tiny runs: what the page says, keeps to, and asks for where something lacks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

import deshi
from deshi.artifacts import read_json, write_json
from deshi.rendering import Table
from deshi.reporting._blocks import Picture
from deshi.reporting._drawing import FigureBuilder
from deshi.reporting._result import ReportResult
from deshi.types import DeshiError
from html_checks import Page
from tiny_movielens import SMALL

SECTIONS = ["summary", "learning", "cutoffs", "slices", "gap", "popularity", "examples", "provenance"]


@pytest.fixture(scope="module")
def finished(_finished_root: Path, tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    """The report of both runs, for tests that only look at it."""
    root = tmp_path_factory.mktemp("report") / "root"
    shutil.copytree(_finished_root, root)
    return report(root)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure is drawn: what is drawn is tested once, and drawing takes most of a report's time."""

    def picture(
        builder: FigureBuilder, name: str, title: str, description: str, draw: object, numbers: Table | None = None,
        height: float = 1.0,
    ) -> Picture:  # fmt: skip
        builder.folder.mkdir(exist_ok=True)
        (builder.folder / f"{name}.svg").touch()
        return Picture(name, title, description, "", numbers)

    monkeypatch.setattr(FigureBuilder, "picture", picture)


def report(root: Path, *overrides: str, runs: Sequence[str] = ("*_tiny_*",)) -> ReportResult:
    return deshi.report(f"paths.root={root}", *overrides, runs=list(runs))


def page_of(root: Path, *overrides: str, runs: Sequence[str] = ("*_tiny_*",)) -> str:
    return report(root, *overrides, runs=runs).page.read_text(encoding="utf-8")


def evaluations(root: Path) -> list[Path]:
    return sorted((root / "runs" / "evaluate").iterdir())


def test_the_page_is_whole_and_valid(finished: ReportResult) -> None:
    """What a browser would repair silently looks different in the next browser."""
    page = Page(finished.page.read_text(encoding="utf-8"))
    assert page.problems == []
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(page.headings, page.headings[1:], strict=False))
    assert set(SECTIONS) <= set(page.ids)


def test_students_of_several_widths_are_drawn_against_their_size(
    finished_root: Path, config_dir: Path, undrawn: None
) -> None:
    """Whoever trained two widths by hand sees what the larger one gains, and what to export for its time."""
    assert "sizes" not in Page(page_of(finished_root)).ids, "two seeds of one width are no curve"
    root = f"paths.root={finished_root}"
    small = deshi.fit(root, *SMALL, "student.dim=8", "name=tiny_small", config_dir=config_dir, data="tiny")
    deshi.evaluate(root, run=str(small.folder), part="both")
    text = page_of(finished_root, "metric=recall@5")
    page = Page(text)
    assert "sizes" in page.ids and page.problems == [] and "Quality against size" in page.text
    table = text[text.index("Size, time and quality on test") :]
    assert table.index(f"{small.record['parameters']:,}") < table.index("7,408"), "ascending by size"
    assert f"deshi export {small.name}" in page.text and "Recall@5" in table and "NDCG@5" in table


def test_the_page_loads_nothing(finished: ReportResult) -> None:
    """It is read where there is no network, and it must tell nobody that it is read."""
    text = finished.page.read_text(encoding="utf-8")
    page = Page(text)
    assert [link for link in page.links if not link.startswith("#")] == []
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "url(" not in re.sub(r"url\(#[\w.-]+\)", "", text) and "@import" not in text
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)


def test_figures_are_files_too(finished: ReportResult) -> None:
    """A paper takes the SVG, a slide the PNG."""
    expected = {"summary", "summary-differences", "learning-loss", "learning-validation", "cutoffs-ndcg", "gap"}
    expected |= {"calibration", "popularity-groups", "popularity-exposure", "slices-history-length"}
    assert expected <= set(finished.figures)
    for name in finished.figures:
        assert (finished.folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<text" in (finished.folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")


def test_the_same_input_gives_the_same_bytes(finished: ReportResult) -> None:
    """A report that changes by itself can't be compared with yesterday's."""
    again = report(finished.folder.parents[2])
    pages = [re.sub(r"<time.*?</time>", "", each.page.read_text(encoding="utf-8")) for each in (finished, again)]
    assert pages[0] == pages[1]
    for name in finished.figures:
        for ending in ("svg", "png"):
            first, second = ((each.folder / "figures" / f"{name}.{ending}").read_bytes() for each in (finished, again))
            assert first == second, f"{name}.{ending}"


@pytest.mark.usefixtures("undrawn")
def test_titles_are_text(finished_root: Path) -> None:
    """Titles come from strangers; one that is markup must be shown, never obeyed."""
    path = finished_root / "data" / "tiny" / "items.parquet"
    evil = "<script>alert(1)</script>\"'{{ 7 * 7 }}"
    pl.read_parquet(path).with_columns(pl.lit(evil).alias("title")).write_parquet(path)
    text = page_of(finished_root)
    assert "script" not in Page(text).tags and evil in Page(text).text


@pytest.mark.usefixtures("undrawn")
def test_an_item_without_a_title_shows_its_id(finished_root: Path) -> None:
    """Many data sets have no titles."""
    path = finished_root / "data" / "tiny" / "items.parquet"
    table = pl.read_parquet(path).with_columns(
        pl.lit(None, pl.String).alias("title"), ("thing-" + pl.col("item_id")).alias("item_id")
    )
    table.write_parquet(path)
    assert "thing-" in Page(page_of(finished_root)).text


@pytest.mark.usefixtures("undrawn")
def test_the_summary_agrees_with_the_evaluations(finished_root: Path) -> None:
    """A report with other figures than metrics.json would be a second truth."""
    text = Page(page_of(finished_root)).text
    metrics = [read_json(folder / "metrics.json") for folder in evaluations(finished_root)]
    for figures in [*metrics, *metrics[0]["baselines"].values()]:
        assert f"{figures['test/ndcg@10']:.4f}" in text
    mean = sum(each["test/ndcg@10"] for each in metrics) / 2
    assert f"{mean:.4f} ±" in text, "two seeds of one configuration are one model"


@pytest.mark.usefixtures("undrawn")
def test_seeds_are_what_differs(finished_root: Path) -> None:
    """A reader must see at once that only the seed was changed."""
    text = page_of(finished_root)
    table = text[text.index("settings that differ") :]
    table = table[: table.index("</table>")]
    assert "seed" in table and "name" in table and "learning_rate" not in table


@pytest.mark.usefixtures("undrawn")
def test_an_unbeaten_baseline_and_a_leak_are_on_top(finished_root: Path) -> None:
    """What makes figures worthless is read first or too late."""
    path = evaluations(finished_root)[1] / "run.json"
    record = read_json(path)
    record["fit"]["train_targets"] = "including_validation"
    write_json(path, record)
    metrics = read_json(evaluations(finished_root)[0] / "metrics.json")
    metrics["baselines"]["markov"]["test/ndcg@10"] = 0.9999
    write_json(evaluations(finished_root)[0] / "metrics.json", metrics)
    result = report(finished_root)
    assert result.warnings[0].startswith("tiny_seed1: LEAK")
    assert any("does not beat" in warning and "markov (0.9999)" in warning for warning in result.warnings)
    text = result.page.read_text(encoding="utf-8")
    assert text.index("LEAK") < text.index("<main>")


@pytest.mark.usefixtures("undrawn")
def test_what_is_missing_comes_with_its_command(finished_root: Path) -> None:
    """Evaluations of older versions and of other people lack things; the page says how to get them."""
    first, second = evaluations(finished_root)
    for name in ("lists", "slices", "calibration"):
        for folder in (first, second):
            (folder / f"{name}.parquet").unlink()
    text = Page(page_of(finished_root)).text
    run = read_json(first / "run.json")["run"]
    for name in ("lists", "slices", "calibration"):
        assert f"kept no {name}. Made by: deshi evaluate {run} part=both with_baselines=true" in text
    assert f"deshi gap {run}" in text


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_gone_leaves_a_report(finished_root: Path) -> None:
    """Runs are deleted when the disk is full, evaluations stay."""
    fitted = read_json(evaluations(finished_root)[1] / "run.json")["run"]
    for path in sorted(Path(fitted).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    text = Page(page_of(finished_root, runs=[str(evaluations(finished_root)[1])])).text
    assert f"The run of tiny_seed1 is no longer at {fitted}" in text


@pytest.mark.usefixtures("undrawn")
def test_a_bundle_that_is_gone_leaves_a_report(finished_root: Path) -> None:
    """The figures don't need the data; titles and popularity do."""
    (finished_root / "data" / "tiny" / "manifest.json").unlink()
    assert "deshi prepare data=tiny" in Page(page_of(finished_root)).text


@pytest.mark.usefixtures("undrawn")
def test_an_explained_gap_is_shown(finished_root: Path) -> None:
    """What `deshi gap` has found belongs beside the figures that it explains."""
    fitted = read_json(evaluations(finished_root)[0] / "run.json")["run"]
    gap = deshi.gap(f"paths.root={finished_root}", run=fitted)
    result = report(finished_root)
    assert gap.sentence in Page(result.page.read_text(encoding="utf-8")).text
    assert "gap-contributions-tiny_seed0" in result.figures


@pytest.mark.usefixtures("undrawn")
def test_passwords_are_left_out(finished_root: Path) -> None:
    """A report is sent around; the address of a database stands in the configuration."""
    fitted = Path(read_json(evaluations(finished_root)[0] / "run.json")["run"])
    path = fitted / "config.yaml"
    path.write_text(path.read_text().replace("version: 100k", "dsn: postgresql://reader:secret@db/shop"))
    text = page_of(finished_root)
    assert "secret" not in text and "reader:***@db" in text


@pytest.mark.usefixtures("undrawn")
def test_one_run_and_another_part_and_metric(finished_root: Path) -> None:
    """The common case is one run; validation is what one looks at while still working on the model."""
    result = report(
        finished_root, "part=validation", "metric=recall@5", "examples=0", "output=" + str(finished_root / "x.html"),
        runs=["latest"],
    )  # fmt: skip
    text = Page(result.page.read_text(encoding="utf-8")).text
    assert result.page == finished_root / "x.html" and (result.folder / "report.html").is_file()
    assert "Recall@5 on validation" in text and "None were asked for" in text and "One run" in text
    assert read_json(result.folder / "run.json")["stage"] == "report"


@pytest.mark.usefixtures("undrawn")
def test_candidate_sets_are_said_loudly(finished_root: Path, config_dir: Path) -> None:
    """Figures among a few candidates look splendid beside those of full ranking."""
    fitted = read_json(evaluations(finished_root)[0] / "run.json")["run"]
    evaluation = deshi.evaluate(
        f"paths.root={finished_root}", "candidates=sampled", "candidates.n=5", "eval.ks=[1,3]", run=fitted
    )
    result = report(finished_root, "metric=ndcg@3", runs=[str(evaluation.folder)])
    assert any("SAMPLED" in warning for warning in result.warnings)
    assert "small candidate sets" in Page(result.page.read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["metric=ndcg@7"], "metric is 'ndcg@7', but .* at 1, 5, 10, 20"),
        (["metric=coverage@10"], "metric: got"),
        (["examples=-1"], "examples: got -1"),
        (["part=train"], "part: got"),
        (["output=."], "output=.* is a folder, expected a file"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_wrong_questions_are_refused(finished_root: Path, overrides: list[str], message: str) -> None:
    """Before any work, with what there is."""
    with pytest.raises(DeshiError, match=message):
        report(finished_root, *overrides)
    assert not (finished_root / "runs" / "report").exists()


@pytest.mark.parametrize("name", ["lists.parquet", "slices.parquet", "calibration.parquet", "ranks.parquet"])
@pytest.mark.usefixtures("undrawn")
def test_damaged_files_are_named(finished_root: Path, name: str) -> None:
    """A page without a section, or a traceback, would hide which file it is."""
    (evaluations(finished_root)[0] / name).write_text("damaged")
    with pytest.raises(DeshiError, match=f"{name} can't be read.*deshi evaluate again"):
        report(finished_root)


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_learning_curve_is_named_and_an_unfinished_run_is_gone(finished_root: Path) -> None:
    """The curve is of the run, not of the evaluation; a run that is trained again has no record yet."""
    run = Path(read_json(evaluations(finished_root)[0] / "run.json")["run"])
    (run / "epochs.csv").write_text("a,b\n")
    with pytest.raises(DeshiError, match="epochs.csv has the columns a, b, expected epoch"):
        report(finished_root)
    (run / "run.json").unlink()
    assert "is no longer at" in Page(page_of(finished_root)).text


@pytest.mark.usefixtures("undrawn")
def test_other_data_are_refused(finished_root: Path) -> None:
    """Figures of different data on one page would be compared by every reader."""
    path = evaluations(finished_root)[1] / "run.json"
    write_json(path, read_json(path) | {"data_fingerprint": "f" * 64})
    with pytest.raises(DeshiError, match="data_fingerprint"):
        report(finished_root)


def test_the_result_tells_where_the_page_is(finished: ReportResult) -> None:
    """In a terminal and in a notebook."""
    assert str(finished.page) in str(finished) and str(finished.page) in finished._repr_html_()
