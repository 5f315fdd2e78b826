"""The command ``deshi label inspect``."""

from __future__ import annotations

from deshi.configuration.schemas import LabelInspectConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="label_inspect",
    schema=LabelInspectConfig,
    work="deshi.stages._label_inspect:run",
    subject="store",
    summary="look into a store of soft labels",
    purpose="Prints coverage, agreement with the true next items, the memorisation gap, popularity and examples with\n"
    "titles of a soft-label store. Writes nothing.",
    examples=(
        ("deshi label inspect STORE", "what the store holds"),
        ("deshi label inspect STORE compare_with=latest", "beside the lists of a run"),
    ),
)
