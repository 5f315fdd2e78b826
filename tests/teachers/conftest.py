"""Where slow tests keep real models between runs."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_cache(pytestconfig: pytest.Config) -> Path:
    """A cache of real models that outlives the test run (pytest's own), so that each is fetched once."""
    return Path(pytestconfig.cache.mkdir("models"))
