"""Result of ``run``: one table, the paired test, the share of the teacher's gain, times."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deshi.artifacts import read_json, write_json
from deshi.configuration.run_folders import METRICS_FILE, TIME_FILE
from deshi.configuration.targets import TARGET, import_target
from deshi.rendering import Block, Cell, Result, Table, paragraphs
from deshi.runs import Run
from deshi.stages._run_sizes import PICTURE, measured_sizes, serve_command, sizes_sentences, sizes_table
from deshi.stages._run_steps import COMPARISON, Plan, evaluation_of, refitted
from deshi.stages.run import DISTILLED, PLAIN, RunConfig
from deshi.teachers import Ensemble
from deshi.training.trainer import TIME_NAMES

METRICS = {"ndcg@10": "NDCG@10", "recall@10": "Recall@10"}
PARTS = ("validation", "test")
EXPORT_TIME = "distill_teacher_export_time"
REFITTED_PAGE = "report-refitted.html"
"""The page about the refitted models."""


@dataclass(frozen=True)
class RunResult(Result):
    """A finished run of everything.

    Attributes:
        folder: the run folder.
        metrics: the content of ``metrics.json``: figures of every model by seed, tests, shares, pages; under
            ``refitted`` the same of the refitted models, or null.
        seconds: the content of ``time.json``.
    """

    folder: Path
    metrics: Mapping[str, Any]
    seconds: Mapping[str, float]

    @property
    def report(self) -> Path:
        """The HTML page about all of it."""
        return self.folder / "report.html"

    def blocks(self) -> list[Block]:
        """The models' figures, the answers to the run's questions, warnings."""
        return [
            self._table(self.metrics, PARTS, "selected" if self.metrics["refitted"] else ""),
            *paragraphs(*self.metrics["sentences"]),
            *self._sizes(),
            *paragraphs(*self.metrics["warnings"], tone="warning"),
            *self._refitted(),
            *paragraphs(
                f"Report: {self.report}",
                f"Written to {self.folder}: plan.json names every step's command and folder.",
            ),
            *self._served(),
        ]

    def _refitted(self) -> list[Block]:
        """The refitted models, apart from the selected ones: they have learnt more events."""
        protocol = self.metrics["refitted"]
        if protocol is None:
            return []
        table = self._table(protocol, PARTS[1:], "refitted on training and validation events")
        warnings = paragraphs(*protocol["warnings"], tone="warning")
        page = f"Report on the refitted models: {self.folder / REFITTED_PAGE}"
        return [table, *paragraphs(*protocol["sentences"]), *warnings, *paragraphs(page)]

    def _sizes(self) -> list[Block]:
        sizes = self.metrics["sizes"]
        return [] if sizes is None else [sizes_table(sizes), *paragraphs(*sizes_sentences(sizes))]

    def _served(self) -> list[Block]:
        """The picture of the sizes, and how the smallest distilled student is served."""
        if self.metrics["sizes"] is None:
            return []
        command = serve_command(self.metrics["sizes"], self.folder)
        picture = f"Picture: {self.folder / PICTURE}"
        return [*paragraphs(picture, "The smallest distilled student is served by:", command)]

    def _table(self, protocol: Mapping[str, Any], parts: Sequence[str], name: str) -> Table:
        students = (self.metrics["sizes"] or {"models": {}})["models"].keys() - {PLAIN, DISTILLED}
        models = {name: model for name, model in protocol["models"].items() if name not in students}
        seeds = max(len(model["runs"]) for model in models.values())
        spread = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
        columns = ["model", "parameters", *(f"{title} {part}" for title in METRICS.values() for part in parts)]
        rows = []
        for model_name, model in models.items():
            figures = [model["figures"][f"{part}/{metric}"] for metric in METRICS for part in parts]
            texts = [model_name, f"{model['parameters']:,}", *map(_mean, figures)]
            rows.append([Cell(text, bold=model_name == DISTILLED) for text in texts])
        baseline, values = self._best_baseline(protocol)
        if baseline:
            figures = [f"{values[f'{part}/{metric}']:.4f}" for metric in METRICS for part in parts]
            rows.append([Cell(text) for text in (f"{baseline} (best baseline)", "", *figures)])
        title = f"{self.metrics['data']}{f', {name}' if name else ''}, full ranking{spread}"
        return Table(title, columns, rows)

    def _best_baseline(self, protocol: Mapping[str, Any]) -> tuple[str, Mapping[str, float]]:
        """The baseline that is best on validation, with its figures in a protocol; none where none was evaluated."""
        selected = self.metrics["baselines"]
        best = max(selected, key=lambda name: selected[name][f"{PARTS[0]}/{next(iter(METRICS))}"], default="")
        return (best, protocol["baselines"][best]) if best in protocol["baselines"] else ("", {})


def summarise(cfg: RunConfig, plan: Plan, done: Mapping[str, Path], folder: Path, seconds: float) -> RunResult:
    """Gather the figures of all steps and write ``time.json`` and, last, ``metrics.json``."""
    protocol = _protocol(cfg, plan.trained, done, PARTS)
    pages = {"report": "report.html", "comparison": _link(done[COMPARISON] / "comparison.html", folder)}
    metrics: dict[str, Any] = {
        "data": cfg.data.name, "teacher": cfg.headline_teacher, **protocol,
        "sizes": measured_sizes(cfg, plan, done, folder), "pages": pages, "refitted": None,
    }  # fmt: skip
    if cfg.refit:
        comparison = done[refitted(COMPARISON)] / "comparison.html"
        pages = {"report": REFITTED_PAGE, "comparison": _link(comparison, folder)}
        metrics["refitted"] = _protocol(cfg, plan.refitted, done, PARTS[1:], refitted) | {"pages": pages}
    times = _times(plan, done) | {"wall_seconds": round(seconds, 3)}
    write_json(folder / TIME_FILE, times)
    write_json(folder / METRICS_FILE, metrics)
    return RunResult(folder, metrics, times)


def _protocol(
    cfg: RunConfig, trained: Mapping[str, Sequence[str]], done: Mapping[str, Path], parts: Sequence[str],
    called: Callable[[str], str] = str,
) -> dict[str, Any]:  # fmt: skip
    """Figures, tests and shares of the models of one protocol, selected or refitted.

    Args:
        cfg: of the run.
        trained: by model the steps that train it.
        done: the folders that the steps have left.
        parts: that were evaluated.
        called: from the name of a model or of a step to that of the protocol.
    """
    models = {name: _model(cfg, steps, done, parts) for name, steps in trained.items()}
    comparison = read_json(done[called(COMPARISON)] / "comparison.json")
    students = called(DISTILLED), called(PLAIN)
    tests = {test["metric"]: test for test in comparison["tests"] if {test["first"], test["second"]} == {*students}}
    shares = _shares(models, cfg.headline_teacher)
    tested = [_tested(test, *students) for test in tests.values()]
    return {
        "models": models,
        "baselines": read_json(done[evaluation_of(trained[PLAIN][0])] / METRICS_FILE).get("baselines", {}),
        "distilled_against_plain": tests,
        "share_of_teacher_gain": shares,
        "sentences": [*tested, *_arrived(models, cfg.headline_teacher, shares, parts)],
        "warnings": comparison["warnings"],
    }


def _model(cfg: RunConfig, steps: Sequence[str], done: Mapping[str, Path], parts: Sequence[str]) -> dict[str, Any]:
    """A model's figures, a number a seed, its size and its runs."""
    measured = [read_json(done[evaluation_of(step)] / METRICS_FILE) for step in steps]
    names = [f"{part}/{metric}" for part in parts for metric in METRICS]
    return {
        "figures": {name: [metrics[name] for metrics in measured] for name in names},
        "parameters": _parameters(Run(done[steps[0]], cfg.paths)),
        "runs": [done[step].name for step in steps],
    }


