"""Composition of configurations: every override arrives, and everything wrong stops before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from deshi.configuration.compose import load
from deshi.configuration.overrides import from_python
from deshi.configuration.run_folders import find_run, load_config, save_config
from deshi.configuration.schemas import FitConfig, PathsConfig, TrainConfig
from deshi.configuration.show import render
from deshi.configuration.targets import ConfigError
from deshi.configuration.validation import resolved, validate
from deshi.stages import STAGES, compose
from deshi.stages.evaluate import EvaluateConfig
from deshi.types import DeshiError

FIELDS = {name: stage.schema.model_fields for name, stage in STAGES.items()}
NEEDED = {"distill": ["soft_labels=[lists]"], "tune": ["space.student.dim=choice(8,16)"]}
"""What a stage needs besides its defaults."""
WITH_TRAIN = [name for name, known in FIELDS.items() if "train" in known and known["train"].annotation is TrainConfig]


@pytest.fixture
def fit(config_dir: Path) -> Any:
    return lambda *texts: load("fit", FitConfig, ["data=tiny", *texts], config_dir)


@pytest.fixture
def problems(fit: Any) -> Any:
    def collect(*texts: str) -> str:
        with pytest.raises(ConfigError) as caught:
            fit(*texts)
        assert "nothing was started" in str(caught.value)
        return "\n".join(str(problem) for problem in caught.value.problems)

    return collect


def test_some_stage_trains() -> None:
    """The next test would pass in silence if the list were empty."""
    assert "fit" in WITH_TRAIN


@pytest.mark.parametrize("stage", WITH_TRAIN)
def test_max_epochs_arrives_in_every_stage_that_trains(stage: str, config_dir: Path, tmp_path: Path) -> None:
    """A `max_epochs` that was silently 50 cost days: it must be in the resolved, the printed and the saved config."""
    given = ["data=tiny", "train.max_epochs=3", *NEEDED.get(stage, [])]
    config = compose(stage, given, {}, config_dir)
    assert config.train.max_epochs == 3
    assert "max_epochs: 3  # <- train.max_epochs=3" in render(config)
    save_config(tmp_path, config)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["train"]["max_epochs"] == 3
    assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == given


def test_arguments_win_over_presets_wherever_they_stand(fit: Any) -> None:
    """An experiment preset is a diff over the defaults; what is typed is a diff over that."""
    assert fit("experiment=short").train.max_epochs == 7
    config = fit("train.max_epochs=3", "experiment=short")
    assert (config.train.max_epochs, config.train.patience) == (3, 5)
    assert config.student["_target_"].endswith("GRU4Rec")
    assert fit("experiment=short", "student=caser").student["_target_"].endswith("Caser")


def test_the_later_of_two_arguments_wins(fit: Any) -> None:
    """As in every shell."""
    assert fit("train.max_epochs=3", "train.max_epochs=4", "student=caser", "student=gru4rec").train.max_epochs == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.learning_rate=1", 1.0),
        ("train.gradient_clip=null", None),
        ("train.betas=[0.8,0.9]", (0.8, 0.9)),
        ("train.augment={item_drop: 0.2}", 0.2),
        ("+train.max_epochs=3", 3),
        ("++train.max_epochs=3", 3),
        ("name=a.b-c", "a.b-c"),
        ("student.dim=${eval.batch_size}", 128),
        ("name=seed_${seed}", "seed_0"),
    ],
)
def test_values_arrive_as_they_were_meant(fit: Any, text: str, value: object) -> None:
    """Integers where a float belongs, null, lists, dicts and interpolations are all legitimate."""
    found: Any = fit(text)
    for part in text.lstrip("+").partition("=")[0].split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert (found.item_drop if "augment" in text else found) == value


@pytest.mark.parametrize("folder", ["~/my data", "it's", "a=b,c", "x\\", "SELECT a, b FROM c"])
def test_paths_need_no_quoting_beyond_the_shells(fit: Any, folder: str) -> None:
    """A path with a space or a tilde is no syntax error."""
    assert fit(f"paths.root={folder}").paths.root == Path(folder).expanduser()


def test_a_choice_that_the_command_takes_from_its_run() -> None:
    """Labels, exports and answers are about a run's data; the key is known, but not to them."""
    with pytest.raises(
        ConfigError, match="deshi label has no choice of data; expected one of selection, profiles, paths or"
    ):
        compose("label", ["run=x", "data=ml-100k"], {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.max_epochs='3'", "train.max_epochs: got '3' (str), expected integer."),
        ("train.max_epochs=3.5", "train.max_epochs: got 3.5 (float), expected integer."),
        ("train.max_epochs=true", "train.max_epochs: got True (bool), expected integer."),
        ("train.max_epochs=null", "train.max_epochs: got null, expected integer."),
        ("train.max_epochs=0", "train.max_epochs: got 0 (int), expected greater than or equal to 1."),
        ("train.sparse_table=7", "train.sparse_table: got 7 (int), expected boolean or 'auto'."),
        ("train.augment.item_drop=1", "train.augment.item_drop: got 1 (int), expected less than 1."),
        ("train.precision=fp16", "expected 'auto', 'fp32' or 'bf16'. Nearest valid values: bf16"),
        ("train.max_epoch=3", "train.max_epoch: unknown key. Nearest valid keys: train.max_epochs"),
        ("max_epochs=3", "max_epochs: unknown key. Nearest valid keys: train.max_epochs"),
        ("trian.max_epochs=3", "trian.max_epochs: unknown key. Nearest valid keys: train.max_epochs"),
        ("train.augment.itemdrop=0.1", "Nearest valid keys: train.augment.item_drop"),
        ("studnet=gru4rec", "studnet: unknown key. Nearest valid keys: student"),
        ("student=gru5rec", "there is no student 'gru5rec'. Nearest valid choices: gru4rec"),
        ("student.dmi=64", "unknown argument of deshi.models.sasrec.SASRec. Nearest valid arguments: dim"),
        ("student.dim=wide", "student.dim: got 'wide' (str), expected int."),
        ("student.n_items=5", "student.n_items: is supplied by deshi at run time"),
        ("student=null", "student: is missing"),
        ("train.max_epochs", "expected key=value"),
        ("train.betas=[0.9", "can't be read"),
        ("seed=1,2", "seed=1,2: is a sweep"),
        ("~train.max_epochs=3", "isn't supported"),
        ("student.dim=${nowhere}", "student.dim: Interpolation key 'nowhere' not found."),
        ("data.name=../x", "data.name: got '../x' (str), expected match pattern"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_stops_before_any_work(problems: Any, text: str, expected: str) -> None:
    """The message names the key, what was got, what was expected and the nearest valid names."""
    assert expected in problems(text)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "soft_labels: is missing and has no default, expected stores of soft labels that deshi label wrote"),
        ([], ": folders or names. Write soft_labels=[...]"),
        (["soft_labels=lists"], "soft_labels: got 'lists' (str), expected array. Write soft_labels=[lists]."),
        (["soft_labels=[]"], "soft_labels: got [] (list), expected at least one."),
    ],
)
def test_a_missing_value_and_one_value_for_a_list_are_explained(words: list[str], expected: str) -> None:
    """What the key is for and how to write it stand in the message."""
    with pytest.raises(ConfigError) as error:
        compose("distill", words, {})
    assert expected in str(error.value)


