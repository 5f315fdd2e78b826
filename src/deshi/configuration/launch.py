"""The processes of one training: how many its configuration asks for, and those that torchrun or SLURM has started."""

from __future__ import annotations

import os
from typing import Any

from deshi.configuration.schemas import TrainConfig, TrainingConfig
from deshi.types import DeshiError


def processes(train: TrainConfig) -> int:
    """The number of processes that train one network."""
    return train.devices * train.nodes


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def as_launched(train: TrainConfig, resumed: bool) -> TrainConfig:
    """The settings with torchrun's numbers of devices and nodes, where they ask for one process.

    Args:
        train: as configured.
        resumed: whether they are those of an interrupted run, which may have been started otherwise.

    Raises:
        DeshiError: if they ask for others than torchrun has started.
    """
    if not under_torchrun():
        return train
    devices, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if resumed or processes(train) == 1:
        return train.model_copy(update={"devices": devices, "nodes": world // devices})
    if (train.devices, processes(train)) != (devices, world):
        raise DeshiError(
            f"torchrun has started {world} processes, {devices} on this node, but train.devices={train.devices} and "
            f"train.nodes={train.nodes}. Leave both out, or give torchrun's --nproc-per-node and --nnodes."
        )
    return train


def further_rank(config: Any) -> int:
    """The rank of a process that torchrun or SLURM has started beside the first one of a training, else 0.

    Raises:
        DeshiError: for a command that is no training, of which torchrun would start several that disturb each other.
    """
    started = under_torchrun() and int(os.environ["WORLD_SIZE"]) > 1
    if not isinstance(config, TrainingConfig):
        if started:
            raise DeshiError(
                f"torchrun has started {os.environ['WORLD_SIZE']} processes, which deshi fit, deshi teach and "
                "deshi distill make use of. Run any other command without it."
            )
        return 0
    if started:
        return int(os.environ["RANK"])
    return int(os.environ.get("SLURM_PROCID", 0)) if processes(config.train) > 1 else 0
