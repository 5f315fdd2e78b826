"""The command ``deshi label``."""

from __future__ import annotations

from pydantic import Field

from deshi.configuration.needs import RAY
from deshi.configuration.schemas import EngineConfig, ListsConfig, StageConfig
from deshi.configuration.stage import Stage


class LabelConfig(StageConfig, ListsConfig, EngineConfig):
    """Configuration of ``deshi label``."""

    run: str = Field(description="a run of deshi teach, fit or distill: folder, name, or latest")
    store: str | None = Field(None, description="the store's name or folder; null: the run's name")
    force: bool = Field(False, description="replace a store that was written by another request")
    seed: int = Field(0, ge=0, description="of what is drawn")


STAGE = Stage(
    name="label",
    schema=LabelConfig,
    work="deshi.stages._label:run",
    subject="run",
    summary="write a teacher's soft labels: ranked lists after every event",
    purpose="A finished run ranks the next item after every event of the data and writes the lists, in shards that\n"
    "survive a kill, to soft_labels/STORE.",
    examples=(
        ("deshi label latest k=100", "the newest run's 100 best items after every event"),
        ("deshi label latest positions=last:20+held_out", "fewer rows"),
        ("deshi label latest augment.item_drop=0.3 copies=2", "after augmented histories instead"),
        ("deshi label latest engine=ray ray.address=auto ray.gpus=1", "on all GPUs of a Ray cluster"),
    ),
    needs_if={("engine", "ray"): (RAY,)},
)
