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
from deshi.runs import Run
from deshi.serving import ServingBundle, find_bundle
from deshi.stages._preflight import dry_run
from deshi.stages._run_sizes import serve_command
from deshi.stages._run_steps import plan_of
from deshi.training.module import TrainingModule
from deshi.training.trainer import Training
from deshi.types import DeshiError
from html_checks import Page
from tiny_movielens import SMALL

WIDE = ("recipe=wide", "teachers.wide.teacher.dim=24", "teachers.wide.teacher.max_length=10")
LATE = "teachers.late={teacher: {_target_: deshi.models.sasrec.SASRec}}"
SELF = ("recipe=self", "train.max_epochs=2", "with_baselines=false")
TRAINED = ("fit", "teach", "distill")
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
    return deshi.run(f"paths.root={root}", "experiment=null", *SMALL, *words, config_dir=config_dir, data="tiny")


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
    assert "(best baseline)" in out, "what is learnt is held against what is counted"
    (folder,) = (tmp_path / "runs" / "run").glob("2*")
    plan = read_json(folder / "plan.json")["steps"]
    assert plan[0]["status"] == "reused"  # experiment=auto has looked at the data
    assert {step["status"] for step in plan[1:]} == {"done"} and all(step["seconds"] >= 0 for step in plan)
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


