"""The work of ``deshi compare``: finished evaluations side by side, with intervals and tests."""

from __future__ import annotations

from deshi.comparison import CompareResult, compare_evaluations, write_comparison
from deshi.runs import find_evaluations, whole_run, write_record
from deshi.stages.compare import CompareConfig


def run(cfg: CompareConfig) -> CompareResult:
    """Compare the evaluations that ``cfg`` names and write a run folder.

    Raises:
        DeshiError: if a run is missing or not evaluated, or the evaluations were not measured alike.
    """
    evaluations = find_evaluations(cfg.paths, cfg.runs)
    comparison = compare_evaluations(
        evaluations,
        part=cfg.part,
        metrics=cfg.metrics,
        against=cfg.against,
        names=cfg.names,
        with_baselines=cfg.with_baselines,
        each_run=cfg.each_run,
        samples=cfg.samples,
        permutations=cfg.permutations,
        confidence=cfg.confidence,
        seed=cfg.seed,
    )
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
    with whole_run(cfg, "compare", comparison.data) as folder:
        write_record(folder, record)
        write_comparison(folder, comparison)
    return CompareResult(folder, comparison)