def _parameters(run: Run) -> int:
    """Numbers that are needed to answer: an ensemble's are its members', a cross-fitted teacher's its folds'."""
    teacher = run.saved.get("teacher") or {}
    members = teacher.get("members")
    if members and import_target(teacher[TARGET]) is Ensemble:  # counts name members, too, and don't hold them
        return sum(_parameters(Run.open(member, run.paths)) for member in members)
    return int(run.record["parameters"]) * max(1, int(run.record.get("cross_fit", 0)))


def _shares(models: Mapping[str, Any], teacher: str) -> dict[str, float | None]:
    """How much of the teacher's gain over the plain student the distilled one has; None where there is no gain."""
    shares: dict[str, float | None] = {}
    for name in models[PLAIN]["figures"]:
        plain, best, distilled = (
            statistics.mean(models[model]["figures"][name]) for model in (PLAIN, teacher, DISTILLED)
        )
        shares[name] = (distilled - plain) / (best - plain) if best > plain else None
    return shares


def _tested(test: Mapping[str, Any], distilled: str, plain: str) -> str:
    sign = 1 if test["first"] == distilled else -1
    low, high = sorted((sign * test["low"], sign * test["high"]))
    return (
        f"{METRICS[test['metric']]} on test, {distilled} against {plain}: {sign * test['difference']:+.4f} "
        f"({low:+.4f} to {high:+.4f} over users), p = {test['permutation_p']:.2g} by permutation, "
        f"{test['wilcoxon_p']:.2g} by "
        f"Wilcoxon; {test['permutation_holm']:.2g} corrected for all tests of the comparison."
    )


def _arrived(
    models: Mapping[str, Any], teacher: str, shares: Mapping[str, float | None], parts: Sequence[str]
) -> list[str]:
    if teacher == PLAIN:
        return []
    sentences = []
    for part in parts:
        plain, best = (statistics.mean(models[model]["figures"][f"{part}/ndcg@10"]) for model in (PLAIN, teacher))
        share, gain = shares[f"{part}/ndcg@10"], f"{best - plain:+.4f} NDCG@10 on {part}"
        sentences.append(
            f"The teacher {teacher} is no better than the plain student ({gain}): there is no gain to inherit."
            if share is None
            else f"Of the gain of the teacher {teacher} ({gain}), {share:.0%} arrived in the distilled student."
        )
    return sentences


def _times(plan: Plan, done: Mapping[str, Path]) -> dict[str, float]:
    """Seconds of training and export, of all seeds, as the stages measured them: reused ones too."""
    seconds_of = dict.fromkeys([*TIME_NAMES.values(), EXPORT_TIME], 0.0)
    for step in plan.steps:
        name = EXPORT_TIME if step.stage == "label" else TIME_NAMES.get(step.stage)
        if name is not None:
            seconds = read_json(done[step.name] / TIME_FILE)["export_seconds" if step.stage == "label" else name]
            name = f"{name}_refitted" if step.is_refit else name
            seconds_of[name] = seconds_of.get(name, 0.0) + seconds
    return {name: round(value, 3) for name, value in seconds_of.items()}


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def _link(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()