def test_quality_against_size_is_one_key(tmp_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distilled student is wanted for being small: each width is trained, exported and timed, the own one once."""
    first = run(tmp_path, config_dir, *SELF)
    assert first.metrics["sizes"] is None and not (first.folder / "sizes.png").exists()
    trainings: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", counted(Training.run, trainings))
        result = run(tmp_path, config_dir, *SELF, "sizes=[8,16]")
    assert len(trainings) == 2, "width 16 is the recipe's own"
    status = steps(result.folder)
    assert {name for name in status if "-" in name and "of" not in name} == {"plain-8, seed 0", "distilled-8, seed 0"}
    assert status["comparison"] == status["distilled, seed 0"] == "reused", "the recipe's own figures stay as they are"
    models = result.metrics["sizes"]["models"]
    assert list(models) == ["plain-8", "distilled-8", "plain", "distilled"]
    assert models["plain-8"]["parameters"] == models["distilled-8"]["parameters"] < models["plain"]["parameters"]
    for name, model in models.items():
        bundle = ServingBundle.load(result.folder / model["bundle"])
        assert model["bytes"] == bundle.weight_bytes and model["latency"] == bundle.latency
        figure = model["figures"]["ndcg@10"]
        assert figure["low"] <= figure["mean"] <= figure["high"] and figure["std"] is None
        assert figure["mean"] == pytest.approx(result.metrics["models"][name]["figures"]["test/ndcg@10"][0])
    shown = str(result)
    assert (result.folder / "sizes.png").stat().st_size > 10_000 and "sizes.png" in shown
    assert "distilled-8, NDCG@10 on test: " in shown and "against plain-8, of the same width; " in shown
    page = Page((result.folder / "report.html").read_text(encoding="utf-8"))
    assert "Quality against size" in page.text and "distilled-8" in page.text
    served = serve_command(result.metrics["sizes"], result.folder).removeprefix("deshi serve ")
    assert "deshi serve" in shown and find_bundle(tmp_path / "runs", served).parent.name.endswith("distilled-8_seed0")
    again = run(tmp_path, config_dir, *SELF, "sizes=[8,16]")
    assert set(steps(again.folder).values()) == {"reused"} and again.metrics["sizes"]["models"].keys() == models.keys()


def counted(function: Any, calls: list[object]) -> Any:
    """``function``, with an entry in ``calls`` for each call."""

    def call(*args: Any, **keywords: Any) -> Any:
        calls.append(args)
        return function(*args, **keywords)

    return call


def test_narrow_students_are_regularised_less(config_dir: Path, tmp_path: Path) -> None:
    """Dropout and item drop fall with the root of the width, of both students; wider ones, the recipe's keep theirs."""
    words = ["data=tiny", *SMALL, *SELF, "sizes=[4,16,64]", "student.dropout=0.4", "train.augment.item_drop=0.2"]
    config = stages.compose("run", [*words, "distilled.student.dropout=0.1"], {}, config_dir)
    drops = {s.name: (s.node["dropout"], s.train.augment.item_drop) for s in config.students}
    assert drops == {
        "plain-4": (0.2, 0.1), "distilled-4": (0.05, 0.1), "plain": (0.4, 0.2), "distilled": (0.1, 0.2),
        "plain-64": (0.4, 0.2), "distilled-64": (0.1, 0.2),
    }  # fmt: skip
    assert config.train.augment.item_drop == 0.2


def test_a_dry_run_with_sizes_says_what_they_take(config_dir: Path, tmp_path: Path) -> None:
    """Eight trainings more are hours on large data: the estimate has a line for each."""
    deshi.prepare(f"paths.root={tmp_path}", config_dir=config_dir, data="tiny")
    stage, words = stages.STAGES["run"], [f"paths.root={tmp_path}", "data=tiny", *SMALL, *SELF, "sizes=[8]"]
    shown = str(dry_run(stage, stages.compose("run", words, {}, config_dir)))
    assert all(step in shown for step in ("plain-8", "distilled-8", "exports, with the times")) and "onnx" in shown


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
    wrong = "distill.terms.kl.temperature=1e-42"
    with pytest.raises(DeshiError, match=r"(?s)\[4/10\] distilled, seed 0 failed: .*finite") as failure:
        run(tmp_path, config_dir, *SELF, wrong)
    assert "deshi run resume=" in str(failure.value) and "This step alone: deshi distill " in str(failure.value)
    (folder,) = (tmp_path / "runs" / "run").glob("2*")
    record = next(one for one in read_json(folder / "plan.json")["steps"] if one["status"] == "failed")
    assert "finite" in record["error"]
    config = Path(shlex.split(record["command"])[-1].removeprefix("config="))
    assert "temperature: 1.0e-42" in config.read_text(), "the step alone is repeated with the key that failed"
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


def test_all_of_it_is_refitted_after_the_selection(tmp_path: Path, config_dir: Path) -> None:
    """Each model again, from lists written anew; two tables, two comparisons, two pages, and nothing between them."""
    result = run(tmp_path, config_dir, *WIDE, "refit=true")
    plan = {step["name"]: step for step in read_json(result.folder / "plan.json")["steps"]}
    models = ("plain", "wide", "both", "distilled")
    names = list(plan)
    first = [*(f"{model} refitted, seed 0" for model in models[:3]), "lists of both refitted, seed 0"]
    assert names[names.index("report") + 1 :] == [
        *first, "distilled refitted, seed 0", *(f"evaluation of {model} refitted, seed 0" for model in models),
        "comparison refitted", "report refitted",
    ]  # fmt: skip
    runs = {name: Run(result.folder / step["folder"]) for name, step in plan.items() if step["stage"] in TRAINED}
    for model in models:
        selected, refitted = runs[f"{model}, seed 0"], runs[f"{model} refitted, seed 0"]
        assert refitted.record["refit"] == selected.name and refitted.metrics == {}
    members = runs["both refitted, seed 0"].saved["teacher"]["members"]
    assert members == [runs[f"{model} refitted, seed 0"].name for model in ("plain", "wide")]
    times = result.seconds
    assert times.keys() - {"wall_seconds"} == TIMES | {f"{name}_refitted" for name in TIMES}
    assert (
        times["student_baseline_train_time"]
        == read_json(runs["plain, seed 0"].folder / "time.json")["student_baseline_train_time"]
    )
    protocol = result.metrics["refitted"]
    assert set(protocol["models"]) == {*models} and set(protocol["distilled_against_plain"]) == {"ndcg@10", "recall@10"}
    assert all(set(model["figures"]) == {"test/ndcg@10", "test/recall@10"} for model in protocol["models"].values())
    assert all((result.folder / page).is_file() for page in protocol["pages"].values())
    text = " ".join(str(result).split())
    assert "tiny, selected, full ranking" in text and "refitted on training and validation events" in text
    assert "distilled refitted against plain refitted" in text and "Two protocols" not in text
    evaluation = result.folder / plan["evaluation of plain refitted, seed 0"]["folder"]
    assert all(name.startswith("test/") for name in read_json(evaluation / "metrics.json")["baselines"]["popularity"])
    again = run(tmp_path, config_dir, *WIDE, "refit=true")
    assert set(steps(again.folder).values()) == {"reused"}
    assert steps(run(tmp_path, config_dir, *WIDE).folder) == {
        name: "reused" for name in names if "refitted" not in name
    }, "the selected half is the same with and without a refit"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["refit=true", "teachers.wide.cross_fit=2"], "teachers.wide is cross-fitted"),
        (["refit=true", "teachers.both.teacher.members=[plain,other]"], "has the member other, an earlier run"),
        (["teachers.wide.train.refit=true"], "teachers.wide.train trains on validation events"),
        (["teachers.both.teacher.members=[plain,late]", LATE], "both draws on late, which must stand before"),
        (["soft_labels.lists.of=nobody"], "expected one of plain, wide, both"),
        (["teachers.both=null", "teachers.wide=null"], "there is no teacher: choose a recipe"),
        (["teachers.plain={teacher: {_target_: deshi.models.sasrec.SASRec}}"], "plain is a student's name"),
        (["train.refit=true"], "trains on validation events"),
        (["eval.ks=[5]"], "expected 10 among them"),
        (["seeds=[1,1]"], "expected each once"),
        (["teachers.wide.train.max_epoch=3"], "Nearest valid keys: .*train.max_epochs"),
        (["distilled.student.dmi=3"], "Nearest valid arguments: dim"),
        (["distill.terms.kl.teacher_temperature=-1"], "distill.terms.kl: ListwiseKL got teacher_temperature=-1"),
        (["distill.item_table.scale=0"], "distill.item_table: The item table got .*scale=0"),
        (["teachers.both.teacher.weights=[1]"], r"teachers.both.teacher: teacher.weights is \[1.0\], expected 2 num"),
        (["recipe=counts", "teachers.counts.teacher.history_decay=3"], "teachers.counts.teacher: .*history_decay=3"),
        (["recipe=text", "teachers.text.teacher.dropout=2"], "teachers.text.teacher: Dropout got rate=2"),
        (["recipe=text", "teachers.text.teacher.embeddings.encoder=[]"], "embeddings: encoder is an empty list"),
        (["distilled.train.epochs=3"], "1 problem in .*\n  distilled.train.epochs: unknown key. Nearest valid keys: d"),
        (["train.epochs=3"], r"1 problem in .*\n  train.epochs: unknown key"),
        (["train.epochs=3", "distilled.train.epochs=3"], r"2 problems in .*\n  train.*\n  distilled.train.epochs: unk"),
        (["sizes=[16,18]", "student.heads=4"], "sizes has 18, and student can't have that width: .*multiple of heads"),
        (["sizes=[16]", "distilled.student.heads=32"], "distilled.student can't have that width"),
        (["sizes=[16]", "train.start_from=latest"], "train.start_from is a run of one width"),
        (["sizes=[16]", "teachers.plain-16={teacher: {_target_: deshi.models.sasrec.SASRec}}"], "a student's name"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_once(words: list[str], message: str, config_dir: Path) -> None:
    """After the teacher has been trained is too late."""
    with pytest.raises(ConfigError, match=message):
        stages.compose("run", ["data=tiny", "recipe=wide", "distill=listwise-table", *words], {}, config_dir)


def test_a_wrong_value_of_a_recipe_that_the_data_will_choose(config_dir: Path) -> None:
    """The words fit one of the recipes: its problem is told, not that they don't fit the others."""
    with pytest.raises(ConfigError, match=r"1 problem.*\n  teachers.counts.teacher: Pairwise got .*history_decay=3"):
        stages.compose("run", ["data=tiny", "teachers.counts.teacher.history_decay=3"], {}, config_dir)


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


def test_a_second_model_is_the_plain_student_with_another_seed(config_dir: Path) -> None:
    """The same settings and weights from another beginning: with the same seed it would be the same model."""
    words = ["data=tiny", "experiment=null", "recipe=counts-ids", "student=gru4rec", "student.dim=24", "seeds=[3]"]
    cfg = stages.compose("run", words, {}, config_dir)
    configs: dict[str, Any] = {step.name: step.configure({}) for step in plan_of(cfg).steps if not step.needs}
    plain, second = configs["plain, seed 3"], configs["second, seed 3"]
    assert second.teacher == plain.student and second.train == plain.train
    assert (plain.seed, second.seed) == (3, 103)
