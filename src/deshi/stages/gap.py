"""The command ``deshi gap``."""

from __future__ import annotations

from deshi.configuration.schemas import GapConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="gap",
    schema=GapConfig,
    work="deshi.stages._gap:run",
    subject="run",
    summary="explain why validation and test of a run differ",
    purpose="Asks the run's student about validation, test, the test without the newest event and the last training\n"
    "targets; tells chance, other users and items (drift) and leaks apart. Trains nothing.",
    examples=(
        ("deshi gap latest", "of the newest run"),
        ("deshi gap latest metric=recall@20 steps=8", "another metric, further back into training"),
    ),
)
