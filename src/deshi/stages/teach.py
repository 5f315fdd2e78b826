"""The command ``deshi teach``."""

from __future__ import annotations

from deshi.configuration.needs import RAY
from deshi.configuration.schemas import TeachConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="teach",
    schema=TeachConfig,
    work="deshi.training.teach:run",
    subject="data",
    summary="make a teacher: train a network, or weigh an ensemble",
    purpose="Trains a teacher by the same machinery as a student, with cross_fit one for each fold of the users, or\n"
    "chooses the weights of an ensemble of runs on validation; leaves a run folder runs/teach/TIME_NAME.",
    examples=(
        ("deshi teach data=ml-100k", "a sequence model over embeddings of the items' texts"),
        ("deshi teach teacher=ensemble teacher.members=[RUN,RUN]", "the weighted scores of finished runs"),
        ("deshi teach cross_fit=4", "each user answered by a teacher that has not seen that user"),
    ),
    needs_if={("engine", "ray"): (RAY,)},
)
