"""Frames as researchers pickled them: pandas without pyarrow, whatever is installed here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _texts_without_pyarrow() -> Iterator[None]:
    """Where pyarrow is installed, pandas 3 keeps texts in it, and such pickles are refused by name."""
    pandas = pytest.importorskip("pandas")
    with pandas.option_context("mode.string_storage", "python"):
        yield
