"""What a command needs is known, and refused with the command that installs it, before its first step."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import deshi
from deshi.cli import main
from deshi.configuration.needs import PEFT, LocalFile, needs_of, pip_command
from deshi.stages._estimate import SMALL_FILES, Shape, estimates, shape_of
from deshi.teachers._models import PretrainedModel
from deshi.types import DeshiError
from tiny_movielens import SMALL

TEXT = {"_target_": "deshi.teachers.text.Text"}
ILORA = {
    "_target_": "deshi.teachers.ilora.ILoRA", "llm": {"_target_": "deshi.teachers.llm.LLM", "name": "a/b"},
}  # fmt: skip


@pytest.fixture
def plain_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of all extras hidden, as after a plain `pip install`."""
    names = (
        "transformers",
        "huggingface_hub",
        "peft",
        "onnxruntime",
        "onnx",
        "onnxscript",
        "fastapi",
        "optuna",
        "faiss",
    )
    for name in (*names, "faiss", "psycopg"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("plain_install")
def test_the_default_run_is_refused_before_its_first_step(tmp_path: Path, config_dir: Path) -> None:
    """Minutes of training were lost before the third step said that a package is missing."""
    with pytest.raises(DeshiError, match=r"nothing was begun(.|\n)*pip install 'deshi\[llm\]'(.|\n)*recipe=self"):
        deshi.run(f"paths.root={tmp_path}", *SMALL, data="tiny", config_dir=config_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "the data have chosen the recipe"


@pytest.mark.usefixtures("plain_install")
@pytest.mark.parametrize(
    ("stage", "words", "extras"),
    [
        ("teach", ["data=tiny", "teacher=text"], "llm"),
        ("teach", ["data=tiny", "teacher=bigrec"], "llm"),
        ("tune", ["data=tiny", "space.student.dim=choice(8,16)"], "tune"),
        ("export", ["run=latest", "index=approximate"], "ann,serve"),
        ("serve", ["bundle=x"], "serve"),
        ("recommend", ["bundle=x", "input=y"], "serve"),
        ("prepare", ["data=sql", "data.name=x", "data.source.query=SELECT", "data.source.dsn=postgresql://h/d"], "sql"),
    ],
)
def test_every_command_names_its_extras_at_once(
    tmp_path: Path, config_dir: Path, stage: str, words: list[str], extras: str
) -> None:
    """All that is missing comes with one command that installs it."""
    with pytest.raises(DeshiError, match=rf"nothing was begun(.|\n)*pip install 'deshi\[{extras}\]'"):
        deshi.stages.run_stage(stage, f"paths.root={tmp_path}", *words, config_dir=config_dir)
    assert list(tmp_path.iterdir()) == []


def test_nodes_are_asked_however_deep_and_for_what_they_take_by_default() -> None:
    """A default encoder that is written nowhere is needed all the same."""
    models = [need for need in needs_of({"a": [TEXT, {"b": ILORA}]}) if isinstance(need, PretrainedModel)]
    assert [model.name for model in models] == ["sentence-transformers/all-MiniLM-L6-v2", "a/b"]
    assert PEFT in needs_of(ILORA) and PEFT not in needs_of(TEXT)


def test_files_and_runs_that_a_later_step_reads_are_missed_at_once(tmp_path: Path, config_dir: Path) -> None:
    """The teacher is the third step of a run: a wrong path would be told after the first training."""
    teacher = {"_target_": "deshi.teachers.files.RankedLists", "path": str(tmp_path / "lists.csv")}
    members = {"_target_": "deshi.teachers.ensemble.Ensemble", "members": ["plain", "gone"]}
    for node, message in ((teacher, "there is no such file"), (members, "No run 'gone'")):
        with pytest.raises(DeshiError, match=f"nothing was begun(.|\n)*{message}"):
            deshi.run(
                f"paths.root={tmp_path}", *SMALL, data="tiny", recipe="self", config_dir=config_dir,
                teachers={"file": {"teacher": node}}, soft_labels={"lists": {"of": "file"}},
            )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_no_place_has_is_told_before_the_first_step(tmp_path: Path, config_dir: Path) -> None:
    """A download that fails an hour later would cost that hour."""
    missing = "teachers.text.teacher.embeddings.encoder={_target_: deshi.teachers.encoders.SentenceEncoder, name: ./no}"
    with pytest.raises(DeshiError, match="The model ./no is a local path, and nothing is there"):
        deshi.run(f"paths.root={tmp_path}", *SMALL, missing, data="tiny", config_dir=config_dir)
    assert list(tmp_path.iterdir()) == []


def test_extras_of_one_package_are_one_word_of_the_command() -> None:
    """`pip install deshi[llm] deshi[serve]` works, but nobody writes it."""
    assert pip_command(["deshi[serve]", "bitsandbytes", "deshi[llm]"]) == "pip install 'deshi[llm,serve]' bitsandbytes"
    assert LocalFile("path", Path("/no/such")).problem(Path()) is not None


def test_a_full_disk_is_told_before_the_first_step(
    tmp_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soft labels of a large catalogue take gigabytes; half written they help nobody."""
    deshi.prepare(f"paths.root={tmp_path}", data="tiny", config_dir=config_dir)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    with pytest.raises(DeshiError, match="1 MB free, and about [0-9]+ MB are needed; nothing was begun"):
        deshi.run(f"paths.root={tmp_path}", *SMALL, data="tiny", recipe="self", config_dir=config_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_dry_run_tells_needs_and_estimates(
    tmp_path: Path, config_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates of the tiny data are of its size: bytes within a factor of 3 of what a run leaves, time below a minute.

    Nothing is written and nothing fetched by it.
    """
    monkeypatch.setattr(PretrainedModel, "obtain", None)
    root = f"paths.root={tmp_path}"
    deshi.prepare(root, data="tiny", config_dir=config_dir)
    words = ["run", "--config-dir", str(config_dir), root, *SMALL, "data=tiny", "--dry-run"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "all-MiniLM-L6-v2: not here, fetched from" in out and "early stopping" in out and "free, and about" in out
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    config = deshi.stages.compose("fit", [root, *SMALL, "data=tiny"], {}, config_dir)
    (estimate,) = estimates("fit", config)
    fitted = deshi.fit(root, *SMALL, data="tiny", config_dir=config_dir)
    left = sum(path.stat().st_size for path in fitted.folder.rglob("*") if path.is_file())
    assert estimate.disk is not None and left / 3 < estimate.disk < 3 * left + 2 * SMALL_FILES
    assert estimate.seconds is not None and 0 < estimate.seconds < 60
    assert estimate.memory is not None and 5e8 < estimate.memory < 8e9


def test_data_whose_size_nobody_knows_have_no_estimate(tmp_path: Path) -> None:
    """A number from nowhere would be believed; a published one is known before the download."""
    unknown = ["data=tabular", "data.name=x", "data.source.path=x.csv", f"paths.root={tmp_path}"]
    assert estimates("fit", deshi.stages.compose("fit", unknown, {})) == []
    config = deshi.stages.compose("fit", ["data=ml-1m", f"paths.root={tmp_path}"], {})
    assert shape_of(config.data, config.paths) == Shape(6040, 3706, 1_000_209)
