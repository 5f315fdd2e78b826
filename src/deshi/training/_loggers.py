"""Loggers of curves: TensorBoard, CSV files, MLflow, Weights & Biases, by Lightning's classes for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from deshi.artifacts import read_json, write_json
from deshi.configuration.needs import MLFLOW, WANDB
from deshi.configuration.schemas import TrainingConfig
from deshi.configuration.validation import flatten, resolved
from deshi.training._ranks import Ranks

EXPERIMENT = "deshi"
"""The experiment of MLflow and the project of Weights & Biases, unless their environment variables name others."""


@contextmanager
def logger_of(cfg: TrainingConfig, folder: Path, phase: str, ranks: Ranks) -> Iterator[Logger]:
    """The logger that ``train.logger`` names, for one training; what it has begun it goes on with.

    MLflow and Weights & Biases are told where and as whom by their own environment variables; without any, MLflow
    writes to the run folder.

    Args:
        cfg: of the stage.
        folder: of the run.
        phase: the training's name in the run.
        ranks: of the training; the first one writes.

    Raises:
        DeshiError: if its package isn't installed.
    """
    kind, name = cfg.train.logger, f"{folder.name}-{phase}"
    if kind == "tensorboard":
        yield TensorBoardLogger(folder, name="tensorboard", version=phase)
    elif kind == "csv":
        yield CSVLogger(folder, name="csv", version=phase)
    elif kind == "mlflow":
        yield _mlflow(cfg, folder, phase, name, ranks)
    else:
        WANDB.load()
        project = os.environ.get("WANDB_PROJECT", EXPERIMENT)
        logger = WandbLogger(name, save_dir=folder, version=name, project=project)
        logger.log_hyperparams(flatten(resolved(cfg)))
        yield logger
        if ranks.is_first:
            logger.experiment.finish()  # the next training of this process has a run of its own


def _mlflow(cfg: TrainingConfig, folder: Path, phase: str, name: str, ranks: Ranks) -> MLFlowLogger:
    MLFLOW.load()
    file = folder / f"mlflow-{phase}.json"
    begun = read_json(file)["run_id"] if file.is_file() else None
    logger = MLFlowLogger(
        os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT), name, os.environ.get("MLFLOW_TRACKING_URI"),
        save_dir=str(folder / "mlruns"), run_id=begun,
    )  # fmt: skip
    if begun is None and ranks.is_first:
        logger.log_hyperparams(flatten(resolved(cfg)))
        write_json(file, {"run_id": logger.run_id})
    return logger
