"""The work of ``deshi evaluate``: exact ranks of a run's model or of baselines on a split."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import Ints
from deshi.artifacts import fingerprint, read_json, write_json, write_parquet
from deshi.baselines import Baseline, training_events
from deshi.configuration.run_folders import BASELINES as BASELINES_FOLDER
from deshi.configuration.run_folders import CANDIDATES_FILE, LISTS_FILE, METRICS_FILE, RANKS_FILE, TIME_FILE
from deshi.configuration.schemas import LEAVE_ONE_OUT
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, Examples, Split
from deshi.evaluation import (
    AnswerGenerator,
    CandidateRule,
    EvaluateResult,
    EvaluationSet,
    GeneratedAnswers,
    Measurement,
    RankedExamples,
    about_seen,
    answer_generator,
    candidate_sets,
    candidates_frame,
    generate_answers,
    leak_warnings,
    measure_model,
    population,
    unbeaten,
)
from deshi.hardware import training_device
from deshi.models.scorers import ListScorer, Scorer
from deshi.runs import Run, load_bundle, whole_run, write_record
from deshi.serving import ServingBundle, find_bundle
from deshi.serving.approximate_search import Recall
from deshi.serving.bundle import RECALL
from deshi.serving.engine import Engine
from deshi.serving.parity import EngineLists, OnnxScorer
from deshi.stages._baselines import chosen_baselines
from deshi.stages.evaluate import EvaluateConfig
from deshi.types import PAD, DeshiError

SAMPLE_SEED = 0
"""Draws the examples of ``sample``: one for all evaluations, so that they can be compared."""


@dataclass(frozen=True, eq=False)
class _Subject:
    """Data and split of an evaluation, and the run if there is one.

    Attributes:
        bundle: the data.
        split: whose examples are ranked.
        starts: ``(n_users,)`` flat positions, with ``ends`` the events that were trained on.
        ends: ``(n_users,)`` flat positions.
        run: the trained run, or None.
        scorer: the model of the run, or None.
        served: the serving bundle of the run that is evaluated in its place, or None.
    """

    bundle: Bundle
    split: Split
    starts: Ints
    ends: Ints
    run: Run | None = None
    scorer: Scorer | None = None
    served: ServingBundle | None = None


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
    device = str(training_device("auto")) if cfg.served is False else "cpu"
    subject = _subject(cfg, device)
    plan = _plan(cfg, subject)
    network = _answer_generator(cfg, subject, plan.evaluation_set)
    baselines, left_out = chosen_baselines(cfg, subject.bundle)
    measurements: dict[str, Measurement] = {}
    trained, generated = _trained_name(subject), None
    if trained is not None:
        measurement = _measure_run(subject, plan.evaluation_set, device)
        if network is not None:
            generated = generate_answers(network, plan.evaluation_set, measurement.ranks, cfg.answers, device)
            metrics, seconds = measurement.metrics | generated.metrics, measurement.seconds | generated.seconds
            measurement = replace(measurement, metrics=metrics, seconds=seconds)
        measurements[trained] = measurement
    for name, baseline in baselines.items():
        measurements[name] = _measure_baseline(baseline, subject, plan.evaluation_set)
    with whole_run(cfg, "evaluate", f"{subject.bundle.name}_{next(iter(measurements))}") as folder:
        result = _result(folder, subject, plan, measurements, generated, left_out)
        if generated is not None:
            write_parquet(generated.answers, folder / "answers.parquet")
        _write(cfg, subject, plan, result, measurements)
    return result


def _subject(cfg: EvaluateConfig, device: str) -> _Subject:
    """Load what ``cfg`` names and check that it fits together."""
    if cfg.run is None:
        assert cfg.data is not None  # by the schema
        bundle = load_bundle(cfg.data.name, cfg.paths.data)
        baseline_split: Split = build(cfg.split or LEAVE_ONE_OUT)(bundle)
        return _Subject(bundle, baseline_split, *baseline_split.train_ranges(bundle))
    run = Run.open(cfg.run, cfg.paths)
    bundle = load_bundle(run.config.data.name if cfg.data is None else cfg.data.name, *run.data_folders)
    run.check_same_data(bundle)
    split = build(cfg.split)(bundle) if cfg.split else run.split_of(bundle)
    served = _served(cfg, run)
    scorer = run.scorer(device, bundle) if served is None else _served_scorer(cfg, served)
    return _Subject(bundle, split, *run.trained_ranges(bundle), run, scorer, served)


def ranked_examples(cfg: EvaluateConfig) -> int:
    """The number of examples that an evaluation of a run would rank, in all parts together."""
    run = Run.open(cfg.run or "", cfg.paths)
    split = build(cfg.split)(run.bundle) if cfg.split else run.split
    subject = _Subject(run.bundle, split, *run.trained_ranges(), run)
    return sum(len(_examples(subject, part, cfg.sample)) for part in _parts(cfg, subject))


def _served(cfg: EvaluateConfig, run: Run) -> ServingBundle | None:
    """The serving bundle that is evaluated in the place of the run.

    Raises:
        DeshiError: if it can't be read, or is another run's.
    """
    if cfg.served is False:
        return None
    served = ServingBundle.load(find_bundle(cfg.paths.runs, str(run.folder if cfg.served is True else cfg.served)))
    if served.config["run"] != run.record:
        raise DeshiError(
            f"The serving bundle in {served.path} was exported from {served.manifest.get('run')}, expected one of "
            f"{run.folder}. Run: deshi export {run.folder}"
        )
    return served


def _served_scorer(cfg: EvaluateConfig, served: ServingBundle) -> Scorer:
    """What a bundle answers by: the scores of all items, or the lists of its engine.

    Raises:
        DeshiError: if its index is asked for and there is none.
    """
    if cfg.search == "exact":
        return OnnxScorer.of_bundle(served)
    if served.index is None:
        raise DeshiError(f"{served.path} has no index. Run: deshi export {cfg.run} index=approximate")
    return EngineLists(Engine(served))


def _recall(cfg: EvaluateConfig, subject: _Subject) -> list[str]:
    """What an index finds of the exact lists, as its export has measured it."""
    if cfg.search == "exact" or subject.served is None:
        return []
    sentence = Recall(**read_json(subject.served.path / RECALL)).sentence()
    return [f"{sentence[0].upper()}{sentence[1:]} Targets below a list count as misses."]


def _result(
    folder: Path,
    subject: _Subject,
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
    slices = [each.slices.select(pl.lit(name).alias("model"), pl.all()) for name, each in measurements.items()]
    return EvaluateResult(
        folder=folder,
        model=main,
        metrics=measurements[main].metrics,
        baselines=baselines,
        ranks=measurements[main].ranks,
        ks=plan.evaluation_set.ks,
        slices=pl.concat(slices),
        warnings=warnings,
        unbeaten=[] if subject.run is None else _unbeaten(measurements),
        notes=notes,
        protocol=_protocol_sentence(plan, subject),
    )


def _unbeaten(measurements: Mapping[str, Measurement]) -> list[str]:
    """Sentences about the best baseline, if the model, which is the first, doesn't beat it."""
    model, *baselines = measurements
    metrics = {name: each.metrics for name, each in measurements.items()}

    def ranks(name: str, part: str) -> list[pl.DataFrame]:
        return [measurements[name].ranks.filter(pl.col("part") == part)]

    return unbeaten(model, metrics[model], {name: metrics[name] for name in baselines}, ranks)


