"""The command ``deshi distill``."""

from __future__ import annotations

from deshi.configuration.schemas import DistillConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="distill",
    schema=DistillConfig,
    work="deshi.training.distill:run",
    subject="data",
    summary="train a student on the data and on what a teacher knows",
    purpose="Trains a student as fit does, with terms that draw it to the lists of a soft-label store, and item "
    "tables\n"
    "made of a language model's vectors, merged at the end: nothing of the teacher is needed afterwards.\n"
    "Leaves a run folder runs/distill/TIME_NAME.",
    examples=(
        ("deshi distill soft_labels=[STORE]", "SASRec by listwise distillation"),
        ("deshi distill soft_labels=[STORE] distill.terms.kl.temperature=2", "softer lists"),
        ("deshi distill resume=latest", "go on with an interrupted run"),
    ),
)
