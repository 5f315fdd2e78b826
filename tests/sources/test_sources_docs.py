"""The page on data sources keeps its word: each of its commands is a valid one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from deshi.conf import compose
from deshi.config import PrepareConfig

PAGE = Path(__file__).parents[2] / "docs" / "data-sources.md"
COMMANDS = re.findall(r"^deshi prepare (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
NAMES = sorted(path.stem for path in Path(compose.__file__).parent.joinpath("data").glob("*.yaml"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_accepted(command: str) -> None:
    """The config is composed and checked against the sources' signatures; nothing is fetched."""
    assert compose.load("prepare", PrepareConfig, shlex.split(command)).data.name


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_on_the_page(name: str) -> None:
    """A data set that isn't listed won't be found."""
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")