def _plan(cfg: EvaluateConfig, subject: _Subject) -> _Plan:
    """Examples and candidates of the parts that ``cfg`` names."""
    bundle = subject.bundle
    examples = {part: _examples(subject, part, cfg.sample) for part in _parts(cfg, subject)}
    counts = training_events(bundle, subject.starts, subject.ends).counts()
    filter_seen = _filter_seen(cfg, subject)
    populations = {
        name: population(bundle, subject.split, name, part, counts, filter_seen) for name, part in examples.items()
    }
    warnings = leak_warnings(examples, subject.ends)
    notes = [*_sampled(cfg, examples), *_refitted(subject), *_recall(cfg, subject)]
    notes += [note for name, part in populations.items() if (note := part.note(name))]
    if cfg.candidates is None:
        doubts, facts = about_seen(populations, filter_seen, bundle.n_items)
        warnings, notes = [*warnings, *doubts], [*notes, *facts, *_served_otherwise(subject, filter_seen)]
    evaluation_set = EvaluationSet(
        bundle,
        {name: RankedExamples(part) for name, part in examples.items()},
        counts,
        cfg.eval.ks,
        filter_seen,
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


def _parts(cfg: EvaluateConfig, subject: _Subject) -> list[str]:
    """The parts to rank; by its own split, a refitted run has none but test.

    Raises:
        DeshiError: if validation alone is asked for of events that a refit has trained on.
    """
    parts: list[str] = list(PARTS) if cfg.part == "both" else [cfg.part]
    run = subject.run
    if run is None or not run.is_refitted or subject.split.description != run.record["split"]:
        return parts
    if "test" not in parts:
        source = "its own metrics.json" if run.selected_run is run else f"the run {run.selected_run.name}"
        raise DeshiError(
            f"The run {run.folder} was refitted on training and validation events: a validation figure of it would "
            f"mean nothing. Use part=test; the figure by which was selected is in {source}."
        )
    return ["test"]


def _sampled(cfg: EvaluateConfig, examples: Mapping[str, Examples]) -> list[str]:
    if cfg.sample is None:
        return []
    sizes = ", ".join(f"{len(part)} {name}" for name, part in examples.items())
    return [f"A sample of the examples: {sizes}. Compare with models on the same sample (sample={cfg.sample})."]


def _refitted(subject: _Subject) -> list[str]:
    if subject.run is None or not subject.run.is_refitted:
        return []
    return [
        "Refitted: the model and the baselines have learnt the training and the validation events, so there is no "
        "validation figure. Compare refitted models with refitted ones."
    ]


def _filter_seen(cfg: EvaluateConfig, subject: _Subject) -> bool:
    if cfg.eval.filter_seen is not None:
        return cfg.eval.filter_seen
    return subject.run is None or subject.run.config.eval.filter_seen


def _served_otherwise(subject: _Subject, filter_seen: bool) -> list[str]:
    if subject.run is None or subject.run.config.eval.filter_seen == filter_seen:
        return []
    ranked, served = ("without", "with") if filter_seen else ("with", "without")
    return [f"Ranked {ranked} seen items (eval.filter_seen), but lists of this run are served {served} them."]


def _examples(subject: _Subject, part: str, size: int | None) -> Examples:
    examples = subject.split.examples(subject.bundle, part)
    if not len(examples):
        raise DeshiError(
            f"The split {subject.split.name} of {subject.bundle.name} has no {part} example: no user has a {part} "
            "event and a history before it. Lower the filters of the data or move the split's boundaries."
        )
    return examples.sample(size, SAMPLE_SEED)


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


def _trained_name(subject: _Subject) -> str | None:
    if subject.run is None:
        return None
    name = str(subject.run.record["model"])
    if subject.served is None:
        return name
    return f"{name}+counts" if subject.served.pair_table is not None else f"{name}-served"


def _measure_run(subject: _Subject, evaluation_set: EvaluationSet, device: str) -> Measurement:
    if subject.scorer is None:
        raise DeshiError("There is no run to evaluate: give run=FOLDER or run=latest.")
    return measure_model(subject.scorer, evaluation_set, device, subject.scorer.item_vectors())


def _answer_generator(cfg: EvaluateConfig, subject: _Subject, evaluation_set: EvaluationSet) -> AnswerGenerator | None:
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


def _measure_baseline(baseline: Baseline, subject: _Subject, evaluation_set: EvaluationSet) -> Measurement:
    begin = time.perf_counter()
    baseline.choose(subject.bundle, subject.split, evaluation_set.filter_seen)
    chosen = time.perf_counter()
    baseline.fit(subject.bundle, subject.starts, subject.ends)
    seconds = {"search": round(chosen - begin, 3), "fit": round(time.perf_counter() - chosen, 3)}
    measurement = measure_model(baseline, evaluation_set)
    return replace(measurement, seconds=seconds | measurement.seconds)


def _protocol_sentence(plan: _Plan, subject: _Subject) -> str:
    if isinstance(subject.scorer, ListScorer):
        return "lists of an approximate search of the whole catalogue"
    if isinstance(plan.candidates, str):
        return "exact full ranking"
    candidates = [part.candidates for part in plan.evaluation_set.parts.values() if part.candidates is not None]
    sizes = np.concatenate([(sets != PAD).sum(1) for sets in candidates])
    smallest, largest = int(sizes.min()), int(sizes.max())
    size = f"{largest}" if smallest == largest else f"{smallest} to {largest}"
    return f"exact ranks among {size} candidates ({plan.candidates['kind']})"


def _write(
    cfg: EvaluateConfig, subject: _Subject, plan: _Plan, result: EvaluateResult, measurements: Mapping[str, Measurement]
) -> None:
    folder, main = result.folder, measurements[result.model]
    tables = {RANKS_FILE: main.ranks, LISTS_FILE: main.lists, "slices.parquet": result.slices}
    tables |= {f"{BASELINES_FOLDER}/{name}.parquet": measurements[name].ranks for name in result.baselines}
    if main.calibration.height:
        tables["calibration.parquet"] = main.calibration
    if not isinstance(plan.candidates, str):
        tables[CANDIDATES_FILE] = _candidates_table(subject, plan.evaluation_set)
    for name, table in tables.items():
        write_parquet(table, folder / name)
    write_json(folder / TIME_FILE, {name: each.seconds for name, each in measurements.items()})
    write_record(folder, _record(cfg, subject, plan, result))
    write_json(folder / METRICS_FILE, dict(result.metrics) | {"baselines": dict(result.baselines)})


def _candidates_table(subject: _Subject, evaluation_set: EvaluationSet) -> pl.DataFrame:
    return pl.concat(
        [
            candidates_frame(subject.bundle, part.examples, part.candidates).select(
                pl.lit(name).alias("part"), pl.all()
            )
            for name, part in evaluation_set.parts.items()
            if part.candidates is not None
        ]
    )


def _record(cfg: EvaluateConfig, subject: _Subject, plan: _Plan, result: EvaluateResult) -> dict[str, Any]:
    """The model, its data and the protocol, for later comparisons."""
    protocol = {
        "split": subject.split.description,
        "candidates": plan.candidates,
        "filter_seen": plan.evaluation_set.filter_seen if plan.candidates == "full" else None,
        "ties": "mean rank",
        **({} if cfg.sample is None else {"sample": cfg.sample, "sample_seed": SAMPLE_SEED}),
    }
    cost = None if subject.scorer is None else subject.scorer.cost()
    return {
        "stage": "evaluate",
        "model": result.model,
        "run": None if subject.run is None else str(subject.run.folder),
        "search": cfg.search,
        "served": None if subject.served is None else str(subject.served.path),
        "fit": None if subject.run is None else subject.run.record,
        "data": subject.bundle.name,
        "data_fingerprint": subject.bundle.fingerprint,
        "n_items": subject.bundle.n_items,
        "part": cfg.part,
        "protocol": protocol,
        "protocol_fingerprint": fingerprint([("protocol", protocol)]),
        "population": plan.population,
        "warnings": list(result.warnings),
        "notes": list(result.notes),
        **({} if cost is None else {"cost": cost}),
    }
