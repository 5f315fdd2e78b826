"""The page on data sources is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from deshi import conf

PAGE = Path(__file__).parents[3] / "docs" / "data-sources.md"
NAMES = sorted(path.stem for path in Path(conf.__file__).parent.joinpath("data").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_on_the_page(name: str) -> None:
    """A data set that isn't listed won't be found."""
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")
