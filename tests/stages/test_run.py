"""The stage run: all stages in a row on a tiny data set, what is reused, resumed, refused and reported."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import deshi
from deshi import stages
from deshi.artifacts import read_json
from deshi.cli import main
from deshi.configuration.run_folders import load_config
from deshi.configuration.schemas import DistillConfig, FitConfig, StageConfig, TeachConfig
from deshi.configuration.targets import ConfigError
from deshi.configuration.validation import resolved
from deshi.rendering import Table
from deshi.reporting._blocks import Picture
from deshi.reporting._drawing import FigureBuilder
from deshi.training.module import TrainingModule
from deshi.training.trainer import Training
from deshi.types import DeshiError
from html_checks import Page
from tiny_movielens import SMALL

WIDE = ("recipe=wide", "teachers.wide.teacher.dim=24", "teachers.wide.teacher.max_length=10")
LATE = "teachers.late={teacher: {_target_: deshi.models.sasrec.SASRec}}"
SELF = ("recipe=self", "train.max_epochs=2", "with_baselines=false")
TIMES = {
    "student_baseline_train_time", "teacher_train_time_total", "distill_teacher_export_time",
    "distill_student_train_time",
}  # fmt: skip


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a report's time and is tested there."""

    def picture(
        studio: FigureBuilder, name: str, title: str, description: str, draw: object, numbers: Table | None = None,
        height: float = 1.0,
    ) -> Picture:  # fmt: skip
        return Picture(name, title, description, "", numbers)

    monkeypatch.setattr(FigureBuilder, "picture", picture)


def run(root: Path, config_dir: Path, *words: str) -> Any:
    return deshi.run(f"paths.root={root}", *SMALL, *words, config_dir=config_dir, data="tiny")


def steps(folder: Path) -> dict[str, str]:
    """What became of each step."""
    return {step["name"]: step["status"] for step in read_json(folder / "plan.json")["steps"]}