def test_all_problems_come_at_once(problems: Any) -> None:
    """Nobody wants to fix a configuration one error a run."""
    found = problems("train.max_epoch=3", "student.dmi=2", "seed=x")
    assert len(found.splitlines()) == 3


def test_nodes_in_a_list_are_completed(config_dir: Path) -> None:
    """Vectors of two encoders side by side from the command line; the configuration pins their default values."""
    node = "{_target_: deshi.teachers.encoders.%s}"
    words = [
        "data=tiny",
        "teacher=text",
        f"teacher.embeddings.encoder=[{node % 'WordEncoder'},{node % 'SentenceEncoder'}]",
    ]
    cfg = compose("teach", words, {}, config_dir)
    first, second = cfg.teacher["embeddings"]["encoder"]
    assert (first["dim"], second["pooling"]) == (256, "mean")
    wrong = [*words[:2], words[2].replace("WordEncoder", "WordsEncoder")]
    with pytest.raises(DeshiError, match=r"teacher.embeddings.encoder.0._target_.*WordEncoder"):
        compose("teach", wrong, {}, config_dir)


def test_an_override_that_gets_lost_is_an_error(config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the composition ever drop an argument, the run must not start."""
    monkeypatch.setattr("deshi.configuration.compose._compose", lambda *_: {"data": _tiny(config_dir), "force": False})
    with pytest.raises(ConfigError, match=r"got force=true, but the resolved configuration holds False"):
        compose("prepare", ["force=true"], {})


def _tiny(config_dir: Path) -> Any:
    return yaml.safe_load((config_dir / "data" / "tiny.yaml").read_text())


def test_python_values_become_the_same_overrides() -> None:
    """The Python API and the command line must not differ; strings that look like other types stay strings."""
    values = {"student": "gru4rec", "train": {"max_epochs": 3, "gradient_clip": None, "refit": True}}
    assert from_python(values) == [
        "student=gru4rec", "train.max_epochs=3", "train.gradient_clip=null", "train.refit=true",
    ]  # fmt: skip
    assert from_python({"name": "true", "x": [1, "a b", (2.5,)], "p": Path("/a b/c'd")}) == [
        "name='true'", "x=[1,'a b',[2.5]]", "p='/a b/c\\'d'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["plain", "3", "1e-3", "null", "true", "a b", "it's", 'say "x"', "back\\", "a=b", "[x", ""]
)
def test_python_strings_survive_the_way_through_the_override_grammar(text: str, config_dir: Path) -> None:
    """A title or a path given from a notebook arrives letter by letter (interpolations are the one exception)."""
    config = compose("fit", [], {"data": "tiny", "resume": None, "train": {"accelerator": text}}, config_dir)
    assert config.train.accelerator == text


def test_saved_configurations_read_back_the_same(fit: Any, tmp_path: Path) -> None:
    """Evaluation and resuming rebuild the student from this file."""
    config = fit("student.dim=24", "train.betas=[0.8,0.9]")
    save_config(tmp_path, config)
    assert resolved(load_config(tmp_path, FitConfig)) == resolved(config)


def test_a_damaged_or_missing_saved_configuration_is_explained(tmp_path: Path) -> None:
    """A folder given by mistake must not end in a FileNotFoundError."""
    with pytest.raises(DeshiError, match="no run folder"):
        load_config(tmp_path, FitConfig)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(DeshiError, match="not valid YAML"):
        load_config(tmp_path, FitConfig)
    (tmp_path / "config.yaml").write_text("just text")
    with pytest.raises(DeshiError, match="damaged"):
        load_config(tmp_path, FitConfig)


def test_configurations_do_not_change_after_the_check(fit: Any) -> None:
    """What is printed and saved is what the stage works with."""
    with pytest.raises(Exception, match="frozen"):
        fit().train.max_epochs = 4


def test_paths_follow_the_root_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """One override moves everything; each folder can still be set alone."""
    monkeypatch.setenv("DESHI_CACHE", "/big/disk")
    paths = PathsConfig(root=Path("/x"), runs=Path("/fast"))
    assert (paths.data, paths.runs, paths.cache) == (Path("/x/data"), Path("/fast"), Path("/big/disk"))


def _save_run(root: Path, name: str, config: FitConfig) -> Path:
    folder = root / "runs" / "fit" / name
    folder.mkdir(parents=True)
    save_config(folder, config)
    return folder


def test_runs_are_found_by_path_by_name_and_as_the_latest(fit: Any, tmp_path: Path) -> None:
    """Typing a timestamp is a nuisance; a wrong one gets the nearest names."""
    old, new = (_save_run(tmp_path, name, fit()) for name in ("20250101-000000_a", "20250102-000000_b"))
    runs = tmp_path / "runs"
    assert find_run(runs, "fit", str(old)) == old
    assert find_run(runs, "fit", old.name) == old
    assert find_run(runs, "fit", "latest") == new
    with pytest.raises(DeshiError, match="20250102-000000_b"):
        find_run(runs, "fit", "20250102-00000_b")
    with pytest.raises(DeshiError, match="run `deshi fit` first"):
        find_run(tmp_path / "empty", "fit", "latest")


def test_evaluation_takes_data_and_split_from_the_run(fit: Any, config_dir: Path, tmp_path: Path) -> None:
    """Evaluating on other data than the run's by forgetting an argument would be a quiet disaster."""
    folder = _save_run(tmp_path, "20250101-000000_a", fit("split=ratio", "split.test=0.2"))
    config = load("evaluate", EvaluateConfig, ["run=latest", f"paths.root={tmp_path}"])
    assert config.run == str(folder) and config.data is not None
    assert (config.data.name, config.split["test"] if config.split else None) == ("tiny", 0.2)
    given = load("evaluate", EvaluateConfig, [f"run={folder}", "split=leave-one-out"])
    assert given.split == {"_target_": "deshi.data.splits.LeaveOneOut"}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], "nothing to evaluate"),
        (["baseline=ease"], "needs a data set"),
        (["baseline=pop"], "Nearest valid values: popularity|Valid values: .*popularity"),
        (["run=nowhere"], "No run 'nowhere'"),
    ],
)
def test_evaluation_says_what_it_lacks(texts: list[str], expected: str, tmp_path: Path) -> None:
    """There is no default run: evaluating just anything would mislead."""
    with pytest.raises(DeshiError, match=expected):
        load("evaluate", EvaluateConfig, [*texts, f"paths.root={tmp_path}"])


