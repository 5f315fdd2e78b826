"""The stage ``compare``: finished evaluations side by side, with intervals and tests, in a run folder of its own."""

from __future__ import annotations

from deshi.artifacts import environment, new_run_folder, write_json
from deshi.comparison.compute import compare_evaluations
from deshi.comparison.output import write_comparison
from deshi.comparison.result import CompareResult
from deshi.configuration.saved import save_config
from deshi.configuration.schemas import CompareConfig
from deshi.evaluation.stored import find_evaluations


def run(cfg: CompareConfig) -> CompareResult:
    """Compare the evaluations that ``cfg`` names and write a run folder.

    Raises:
        DeshiError: if a run is missing or not evaluated, or the evaluations were not measured alike.
    """
    evaluations = find_evaluations(cfg.paths.runs, cfg.runs)
    comparison = compare_evaluations(
        evaluations,
        part=cfg.part,
        metrics=cfg.metrics,
        against=cfg.against,
        labels=cfg.labels,
        with_baselines=cfg.with_baselines,
        each_run=cfg.each_run,
        samples=cfg.samples,
        permutations=cfg.permutations,
        confidence=cfg.confidence,
        seed=cfg.seed,
    )
    folder = new_run_folder(cfg.paths.runs, "compare", comparison.data)
    save_config(folder, cfg)
    write_json(folder / "environment.json", environment())
    record = {
        "stage": "compare",
        "data": comparison.data,
        "data_fingerprint": evaluations[0].record.get("data_fingerprint"),
        "protocol_fingerprint": evaluations[0].record.get("protocol_fingerprint"),
        "evaluations": [path for model in comparison.models for path in model.evaluations],
        "part": comparison.part,
        "warnings": list(comparison.warnings),
        "notes": list(comparison.notes),
    }
    write_json(folder / "run.json", record)
    write_comparison(folder, comparison)
    return CompareResult(folder, comparison)
