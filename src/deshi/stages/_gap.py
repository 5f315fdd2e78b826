"""The work of ``deshi gap``: the difference of validation and test explained with the run's own student."""

from __future__ import annotations

from dataclasses import replace

from deshi.artifacts import write_json
from deshi.configuration.run_folders import name_of
from deshi.gap_analysis import GapAnalysis, GapResult, Metric, MetricProbe
from deshi.hardware import training_device
from deshi.models.scorers import Scorer
from deshi.runs import Run, whole_run, write_record
from deshi.stages.gap import GapConfig


def run(cfg: GapConfig) -> GapResult:
    """Explain the gap between validation and test of ``cfg.run`` and write a run folder.

    Raises:
        DeshiError: if the run or its bundle is missing, or a part has no examples.
    """
    metric = Metric.parse(cfg.metric)
    trained = Run.open(cfg.run, cfg.paths)
    analysis = _analysis(cfg, trained, metric)
    result = analysis.result(trained.name)
    record = {
        "stage": "gap", "run": str(trained.folder), "data": trained.bundle.name,
        "data_fingerprint": trained.bundle.fingerprint, "split": trained.split.description, "fit": trained.record,
    }  # fmt: skip
    with whole_run(cfg, "gap", name_of(trained.folder)) as folder:
        write_record(folder, record)
        write_json(folder / "gap.json", result.as_dict())
    return replace(result, folder=folder)


def _analysis(cfg: GapConfig, trained: Run, metric: Metric) -> GapAnalysis:
    """Of the model that validation selected: with a refit, the one before it."""
    device, evaluation = str(training_device("auto")), trained.config.eval

    def probe(scorer: Scorer) -> MetricProbe:
        return MetricProbe(
            scorer, trained.bundle, metric, evaluation.filter_seen, evaluation.batch_size, device
        )  # fmt: skip

    final, split = probe(trained.scorer(device)), trained.split
    if trained.is_refitted:
        selected, refitted = probe(trained.selected_scorer(device, trained.bundle)), final
        starts, ends = split.train_ranges(trained.bundle)  # without the validation events of the refit
    else:
        selected, refitted = final, None
        starts, ends = trained.trained_ranges()
    return GapAnalysis(selected, refitted, split, starts, ends, cfg.steps, cfg.samples, cfg.confidence, cfg.seed)
