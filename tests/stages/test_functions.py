"""The Python API: the stages as functions, with the command line's configurations."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import deshi
from deshi import _functions
from deshi.artifacts import read_json, write_json
from deshi.configuration.groups import stage_groups
from deshi.configuration.schemas import PathsConfig
from deshi.configuration.stage import Stage
from deshi.configuration.targets import ConfigError
from deshi.configuration.validation import resolved
from deshi.stages import STAGES, compose
from deshi.types import DeshiError
from tiny_movielens import SMALL


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations that stages get, instead of doing their work; each returns its own as the result."""
    seen: list[Any] = []

    def run(config: Any) -> Any:
        seen.append(config)
        return config

    monkeypatch.setattr(Stage, "run", lambda self, config: run(config))
    return seen


def test_texts_and_values_mean_the_same(configs: list[Any], config_dir: Path) -> None:
    """A notebook and a shell script must give the same run."""
    deshi.fit("student=gru4rec", "train.max_epochs=3", data="tiny", config_dir=config_dir)
    deshi.fit(student="gru4rec", data="tiny", train={"max_epochs": 3}, config_dir=str(config_dir))
    assert resolved(configs[0]) == resolved(configs[1]) and configs[0].train.max_epochs == 3


def test_values_win_over_texts(configs: list[Any], config_dir: Path) -> None:
    """`deshi.fit(*common, seed=seed)` in a loop over seeds must vary the seed."""
    assert deshi.fit("data=tiny", "seed=1", seed=2, config_dir=config_dir) == configs[0]
    assert configs[0].seed == 2


def test_mistakes_are_the_same_errors(config_dir: Path) -> None:
    """A misspelt keyword must not vanish in **values."""
    with pytest.raises(ConfigError, match="train.max_epoch: unknown key"):
        deshi.fit(data="tiny", train={"max_epoch": 3}, config_dir=config_dir)


def test_a_stage_is_a_function_whatever_was_imported_before(configs: list[Any]) -> None:
    """A package of a stage's name would take the function's place as soon as anything imports it."""
    packages = {path.parent.name for path in Path(deshi.__file__).parent.glob("*/__init__.py")}
    assert packages.isdisjoint(deshi.__all__)
    deshi.evaluate(baseline="popularity", data="ml-100k")
    deshi.audit(data="ml-100k")
    assert configs[0].baseline == "popularity" and configs[1].data.name == "ml-100k"


def test_an_initialised_hydra_is_left_as_it_was(configs: list[Any], config_dir: Path) -> None:
    """Notebooks may use Hydra for their own configurations."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(config_dir), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        deshi.prepare(data="tiny", config_dir=config_dir)
        assert GlobalHydra.instance().hydra is before


FUNCTIONS = {"label_inspect": "inspect_labels", "label_import": "import_labels"}


@pytest.mark.parametrize("name", STAGES)
def test_the_keywords_of_a_function_are_the_keys_of_its_stage(name: str) -> None:
    """A key that completion doesn't show is not found; a keyword that is no key fails at run time."""
    keywords = set(inspect.signature(getattr(deshi, FUNCTIONS.get(name, name))).parameters) - set(_functions.SHARED)
    assert keywords == (set(STAGES[name].schema.model_fields) | set(stage_groups(name))) - {"paths"}


def test_the_first_argument_is_what_the_command_works_on(configs: list[Any], config_dir: Path) -> None:
    """`deshi.gap("latest")` reads as the command does; strings with = stay overrides."""
    deshi.fit("tiny", "seed=3", config_dir=config_dir)
    deshi.gap("somewhere")
    deshi.compare(["a", "b"])
    deshi.compare("a", Path("b"))
    assert (configs[0].data.name, configs[0].seed, configs[1].run) == ("tiny", 3, "somewhere")
    assert configs[2].runs == configs[3].runs == ["a", "b"]
    with pytest.raises(DeshiError, match="works on one run, but got 2: a, b"):
        deshi.gap("a", "b")


def test_a_data_sets_name_and_values_below_it_go_together(configs: list[Any], config_dir: Path) -> None:
    """A known data set with other filters is the commonest wish of all."""
    deshi.fit("tiny", data={"filters": {"min_user_interactions": 3}}, config_dir=config_dir)
    deshi.fit("data=tiny", "data.filters.min_user_interactions=3", config_dir=config_dir)
    assert resolved(configs[0]) == resolved(configs[1]) and configs[0].data.filters.min_user_interactions == 3
    with pytest.raises(DeshiError, match="works on one data, but got 2"):
        deshi.fit("tiny", data="ml-100k", config_dir=config_dir)


def test_a_run_is_taken_as_an_object_and_brings_its_place(finished_root: Path) -> None:
    """`deshi.evaluate(deshi.fit(...))` needs no path: the evaluation lies beside the run, wherever that is."""
    run = deshi.Run.open("tiny_seed0", PathsConfig.model_validate({"root": str(finished_root)}))
    result = deshi.evaluate(run, part="test")
    assert result.folder.parent == finished_root / "runs" / "evaluate"
    assert run.ranks("test").height == result.metrics["test/n_examples"]


def test_a_saved_configuration_is_repeated_with_changes_on_top(finished_root: Path) -> None:
    """One argument repeats a run: by its name or its file; groups and keys change it, and nothing else does."""
    run = deshi.Run.open("tiny_seed1", PathsConfig.model_validate({"root": str(finished_root)}))
    file = run.folder / "config.yaml"
    assert resolved(compose("fit", [f"config={file}"], {})) == resolved(run.config)
    changed = compose("fit", [f"config={file}", "student=gru4rec", "train.augment={item_drop: 0.5}", "seed=7"], {})
    assert changed.student["_target_"].endswith("GRU4Rec") and changed.seed == 7 and changed.name == "tiny_seed1"
    assert changed.train == run.config.train.model_copy(update={"augment": changed.train.augment})
    with pytest.raises(ConfigError, match="config= has set"):
        compose("fit", [f"config={file}", "experiment=ml-100k"], {})


def test_frames_are_taken_as_a_data_set(tmp_path: Path) -> None:
    """From a data frame to a trained model without a file of one's own: the bundle is made on the way."""
    rows = [(f"u{user}", f"i{(user + step) % 7}", step) for user in range(20) for step in range(6)]
    columns = zip(*rows, strict=True)
    events = dict(zip(("user_id", "item_id", "timestamp"), map(list, columns), strict=True))
    shop = deshi.Dataset.from_frames(events, name="shop", time_unit="position")
    run = deshi.fit(shop, *SMALL, "train.max_epochs=1", paths={"root": str(tmp_path)})
    assert run.bundle.name == "shop" and run.bundle.n_users == 20 and run.epochs == 1


def test_a_run_of_another_format_is_refused_with_a_sentence(finished_root: Path) -> None:
    """Old folders may be unreadable, but never misread."""
    run = deshi.Run.open("tiny_seed1", PathsConfig.model_validate({"root": str(finished_root)}))
    record = read_json(run.folder / "run.json")
    write_json(run.folder / "run.json", {key: value for key, value in record.items() if key != "format"})
    with pytest.raises(DeshiError, match=r"run format None, this version of deshi reads \d+. Run deshi fit again"):
        deshi.Run(run.folder).scorer()
