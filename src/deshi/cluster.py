"""Idempotent tasks on a Ray cluster: many processes on many nodes, results in the order of the tasks.

Ray (Moritz et al., OSDI 2018, https://arxiv.org/abs/1712.05889) starts the processes, carries arguments and results
through its object store, so that nodes need no common disk, and repeats the tasks of workers and nodes that died.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from deshi.configuration.needs import RAY
from deshi.configuration.schemas import RayConfig
from deshi.types import DeshiError

log = logging.getLogger(__name__)

Task = TypeVar("Task")
Output = TypeVar("Output")
Work = Callable[[Task], Output]
"""What a process does with each of its tasks."""

RETRIES = 5
"""How often a task is repeated whose worker or node died; one that ends its worker each time must end the command."""

AHEAD = 4
"""Tasks handed out for each that can run at a time: results wait in the object store until earlier ones are there."""

_works: dict[str, Any] = {}
"""In a worker: what it does, loaded with its first task."""


@dataclass(frozen=True)
class _Result(Generic[Output]):
    """The output of a task, or what deshi refused in it."""

    output: Output | None = None
    problem: str | None = None


class Cluster:
    """A connection to a Ray cluster as long as it is entered; a local one is started where none is named.

    Args:
        settings: the address, and the cores and GPUs of a task.

    Raises:
        DeshiError: when entered, if Ray isn't installed or nothing answers at the address.
    """

    def __init__(self, settings: RayConfig) -> None:
        self.settings = settings
        self._mine = False

    def __enter__(self) -> Cluster:
        ray = RAY.load()
        if not ray.is_initialized():
            self._mine = True
            self._connect(ray)
        return self

    def __exit__(self, *error: object) -> None:
        if self._mine:
            RAY.load().shutdown()

    def _connect(self, ray: Any) -> None:
        address = self.settings.address or os.environ.get("RAY_ADDRESS") or "local"
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what it warns that it will do by itself
        options = {"include_dashboard": False} if address == "local" else {}
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise DeshiError(
                f"ray.address is {address}, but no Ray cluster answers there ({_first_line(error)}). Start one with "
                "`ray start --head`, or leave ray.address out for one on this machine."
            ) from error
        log.info("Ray cluster %s: %s", address, _resources(ray))

    def in_order(self, load: Callable[[], Work[Task, Output]], tasks: Iterable[Task]) -> Iterator[Output]:
        """The output of each task, in the order of the tasks.

        A task may run more than once, and must give the same each time.

        Args:
            load: gives what is done with a task; called once in each worker, to which it travels with all it holds.
            tasks: their arguments; taken as they can be handed out.

        Raises:
            DeshiError: of a task, with its own message; or if a task ended its worker again and again.
        """
        ray = RAY.load()
        self._warn(ray)
        perform = ray.remote(_perform).options(
            num_cpus=self.settings.cpus, num_gpus=self.settings.gpus, max_retries=RETRIES
        )
        reference, waiting, remaining = ray.put(load), deque[Any](), iter(tasks)
        while True:
            for task in islice(remaining, max(0, AHEAD * self._slots(ray) - len(waiting))):
                waiting.append(perform.remote([reference], task))  # in a list: the worker decides when to load it
            if not waiting:
                return
            yield _output(ray, waiting.popleft())

    def _slots(self, ray: Any) -> int:
        """How many tasks can run at a time on the nodes that are there now; at least 1."""
        there = ray.cluster_resources()
        needs = {"CPU": self.settings.cpus, "GPU": self.settings.gpus}
        return max(1, min(int(there.get(name, 0) / need) for name, need in needs.items() if need > 0))

    def _warn(self, ray: Any) -> None:
        there = ray.cluster_resources()
        for key, name, need in (("cpus", "CPU", self.settings.cpus), ("gpus", "GPU", self.settings.gpus)):
            if there.get(name, 0) < need:
                log.warning("ray.%s=%g, but the nodes have %s: tasks wait for others", key, need, _resources(ray))


def _perform(reference: list[Any], task: Any) -> _Result[Any]:
    """Do one task in a worker."""
    [work] = reference
    try:
        if work.hex() not in _works:
            _works.clear()
            _works[work.hex()] = RAY.load().get(work)()
        return _Result(_works[work.hex()](task))
    except DeshiError as error:
        return _Result(problem=str(error))


def _output(ray: Any, reference: Any) -> Any:
    try:
        result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        kind, message = type(error.cause).__name__, _first_line(error.cause)
        raise DeshiError(
            f"A task on the Ray cluster failed with {kind}: {message} "
            "Every node needs this version of deshi and of what it imports; engine=local shows the whole error."
        ) from error.cause
    except ray.exceptions.RayError as error:
        raise DeshiError(
            f"A task was given up after {RETRIES + 1} tries: its worker or node died each time ({_first_line(error)}). "
            "If memory ran out, give a task more of a node, such as ray.cpus=4. The same command goes on."
        ) from error
    if result.problem is not None:
        raise DeshiError(result.problem)
    return result.output


@contextmanager
def engine(name: str, settings: RayConfig) -> Iterator[Cluster | None]:
    """The cluster of ``engine=ray``, None for ``engine=local``."""
    if name == "local":
        yield None
        return
    with Cluster(settings) as cluster:
        yield cluster


def _knock(address: str) -> None:
    """Find out in seconds whether anything listens at an address; Ray would try for minutes.

    Raises:
        OSError: if nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _resources(ray: Any) -> str:
    there = ray.cluster_resources()
    return f"{there.get('CPU', 0):g} cores, {there.get('GPU', 0):g} GPUs"


def _first_line(error: BaseException | None) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
