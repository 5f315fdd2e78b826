"""The command ``deshi prepare``."""

from __future__ import annotations

from deshi.configuration.schemas import PrepareConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="prepare",
    schema=PrepareConfig,
    work="deshi.data.prepare:run",
    subject="data",
    summary="fetch a data set, filter it, write its bundle",
    purpose="Reads a data set (downloaded when it is missing) and writes the bundle data/NAME: histories, vocabulary,\n"
    "item table, statistics. A bundle that is up to date is left as it is.",
    examples=(
        ("deshi prepare data=ml-100k", "MovieLens 100K"),
        ("deshi prepare data=ml-1m data.filters.min_rating=4", "only ratings of 4 and 5"),
        ("deshi prepare data=ml-1m data.filters.min_user_interactions=10", "only users with 10 events or more"),
    ),
)