def test_a_resumed_run_keeps_its_configuration(fit: Any, config_dir: Path, tmp_path: Path) -> None:
    """Resuming must end with the weights of the uninterrupted run, so nothing may change on the way."""
    folder = _save_run(tmp_path, "20250101-000000_a", fit("student.dim=24", "train.max_epochs=9"))
    config = load("fit", FitConfig, ["resume=latest", f"paths.root={tmp_path}"])
    assert (config.student["dim"], config.train.max_epochs, config.resume) == (24, 9, str(folder))
    with pytest.raises(ConfigError, match="a resumed run keeps its own configuration"):
        load("fit", FitConfig, ["resume=latest", f"paths.root={tmp_path}", "train.max_epochs=3"])


def test_defaults_stand_in_the_schema_alone(fit: Any) -> None:
    """Two places for one default are how a `max_epochs` gets lost: plain `fit` is the schema's defaults."""
    assert fit().train == TrainConfig()


def test_schema_errors_without_the_command_line_read_the_same() -> None:
    """Stages may be driven from plain dicts, e.g. a saved file that was edited by hand."""
    with pytest.raises(ConfigError, match=r"data: is missing"):
        validate(FitConfig, {"student": {"_target_": "deshi.models.sasrec.SASRec"}, "loss": {}})


