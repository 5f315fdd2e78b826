"""The stage ``evaluate``: exact ranks of a student or a baseline on a split, in a run folder of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.artifacts import atomic_file, environment, fingerprint, new_run_folder, write_json
from deshi.baselines import BASELINES
from deshi.baselines.ease import MAX_ITEMS
from deshi.baselines.events import training_events
from deshi.configuration.saved import save_config
from deshi.configuration.schemas import EvaluateConfig
from deshi.configuration.targets import build
from deshi.data.splits import Examples
from deshi.evaluation.candidates import CandidateRule, candidate_sets, candidates_frame
from deshi.evaluation.generated_answers import (
    AnswerGenerator,
    GeneratedAnswers,
    answer_generator,
    generate_answers,
)
from deshi.evaluation.measurement import EvaluationSet, Measurement, RankedExamples, measure_model
from deshi.evaluation.population import population
from deshi.evaluation.result import EvaluateResult, unbeaten
from deshi.evaluation.subject import Subject, find_subject, leaked_targets
from deshi.hardware import training_device
from deshi.types import PAD, DeshiError

RUN_FILE = "run.json"


@dataclass(frozen=True, eq=False)
class _Plan:
    """An evaluation before any model is measured.

    Attributes:
        evaluation_set: for every model.
        candidates: ``full``, or the description of the candidate sets.
        population: of each part, as counts.
        warnings: about what makes the figures doubtful.
        notes: about what was left out.
    """

    evaluation_set: EvaluationSet
    candidates: str | dict[str, Any]
    population: dict[str, dict[str, int]]
    warnings: list[str]
    notes: list[str]


def run(cfg: EvaluateConfig) -> EvaluateResult:
    """Evaluate the run or baseline of ``cfg`` and write a run folder.

    Raises:
        DeshiError: if the run, the bundle or an example is missing, the run was trained on other data, its scores can't
            be ranked, or the candidate sets don't fit.
    """
    device = str(training_device("auto"))
    subject = find_subject(cfg, device)
    plan = _plan(cfg, subject)
    network = _answer_generator(cfg, subject, plan.evaluation_set)
    names, left_out = _baselines(cfg, subject.bundle.n_items)
    measurements: dict[str, Measurement] = {}
    trained, generated = _trained_name(subject), None
    if trained is not None:
        measurement = _measure_run(subject, plan.evaluation_set, device)
        if network is not None:
            generated = generate_answers(network, plan.evaluation_set, measurement.ranks, cfg.answers, device)
            metrics, seconds = measurement.metrics | generated.metrics, measurement.seconds | generated.seconds
            measurement = replace(measurement, metrics=metrics, seconds=seconds)
        measurements[trained] = measurement
    for name in names:
        measurements[name] = _measure_baseline(name, subject, plan.evaluation_set)
    result = _result(cfg, subject, plan, measurements, generated, left_out)
    if generated is not None:
        _write_parquet(result.folder / "answers.parquet", generated.answers)
    _write(cfg, subject, plan, result, measurements)
    return result


def _result(
    cfg: EvaluateConfig,
    subject: Subject,
    plan: _Plan,
    measurements: Mapping[str, Measurement],
    generated: GeneratedAnswers | None,
    left_out: list[str],
) -> EvaluateResult:
    main, *others = measurements
    baselines = {name: measurements[name].metrics for name in others}
    warnings, notes = list(plan.warnings), [*plan.notes, *left_out]
    if generated is not None:
        warnings, notes = [*warnings, *generated.warnings], [*notes, *generated.notes]
    if subject.record is not None:
        warnings += unbeaten(main, measurements[main].metrics, baselines, plan.evaluation_set.ks)
    slices = [each.slices.select(pl.lit(name).alias("model"), pl.all()) for name, each in measurements.items()]
    return EvaluateResult(
        folder=new_run_folder(cfg.paths.runs, "evaluate", f"{subject.bundle.name}_{main}"),
        model=main,
        metrics=measurements[main].metrics,
        baselines=baselines,
        ranks=measurements[main].ranks,
        ks=plan.evaluation_set.ks,
        slices=pl.concat(slices),
        warnings=warnings,
        notes=notes,
        protocol=_protocol_sentence(plan),
    )


def _plan(cfg: EvaluateConfig, subject: Subject) -> _Plan:
    """Examples and candidates of the parts that ``cfg`` names."""
    bundle = subject.bundle
    names = ("validation", "test") if cfg.part == "both" else (cfg.part,)
    examples = {part: _examples(subject, part) for part in names}
    counts = training_events(bundle, subject.starts, subject.ends).counts()
    populations = {name: population(bundle, subject.split, name, part, counts) for name, part in examples.items()}
    warnings = _leaks(subject, examples)
    notes = [note for name, part in populations.items() if (note := part.note(name))]
    evaluation_set = EvaluationSet(
        bundle,
        {name: RankedExamples(part) for name, part in examples.items()},
        counts,
        cfg.eval.ks,
        cfg.eval.filter_seen,
        cfg.eval.batch_size,
    )
    description: str | dict[str, Any] = "full"
    if cfg.candidates is not None:
        rule: CandidateRule = build(cfg.candidates)
        sets, description = candidate_sets(rule, bundle, subject.split, examples)
        ks, left_out = _meaningful_ks(cfg.eval.ks, max(part.shape[1] for part in sets.values()))
        parts = {name: RankedExamples(part, sets[name]) for name, part in examples.items()}
        evaluation_set = replace(evaluation_set, parts=parts, ks=ks, one_answer=rule.one_answer)
        warnings += [rule.caution] if rule.caution else []
        notes += left_out
    counts_of_parts = {name: part.plain() for name, part in populations.items()}
    return _Plan(evaluation_set, description, counts_of_parts, warnings, notes)


def _examples(subject: Subject, part: str) -> Examples:
    examples = subject.split.examples(subject.bundle, part)
    if not len(examples):
        raise DeshiError(
            f"The split {subject.split.name} of {subject.bundle.name} has no {part} example: no user has a {part} "
            "event "
            f"and a history before it. Lower the filters of the data or move the split's boundaries."
        )
    return examples


def _meaningful_ks(ks: list[int], n_candidates: int) -> tuple[list[int], list[str]]:
    """The K that a list of ``n_candidates`` can miss a target at, and a note about the others."""
    kept, trivial = [k for k in ks if k < n_candidates], [k for k in ks if k >= n_candidates]
    if not kept:
        raise DeshiError(
            f"eval.ks is {ks}, but each example has at most {n_candidates} candidates: every target is among the best "
            f"{min(ks)}. Expected a K below {n_candidates}, e.g. eval.ks=[1]."
        )
    if not trivial:
        return kept, []
    return kept, [f"K = {', '.join(map(str, trivial))} left out: every target is among the {n_candidates} candidates."]


def _baselines(cfg: EvaluateConfig, n_items: int) -> tuple[list[str], list[str]]:
    """The baselines to evaluate, the named one first, and notes about those left out."""
    named = [cfg.baseline] if cfg.baseline else []
    others = [name for name in BASELINES if cfg.with_baselines and name != cfg.baseline]
    if "ease" in others and n_items > MAX_ITEMS:
        others.remove("ease")
        return [*named, *others], [f"ease was left out: {n_items} items are more than its limit of {MAX_ITEMS}."]
    return [*named, *others], []


def _trained_name(subject: Subject) -> str | None:
    return None if subject.record is None else str(subject.record["student"])


def _measure_run(subject: Subject, evaluation_set: EvaluationSet, device: str) -> Measurement:
    if subject.scorer is None:
        raise DeshiError("There is no run to evaluate: give run=FOLDER or run=latest.")
    vectors = getattr(subject.scorer, "item_vectors", None)
    return measure_model(subject.scorer, evaluation_set, device, vectors() if callable(vectors) else None)


def _answer_generator(cfg: EvaluateConfig, subject: Subject, evaluation_set: EvaluationSet) -> AnswerGenerator | None:
    """The network whose generated answers are evaluated, if ``cfg`` says so."""
    if not cfg.answers:
        return None
    network, setting = answer_generator(subject.scorer), f"answers={cfg.answers} generates titles"
    if network is None:
        raise DeshiError(f"{setting}, but {_trained_name(subject)} only ranks. Leave answers out.")
    if not evaluation_set.one_answer:
        raise DeshiError(
            f"{setting}, one an example, but these candidates may hold several targets. Use candidates=llara."
        )
    return network


def _measure_baseline(name: str, subject: Subject, evaluation_set: EvaluationSet) -> Measurement:
    begin = time.perf_counter()
    baseline = BASELINES[name]().fit(subject.bundle, subject.starts, subject.ends)
    seconds = {"fit": round(time.perf_counter() - begin, 3)}
    measurement = measure_model(baseline, evaluation_set)
    return replace(measurement, seconds=seconds | measurement.seconds)


def _leaks(subject: Subject, parts: Mapping[str, Examples]) -> list[str]:
    sentences = []
    for part, examples in parts.items():
        leaked = leaked_targets(subject, examples)
        if leaked:
            sentences.append(
                f"LEAK: {leaked} of {len(examples.target_rows)} {part} targets were trained on; the {part} figures say "
                f"nothing about new events."
            )
    return sentences


def _protocol_sentence(plan: _Plan) -> str:
    if isinstance(plan.candidates, str):
        return "exact full ranking"
    candidates = [part.candidates for part in plan.evaluation_set.parts.values() if part.candidates is not None]
    sizes = np.concatenate([(sets != PAD).sum(1) for sets in candidates])
    smallest, largest = int(sizes.min()), int(sizes.max())
    size = f"{largest}" if smallest == largest else f"{smallest} to {largest}"
    return f"exact ranks among {size} candidates ({plan.candidates['kind']})"


def _write(
    cfg: EvaluateConfig, subject: Subject, plan: _Plan, result: EvaluateResult, measurements: Mapping[str, Measurement]
) -> None:
    folder, main = result.folder, measurements[result.model]
    save_config(folder, cfg)
    write_json(folder / "environment.json", environment())
    tables = {"ranks": main.ranks, "lists": main.lists, "slices": result.slices}
    tables |= {f"baselines/{name}": measurements[name].ranks for name in result.baselines}
    if main.calibration.height:
        tables["calibration"] = main.calibration
    if not isinstance(plan.candidates, str):
        tables["candidates"] = _candidates_table(subject, plan.evaluation_set)
    for name, table in tables.items():
        _write_parquet(folder / f"{name}.parquet", table)
    write_json(folder / "time.json", {name: each.seconds for name, each in measurements.items()})
    write_json(folder / RUN_FILE, _record(cfg, subject, plan, result))
    write_json(folder / "metrics.json", dict(result.metrics) | {"baselines": dict(result.baselines)})


def _candidates_table(subject: Subject, evaluation_set: EvaluationSet) -> pl.DataFrame:
    return pl.concat(
        [
            candidates_frame(subject.bundle, part.examples, part.candidates).select(
                pl.lit(name).alias("part"), pl.all()
            )
            for name, part in evaluation_set.parts.items()
            if part.candidates is not None
        ]
    )


def _record(cfg: EvaluateConfig, subject: Subject, plan: _Plan, result: EvaluateResult) -> dict[str, Any]:
    """The model, its data and the protocol, for later comparisons."""
    protocol = {
        "split": subject.split.description,
        "candidates": plan.candidates,
        "filter_seen": cfg.eval.filter_seen if plan.candidates == "full" else None,
        "ties": "mean rank",
    }
    return {
        "stage": "evaluate",
        "model": result.model,
        "run": None if subject.folder is None else str(subject.folder),
        "fit": subject.record,
        "data": subject.bundle.name,
        "data_fingerprint": subject.bundle.fingerprint,
        "n_items": subject.bundle.n_items,
        "part": cfg.part,
        "protocol": protocol,
        "protocol_fingerprint": fingerprint([("protocol", protocol)]),
        "population": plan.population,
        "warnings": list(result.warnings),
        "notes": list(result.notes),
    }


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with atomic_file(path) as temporary:
        frame.write_parquet(temporary)
