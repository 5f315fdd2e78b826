"""What every arm of the throughput comparison shares: its arguments, the training data, the clock, the report.

Imported inside several environments, so it uses the standard library alone at import time.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def arguments(description: str, batch: int) -> argparse.Namespace:
    """The command line of an arm; ``batch`` is its default batch size."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="tsv with the columns user, item, position")
    parser.add_argument("--work", type=Path, required=True, help="folder for converted data")
    parser.add_argument("--batch", type=int, default=batch, help="the tool's own batch size")
    parser.add_argument("--seconds", type=float, default=60.0, help="training steps to time, in seconds")
    parser.add_argument("--warmup-seconds", type=float, default=5.0, help="steps before that, not counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=200)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--feed-forward", type=float, default=1.0, help="for deshi alone")
    parser.add_argument("--precision", default="", help="for deshi alone; empty: its default")
    return parser.parse_args()


def histories(path: Path) -> dict[str, list[str]]:
    """Each user's items, oldest first, from a tsv file with the columns user, item, position."""
    rows: dict[str, list[tuple[int, str]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            rows.setdefault(row["user"], []).append((int(row["position"]), row["item"]))
    return {user: [item for _, item in sorted(events, key=lambda event: event[0])] for user, events in rows.items()}


class Stopwatch:
    """Times training steps: :meth:`start` before forward, :meth:`stop` after the optimizer's step.

    What happens between steps (loading, collating, moving a batch) isn't counted in ``seconds`` but in ``wall``.
    ``cpu`` is the processor time of the timed steps over all threads: on a busy machine it is less than
    threads x ``seconds``, and the measurement isn't worth much.
    The first steps are warm-up: at least two, and at least ``warmup`` seconds of them.
    """

    def __init__(self, warmup: float, limit: float) -> None:
        self.warmup, self.limit = warmup, limit
        self.warmup_steps, self.warmup_spent = 0, 0.0
        self.steps, self.targets, self.seconds, self.wall, self.cpu = 0, 0, 0.0, 0.0, 0.0
        self.done = False
        self._started = self._cpu_started = 0.0
        self._first = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> Stopwatch:
        """A trainer that copies its callbacks (RecTools' does) still has this clock."""
        return self

    def start(self) -> None:
        """A step begins: its batch is at hand."""
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
        if self._warm and not self._first:
            self._first = self._started

    def stop(self, targets: int) -> None:
        """A step ends that trained on ``targets`` positions."""
        now = time.perf_counter()
        spent = now - self._started
        if not self._warm:
            self.warmup_steps += 1
            self.warmup_spent += spent
            return
        self.steps += 1
        self.targets += targets
        self.seconds += spent
        self.cpu += time.process_time() - self._cpu_started
        self.wall = now - self._first
        self.done = self.seconds >= self.limit and self.steps >= 2

    @property
    def _warm(self) -> bool:
        return self.warmup_steps >= 2 and self.warmup_spent >= self.warmup


def step_timer(callback: type, clock: Stopwatch, count: Callable[[Any], int]) -> Any:
    """A Lightning callback that times each training step and ends the fit when the clock is done.

    A step ends after the module's own ``on_train_batch_end``, the last of its hooks, so that work in there (weight
    averaging, say) is counted.

    Args:
        callback: the Callback class of the Lightning in use (its two packages don't mix).
        clock: receives the times.
        count: number of targets in a batch.
    """

    def prepare(self: Any, trainer: Any, module: Any) -> None:
        finish = module.on_train_batch_end

        def end(outputs: Any, batch: Any, batch_idx: int) -> None:
            finish(outputs, batch, batch_idx)
            clock.stop(count(batch))
            trainer.should_stop = clock.done

        module.on_train_batch_end = end

    def begin(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        clock.start()

    return type("StepTimer", (callback,), {"on_fit_start": prepare, "on_train_batch_start": begin})()


def report(tool: str, clock: Stopwatch, settings: dict[str, Any], model: Any, packages: list[str]) -> None:
    """Print the arm's result as one line of JSON, the last line of its output."""
    if not clock.done:
        raise SystemExit(f"{tool}: training ended after {clock.seconds:.1f} s of timed steps, before --seconds.")
    parameters = {id(p): p.numel() for p in model.parameters()}
    print(
        json.dumps(
            {
                "tool": tool,
                "positions_per_second": clock.targets / clock.seconds,
                "positions_per_wall_second": clock.targets / clock.wall,
                "positions_per_cpu_second": clock.targets / clock.cpu,
                "cpu_share": clock.cpu / clock.seconds / settings["threads"],
                "targets": clock.targets,
                "steps": clock.steps,
                "seconds": clock.seconds,
                "wall_seconds": clock.wall,
                "warmup_steps": clock.warmup_steps,
                "warmup_seconds": clock.warmup_spent,
                "parameters": sum(parameters.values()),
                "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
                "settings": settings,
                "versions": {"python": platform.python_version()}
                | {name: importlib.metadata.version(name) for name in packages},
            }
        ),
        flush=True,
    )


def settings_of(args: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """The arguments that shape the measurement, for the report."""
    names = ("batch", "threads", "dim", "blocks", "heads", "max_length", "dropout")
    return {name: getattr(args, name) for name in names} | more
