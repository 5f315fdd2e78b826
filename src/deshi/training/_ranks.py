"""The ranks of a training: processes that train one network together, started and connected by Lightning.

Lightning starts the further processes of a node by the command of the first one. For a while that command is
``python -m deshi.training``, so that a training may begin anywhere in a script or a notebook's cell without all that
stands before it being done again. Under torchrun and SLURM all processes are there already.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from lightning.fabric.strategies import DDPStrategy

from deshi.configuration.launch import processes
from deshi.configuration.schemas import TrainConfig
from deshi.hardware import training_device
from deshi.types import DeshiError

GRACE_SECONDS = 30.0
"""How long the first rank may take to notice by itself that another one has failed."""


class Ranks:
    """The processes of a training, seen from one of them; of one process alone by default.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        folder: of the run, once it is known.
    """

    rank, size = 0, 1
    folder: Path | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, logs and answers."""
        return self.rank == 0

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What the first rank makes, plain JSON-able values, on all ranks."""
        return make()

    def first_alone(self, work: Callable[[], None]) -> None:
        """Let the first rank do something while the others wait."""
        self.from_first(work)


class ConnectedRanks(Ranks):
    """Several processes.

    Args:
        fabric: launched.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.rank, self.size = fabric.global_rank, fabric.world_size

    def from_first(self, make: Callable[[], Any]) -> Any:
        """See :meth:`Ranks.from_first`.

        Raises:
            FirstRankFailed: on all other ranks, if the first one raises an error.
        """
        if not self.is_first:
            nothing: Any = None
            content = self._fabric.broadcast(nothing)
            if content is None:
                raise FirstRankFailed("The first rank has given up; its own message says why.")
            return content["value"]
        try:
            value = make()
        except BaseException:  # of whatever kind: it is raised again
            self._fabric.broadcast(None)
            raise
        self._fabric.broadcast({"value": value})
        return value


class FirstRankFailed(DeshiError):
    """On a further rank: the first one has raised an error."""


@contextmanager
def connected(stage: str, train: TrainConfig) -> Iterator[Ranks]:
    """The ranks of a training, started where nobody else has started them, until its end.

    Raises:
        DeshiError: from an interactive session, from which Lightning starts no processes; if a rank fails that was
            started here.
    """
    if processes(train) == 1:
        yield Ranks()
        return
    if hasattr(sys, "ps1"):
        raise DeshiError(
            f"train.devices={train.devices} needs further processes, which Lightning doesn't start from an interactive "
            f"session. Run deshi {stage} in a shell, or a script."
        )
    environment = dict(os.environ)
    try:
        # Lightning gives no account of the connection, and further ranks log errors alone
        with log_level(logging.WARNING, "lightning.fabric", "lightning.pytorch"), _command_of_ranks(stage, train):
            fabric = _launched(train)
        ranks = ConnectedRanks(fabric)
        silent = nullcontext() if ranks.is_first else log_level(logging.ERROR, "deshi")
        with _started(fabric, stage, ranks), silent:
            yield ranks
            fabric.barrier()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(environment)


def _launched(train: TrainConfig) -> Fabric:
    """Start the processes of this node, unless they have been started, and connect them with those of all nodes."""
    accelerator = training_device(train.accelerator).type
    fabric: Fabric | None = None
    try:
        strategy = DDPStrategy()
        fabric = Fabric(accelerator=accelerator, devices=train.devices, num_nodes=train.nodes, strategy=strategy)
        _check_nodes(train, strategy.cluster_environment)
        fabric.launch()
    except BaseException as error:  # of whatever kind: it is raised again
        for child in [] if fabric is None else _children(fabric):
            child.kill()
        if not isinstance(error, ValueError | RuntimeError):
            raise
        # devices that aren't there, variables of SLURM that don't fit them, processes that can't be reached
        raise DeshiError(f"train.devices={train.devices} train.nodes={train.nodes}: {error}") from error
    return fabric


def _check_nodes(train: TrainConfig, environment: ClusterEnvironment | None) -> None:
    """Refuse several nodes where nobody has told this process which one it is: it would wait for ever."""
    if train.nodes > 1 and isinstance(environment, LightningEnvironment):
        raise DeshiError(
            f"train.nodes={train.nodes}, but neither torchrun nor SLURM has started this process, so that it doesn't "
            "know the other nodes. Start it on each node by torchrun or srun; for one machine leave train.nodes out."
        )


def _children(fabric: Fabric) -> list[subprocess.Popen[bytes]]:
    """The processes that Lightning has started here; none under torchrun and SLURM."""
    children: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
    return children


@contextmanager
def _command_of_ranks(stage: str, train: TrainConfig) -> Iterator[None]:
    """Make ``python -m deshi.training STAGE DEVICES NODES ACCELERATOR`` this process's command, for Lightning."""
    main, before = sys.modules["__main__"], (sys.argv, sys.modules["__main__"].__spec__)
    sys.argv = ["deshi.training", stage, str(train.devices), str(train.nodes), train.accelerator]
    main.__spec__ = importlib.util.find_spec("deshi.training.__main__")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        yield
    finally:
        sys.argv, main.__spec__ = before


@contextmanager
def _started(fabric: Fabric, stage: str, ranks: Ranks) -> Iterator[None]:
    """Watch the processes that Lightning has started here, and let none outlive the training."""
    children = list(_children(fabric))
    _children(fabric).clear()  # else Lightning ends this process when one of them fails, before it can say why
    watch = _Watch(children)
    watch.start()
    try:
        yield
        for child in children:
            child.wait()
        if (failed := _failed(children)) is not None:
            raise DeshiError(_account(failed, children, stage, ranks.folder))
    except RuntimeError as error:  # a connection that broke
        if (failed := _failed(children, seconds=3.0)) is not None:
            raise DeshiError(_account(failed, children, stage, ranks.folder)) from error
        raise
    finally:
        watch.done.set()
        for child in children:
            child.kill()
            child.wait()


def _failed(children: Sequence[subprocess.Popen[bytes]], seconds: float = 0.0) -> int | None:
    """The rank of a child that has failed, or fails within ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        failed = next((rank for rank, child in enumerate(children, 1) if child.poll()), None)
        if failed is not None or time.monotonic() >= end:
            return failed
        time.sleep(0.1)


def _account(
    failed: int, children: Sequence[subprocess.Popen[bytes]], stage: str = "", folder: Path | None = None
) -> str:
    code = children[failed - 1].returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    advice = f" Go on with: deshi {stage} resume={folder}" if folder is not None and folder.exists() else ""
    return (
        f"Process {failed} of this node, pid {children[failed - 1].pid}, {how}; the training needs all of its "
        f"processes. What it wrote stands above; without a word, look for a lack of memory.{advice}"
    )


class _Watch(threading.Thread):
    """Ends this process if another one has failed and it hangs in waiting for it, as NCCL may."""

    def __init__(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        super().__init__(daemon=True, name="deshi-ranks")
        self.children, self.done = children, threading.Event()

    def run(self) -> None:
        """Look once a second."""
        while not self.done.wait(1.0):
            failed = _failed(self.children)
            if failed is not None and not self.done.wait(GRACE_SECONDS):
                print(f"error: {_account(failed, self.children)}", file=sys.stderr, flush=True)
                for child in self.children:
                    child.kill()
                os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def log_level(level: int, *names: str) -> Iterator[None]:
    """Loggers at another level for a while."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