def test_all_of_it_by_one_command(tmp_path: Path, config_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing to a table, a test and a page; each step's command makes the configuration that the step had."""
    words = ["run", "--config-dir", str(config_dir), "data=tiny", f"paths.root={tmp_path}", *SMALL, *WIDE]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "[14/14] report: took" in err
    assert all(f"│ {model} " in out for model in ("plain", "wide", "both", "distilled")) and "report.html" in out
    (folder,) = (tmp_path / "runs" / "run").glob("2*")
    plan = read_json(folder / "plan.json")["steps"]
    assert {step["status"] for step in plan} == {"done"} and all(step["seconds"] >= 0 for step in plan)
    assert all((folder / step["folder"]).is_dir() for step in plan)
    _check_commands(folder, plan)
    seconds, metrics = read_json(folder / "time.json"), read_json(folder / "metrics.json")
    assert seconds.keys() == TIMES | {"wall_seconds"} and all(seconds[name] > 0 for name in TIMES)
    sizes = {name: model["parameters"] for name, model in metrics["models"].items()}
    assert sizes["both"] == sizes["plain"] + sizes["wide"] and sizes["distilled"] == sizes["plain"]
    assert metrics["teacher"] == "both" and set(metrics["distilled_against_plain"]) == {"ndcg@10", "recall@10"}
    assert all((folder / page).is_file() for page in metrics["pages"].values())
    _check_page(Page((folder / "report.html").read_text(encoding="utf-8")))
    _check_share(metrics)


def _check_commands(folder: Path, plan: list[dict[str, Any]]) -> None:
    models: dict[str, type[StageConfig]] = {"fit": FitConfig, "teach": TeachConfig, "distill": DistillConfig}
    for step in plan:
        if step["stage"] in models:
            _, stage, *words = shlex.split(step["command"])
            saved = load_config(folder / step["folder"], models[step["stage"]])
            assert resolved(stages.compose(stage, words, {})) == resolved(saved), step["command"]


def _check_page(page: Page) -> None:
    """The page calls the models as the table does, and doesn't say of a run that is there that it is gone."""
    assert "distilled" in page.text and "soft_labels=[" not in page.text
    assert "tiny_both_seed0 (ensemble) isn't trained in epochs" in page.text and "no longer at" not in page.text


def _check_share(metrics: dict[str, Any]) -> None:
    plain, both, distilled = (
        metrics["models"][name]["figures"]["test/ndcg@10"][0] for name in ("plain", "both", "distilled")
    )
    share = metrics["share_of_teacher_gain"]["test/ndcg@10"]
    assert share is None if both <= plain else share == pytest.approx((distilled - plain) / (both - plain))


def test_what_is_done_is_reused_and_a_key_undoes_what_depends_on_it(
    tmp_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained twice; nothing that a changed key decides is taken from before."""
    first = run(tmp_path, config_dir, *SELF)
    assert set(steps(first.folder).values()) == {"done"}
    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", None)
        again = run(tmp_path, config_dir, *SELF)
    assert set(steps(again.folder).values()) == {"reused"} and again.metrics["models"] == first.metrics["models"]
    softer = run(tmp_path, config_dir, *SELF, "distill.terms.kl.temperature=2")
    assert {name for name, status in steps(softer.folder).items() if status == "done"} == {
        "distilled, seed 0", "evaluation of distilled, seed 0", "gap of distilled, seed 0", "comparison", "report",
    }  # fmt: skip
    fewer = run(tmp_path, config_dir, *SELF, "eval.ks=[5,10]")
    trained = {"data", "plain, seed 0", "lists of plain, seed 0", "distilled, seed 0"}
    assert {name for name, status in steps(fewer.folder).items() if status == "reused"} >= trained
    assert steps(fewer.folder)["evaluation of plain, seed 0"] == "done", "other cut-offs are other evaluations"


def test_an_interrupted_run_goes_on(tmp_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training that was cut is resumed in its folder, by `resume=` and by the same command."""
    step = TrainingModule.training_step

    def cut(self: TrainingModule, batch: Any, batch_index: int) -> Any:
        if self.current_epoch == 1 and "Distillation" in type(self.objective).__name__:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", cut)
        with pytest.raises(KeyboardInterrupt, match=r"deshi run resume=\S+runs/run/"):
            run(tmp_path, config_dir, *SELF)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, config_dir, *SELF)
    (folder,) = (tmp_path / "runs" / "run").glob("2*")
    status = steps(folder)
    assert status["plain, seed 0"] == "reused" and status["distilled, seed 0"] == "interrupted"
    assert status["report"] == "waiting"
    finished = deshi.run(resume="latest", paths={"root": str(tmp_path)})
    assert finished.folder == folder and set(steps(folder).values()) == {"reused", "done"}
    assert len(list((tmp_path / "runs" / "distill").iterdir())) == 1, "gone on with, not begun again"


def test_a_failing_step_says_how_to_go_on(tmp_path: Path, config_dir: Path) -> None:
    """Hours of teaching must not be lost to a mistake in the last key, and the message names all ways on."""
    wrong = "distill.terms.kl.temperature=0"
    with pytest.raises(DeshiError, match=r"(?s)\[4/10\] distilled, seed 0 failed: .*temperature") as failure:
        run(tmp_path, config_dir, *SELF, wrong)
    assert "deshi run resume=" in str(failure.value) and "This step alone: deshi distill " in str(failure.value)
    (folder,) = (tmp_path / "runs" / "run").glob("2*")
    record = next(one for one in read_json(folder / "plan.json")["steps"] if one["status"] == "failed")
    assert "temperature" in record["error"]
    config = Path(shlex.split(record["command"])[-1].removeprefix("config="))
    assert "temperature: 0" in config.read_text(), "the step alone is repeated with the key that failed"
    fixed = run(tmp_path, config_dir, *SELF)
    assert steps(fixed.folder)["lists of plain, seed 0"] == "reused" and fixed.folder != folder


def test_seeds_share_one_set_of_teachers_if_they_are_told_to(tmp_path: Path, config_dir: Path) -> None:
    """A dear teacher is trained once; models of several seeds are one row with a spread, one model of the tests."""
    result = run(tmp_path, config_dir, *SELF, "seeds=[1,2]", "teacher_seed=1")
    names = list(steps(result.folder))
    assert names.count("lists of plain, seed 1") == 1 and "lists of plain, seed 2" not in names
    assert {name: len(model["runs"]) for name, model in result.metrics["models"].items()} == {
        "plain": 2,
        "distilled": 2,
    }
    compared = json.loads((result.folder / result.metrics["pages"]["comparison"]).with_suffix(".json").read_text())
    assert [(one["name"], one["seeds"]) for one in compared["models"]] == [("plain", [1, 2]), ("distilled", [1, 2])]
    assert "2 seeds" in str(result) and " ± " in str(result)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teachers.both.teacher.members=[plain,late]", LATE], "both draws on late, which must stand before"),
        (["soft_labels.lists.of=nobody"], "expected one of plain, wide, both"),
        (["teachers.both=null", "teachers.wide=null"], "there is no teacher: choose a recipe"),
        (["teachers.plain={teacher: {_target_: deshi.models.sasrec.SASRec}}"], "plain is a student's name"),
        (["train.refit=true"], "trains on validation events"),
        (["eval.ks=[5]"], "expected 10 among them"),
        (["seeds=[1,1]"], "expected each once"),
        (["teachers.wide.train.max_epoch=3"], "Nearest valid keys: .*train.max_epochs"),
        (["distilled.student.dmi=3"], "Nearest valid arguments: dim"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_once(words: list[str], message: str, config_dir: Path) -> None:
    """After the teacher has been trained is too late."""
    with pytest.raises(ConfigError, match=message):
        stages.compose("run", ["data=tiny", "recipe=wide", *words], {}, config_dir)


def test_what_is_not_said_is_taken_over_from_the_plain_student(config_dir: Path) -> None:
    """The same chance for all: a teacher and the distilled student train as the plain one but for what is given."""
    words = [
        "train.max_epochs=7",
        "teachers.wide.train.learning_rate=0.5",
        "distilled.student.dim=32",
        "student.heads=4",
    ]
    cfg = stages.compose("run", ["data=tiny", "recipe=wide", *words], {}, config_dir)
    wide = cfg.teachers["wide"].train
    assert (wide.max_epochs, wide.learning_rate) == (7, 0.5) and cfg.teachers["both"].train == cfg.train
    assert cfg.distilled.student == {**cfg.student, "dim": 32} and cfg.distilled.train == cfg.train


@pytest.mark.parametrize(
    ("words", "positions"),
    [([], "absolute"), (["student.positions=rotary"], "rotary"), (["student=gru4rec"], "absolute")],
)
@pytest.mark.parametrize("teacher", ["text", "wide"])
def test_teachers_count_positions_as_the_student_does(
    teacher: str, words: list[str], positions: str, config_dir: Path
) -> None:
    """A preset that is better for the student is so for the teacher's networks, and a student may lack the key."""
    cfg = stages.compose("run", ["data=tiny", f"recipe={teacher}", *words], {}, config_dir)
    assert cfg.teachers[teacher].teacher["positions"] == positions
