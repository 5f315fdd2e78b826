"""Quality of the students of ``deshi run`` against their size and latency: figures, a table, sentences."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deshi.artifacts import read_json
from deshi.comparison import Figure, figure_cell
from deshi.metrics import metric_title
from deshi.rendering import Cell, Table, percent
from deshi.runs import Run
from deshi.serving.bundle import ServingBundle
from deshi.stages._run_steps import SIZES, Plan, export_of
from deshi.stages.run import DISTILLED, PLAIN, RunConfig

PICTURE = "sizes.png"


def measured_sizes(cfg: RunConfig, plan: Plan, done: Mapping[str, Path], folder: Path) -> dict[str, Any] | None:
    """What each student costs and how good it is on test, as JSON-able values; None where no sizes are compared.

    Args:
        cfg: of the run.
        plan: of the run.
        done: the folders that its steps have left.
        folder: of the run, to which paths are relative.
    """
    if not cfg.students:
        return None
    comparison = read_json(done[SIZES] / "comparison.json")
    models = {}
    for student in cfg.students:
        trained = plan.trained[student.name][0]
        bundle = ServingBundle.load(done[export_of(trained)], check=False)
        models[student.name] = {
            "role": student.role,
            "width": student.width,
            "parameters": int(Run(done[trained], cfg.paths).record["parameters"]),
            "bytes": bundle.weight_bytes,
            "latency": bundle.latency,
            "bundle": Path(os.path.relpath(bundle.path, folder)).as_posix(),
            "figures": comparison["figures"][student.name],
        }
    return {"confidence": comparison["confidence"], "models": models, "tests": comparison["tests"]}


def sizes_table(sizes: Mapping[str, Any]) -> Table:
    """A row a student, ascending by width."""
    models: Mapping[str, Any] = sizes["models"]
    metrics = list(next(iter(models.values()))["figures"])
    columns = [
        "student",
        "width",
        "parameters",
        "weights",
        "one request",
        *(metric_title(metric) for metric in metrics),
    ]
    rows = []
    for name, model in models.items():
        texts = [
            name, str(model["width"]), f"{model['parameters']:,}", f"{model['bytes'] / 1024:,.0f} KiB",
            f"{model['latency']['p50_ms']:.2f} ms",
        ]  # fmt: skip
        is_distilled = model["role"] == DISTILLED
        figures = [figure_cell(Figure(**model["figures"][metric]), bold=is_distilled) for metric in metrics]
        rows.append([*(Cell(text, bold=is_distilled) for text in texts), *figures])
    title = f"Quality against size and latency on test, with {percent(sizes['confidence'])} intervals over users"
    return Table(title, columns, rows)


def sizes_sentences(sizes: Mapping[str, Any]) -> list[str]:
    """Each distilled student that is smaller than the plain one of the recipe, against two plain ones."""
    models = sizes["models"]
    own = models[PLAIN]
    sentences = []
    for name, model in models.items():
        if model["role"] == PLAIN or model["parameters"] >= own["parameters"]:
            continue
        times = own["parameters"] / model["parameters"]
        equal = next((other for other, each in models.items() if _is_plain(each, model["width"])), None)
        against = [] if equal is None else [f"{_tested(sizes['tests'], name, equal)}, of the same width"]
        against.append(f"{_tested(sizes['tests'], name, PLAIN)}, which has {times:.1f} times its parameters")
        sentences.append(f"{name}, NDCG@10 on test: {'; '.join(against)}.")
    return sentences


def _is_plain(model: Mapping[str, Any], width: int) -> bool:
    return bool(model["role"] == PLAIN and model["width"] == width)


def _tested(tests: list[Mapping[str, Any]], first: str, second: str) -> str:
    """The paired test of two models."""
    test = next(
        test for test in tests if test["metric"] == "ndcg@10" and {test["first"], test["second"]} == {first, second}
    )
    sign = 1 if test["first"] == first else -1
    low, high = sorted((sign * test["low"], sign * test["high"]))
    return (
        f"{sign * test['difference']:+.4f} ({low:+.4f} to {high:+.4f}, p = {test['permutation_p']:.2g}, corrected "
        f"{test['permutation_holm']:.2g}) against {second}"
    )


def serve_command(sizes: Mapping[str, Any], folder: Path) -> str:
    """The command that serves the smallest distilled student."""
    models = sizes["models"]
    smallest = next(model for model in models.values() if model["role"] == DISTILLED)
    return f"deshi serve {os.path.relpath((folder / smallest['bundle']).parent)}"
