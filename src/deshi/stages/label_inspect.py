"""The command ``deshi label inspect``."""

from __future__ import annotations

from pydantic import Field

from deshi.configuration.schemas import StageConfig
from deshi.configuration.stage import Stage


class LabelInspectConfig(StageConfig):
    """Configuration of ``deshi label inspect``."""

    store: str = Field(description="a store's name or folder")
    compare_with: str | None = Field(None, description="a run whose lists are compared: folder, name, or latest")
    examples: int = Field(4, ge=0, le=100, description="lists shown with titles")
    seed: int = Field(0, ge=0, description="of what is drawn")


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
