"""The Python API: the stages as functions, with the command line's configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import deshi
from deshi.configuration.stage import Stage
from deshi.configuration.targets import ConfigError
from deshi.configuration.validation import resolved


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