@pytest.mark.parametrize("name", ["2024", "1e5", "007", "true", "null", "2024.5"])
def test_names_that_look_like_numbers_are_taken_as_written(name: str) -> None:
    """A data set or a run called 1e5 was refused as a float, or would have become 100000.0."""
    prepared = compose("prepare", ["data=tabular", f"data.name={name}", "data.source.path=2024"], {})
    assert prepared.data.name == name and prepared.data.source["path"] == "2024"
    if name != "null":  # of a key that may be left out it is no name
        assert compose("fit", [f"name={name}"], {}).name == name
    assert compose("compare", [f"runs=[a,{name},0x10]"], {}).runs == ["a", name, "0x10"]
    assert compose("fit", ["seed=3", "train.max_epochs=2"], {}).seed == 3


def test_a_yaml_file_is_told_how_to_quote(tmp_path: Path) -> None:
    """YAML has made 7 of 007 before anybody can ask what was written."""
    (tmp_path / "data").mkdir()
    source = "{_target_: deshi.data.sources.tabular.Tabular, path: x.csv}"
    (tmp_path / "data" / "shop.yaml").write_text(f"name: 2024\nsource: {source}\n")
    with pytest.raises(ConfigError, match="Quote a name that looks like a number, in YAML: name: '2024'"):
        compose("prepare", ["data=shop"], {}, tmp_path)


def test_python_values_of_other_libraries_are_plain_ones() -> None:
    """Seeds of a range, cut-offs of an array and names of a Series are what their lists are."""
    values = {"seeds": range(2), "eval": {"ks": np.array([5, 10])}, "runs": pl.Series(["a", "b"]), "x": np.float64(0.5)}
    assert from_python(values) == ["seeds=[0,1]", "eval.ks=[5,10]", "runs=[a,b]", "x=0.5"]
