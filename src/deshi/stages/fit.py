"""The command ``deshi fit``."""

from __future__ import annotations

from deshi.configuration.schemas import FitConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="fit",
    schema=FitConfig,
    work="deshi.training.fit:run",
    subject="data",
    summary="train a student on a bundle",
    purpose="Trains a student on the bundle of a data set, selects the best epoch by NDCG@10 on validation, leaves\n"
    "a run folder runs/fit/TIME_NAME with weights, learning curve, times and the resolved configuration.",
    examples=(
        ("deshi fit data=ml-100k", "SASRec on MovieLens 100K"),
        ("deshi fit data=ml-100k student=gru4rec train.max_epochs=3", "three epochs of another student"),
        ("deshi fit data=ml-100k student.dim=64 train.augment.item_drop=0.3", "narrower, with augmentation"),
        ("deshi fit resume=latest", "go on with an interrupted run"),
    ),
)
