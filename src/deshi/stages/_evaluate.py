"""The stage ``evaluate``: exact ranks of a student or a baseline on a split, in a run folder of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from deshi.artifacts import atomic_file, environment, fingerprint, new_run_folder, write_json
from deshi.baselines import BASELINES
from deshi.baselines.ease import MAX_ITEMS
from deshi.baselines.events import training_events
from deshi.configuration.run_folders import save_config
from deshi.configuration.schemas import EvaluateConfig
from deshi.configuration.targets import build
from deshi.data.splits import Examples
from deshi.evaluation.candidates import CandidateRule, candidate_sets, candidates_frame
from deshi.evaluation.generated_answers import Writer, ask_in_words, writer_of
from deshi.evaluation.measure import Measured, Part, Questions, measure
from deshi.evaluation.population import population
from deshi.evaluation.result import EvaluateResult, unbeaten
from deshi.evaluation.subject import Subject, find_subject, leaked_targets
from deshi.hardware import training_device
from deshi.types import PAD, DeshiError

RUN_FILE = "run.json"


@dataclass(frozen=True, eq=False)
class _Asked:
    """The questions, and what there is to say about them before anyone answers.

    Attributes:
        questions: for every ranker.
        candidates: ``full``, or the description of the candidate sets.
        population: of each part, as counts.
        warnings: about what makes the figures doubtful.
        notes: about what was left out.
    """

    questions: Questions
    candidates: str | dict[str, Any]
    population: dict[str, dict[str, int]]
    warnings: list[str]
    notes: list[str]


def run(cfg: EvaluateConfig) -> EvaluateResult:
    """Evaluate what ``cfg`` names and write a run folder.

    Raises:
        DeshiError: if the run, the bundle or an example is missing, the run was trained on other data, its scores can't
            be ranked, or the candidate sets don't fit.
    """
    device = str(training_device("auto"))
    subject = find_subject(cfg, device)
    asked = _ask(cfg, subject)
    writer = _writer(cfg, subject, asked.questions)
    names, left_out = _baselines(cfg, subject.bundle.n_items)
    measured: dict[str, Measured] = {}
    student = _student_name(subject)
    if student is not None:
        measured[student] = _measure_run(subject, asked.questions, device)
    for name in names:
        measured[name] = _measure_baseline(name, subject, asked.questions)
    written = None
    if student is not None and writer is not None:
        written = ask_in_words(writer, asked.questions, measured[student].ranks, cfg.answers, device)
        metrics, seconds = measured[student].metrics | written.metrics, measured[student].seconds | written.seconds
        measured[student] = replace(measured[student], metrics=metrics, seconds=seconds)
    main, *others = measured
    baselines = {name: measured[name].metrics for name in others}
    warnings, notes, ks = list(asked.warnings), [*asked.notes, *left_out], asked.questions.ks
    if written is not None:
        warnings, notes = [*warnings, *written.warnings], [*notes, *written.notes]
    if student is not None:
        warnings += unbeaten(student, measured[student].metrics, baselines, ks)
    result = EvaluateResult(
        folder=new_run_folder(cfg.paths.runs, "evaluate", f"{subject.bundle.name}_{main}"),
        ranker=main,
        metrics=measured[main].metrics,
        baselines=baselines,
        ranks=measured[main].ranks,
        ks=ks,
        slices=pl.concat(
            [found.slices.select(pl.lit(name).alias("ranker"), pl.all()) for name, found in measured.items()]
        ),
        warnings=warnings,
        notes=notes,
        protocol=_protocol_words(asked),
    )
    if written is not None:
        _write_parquet(result.folder / "answers.parquet", written.answers)
    _write(cfg, subject, asked, result, measured)
    return result


def _ask(cfg: EvaluateConfig, subject: Subject) -> _Asked:
    """The questions of the parts that ``cfg`` asks for."""
    bundle = subject.bundle
    examples = {
        part: _examples(subject, part) for part in (("validation", "test") if cfg.part == "both" else (cfg.part,))
    }
    counts = training_events(bundle, subject.starts, subject.ends).counts()
    counted = {part: population(bundle, subject.split, part, own, counts) for part, own in examples.items()}
    warnings = _leaks(subject, examples)
    notes = [note for part, own in counted.items() if (note := own.note(part))]
    questions = Questions(
        bundle,
        {part: Part(own) for part, own in examples.items()},
        counts,
        cfg.eval.ks,
        cfg.eval.filter_seen,
        cfg.eval.batch_size,
    )
    description: str | dict[str, Any] = "full"
    if cfg.candidates is not None:
        rule: CandidateRule = build(cfg.candidates)
        sets, description = candidate_sets(rule, bundle, subject.split, examples)
        ks, left_out = _meaningful_ks(cfg.eval.ks, max(own.shape[1] for own in sets.values()))
        parts = {part: Part(own, sets[part]) for part, own in examples.items()}
        questions = replace(questions, parts=parts, ks=ks, one_answer=rule.one_answer)
        warnings += [rule.caution] if rule.caution else []
        notes += left_out
    return _Asked(questions, description, {part: own.plain() for part, own in counted.items()}, warnings, notes)


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


def _student_name(subject: Subject) -> str | None:
    return None if subject.record is None else str(subject.record["student"])


def _measure_run(subject: Subject, questions: Questions, device: str) -> Measured:
    if subject.scorer is None:
        raise DeshiError("There is no run to evaluate: give run=FOLDER or run=latest.")
    vectors = getattr(subject.scorer, "item_vectors", None)
    return measure(subject.scorer, questions, device, vectors() if callable(vectors) else None)


def _writer(cfg: EvaluateConfig, subject: Subject, questions: Questions) -> Writer | None:
    """What is to answer in words, if the run is asked to."""
    if not cfg.answers:
        return None
    writer, asked = writer_of(subject.scorer), f"answers={cfg.answers} asks for titles in words"
    if writer is None:
        raise DeshiError(f"{asked}, but {_student_name(subject)} only ranks. Leave answers out.")
    if not questions.one_answer:
        raise DeshiError(
            f"{asked}, one an example, but these candidates may hold several targets. Use candidates=llara."
        )
    return writer


def _measure_baseline(name: str, subject: Subject, questions: Questions) -> Measured:
    begin = time.perf_counter()
    ranker = BASELINES[name]().fit(subject.bundle, subject.starts, subject.ends)
    seconds = {"fit": round(time.perf_counter() - begin, 3)}
    found = measure(ranker, questions)
    return replace(found, seconds=seconds | found.seconds)


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


def _protocol_words(asked: _Asked) -> str:
    if isinstance(asked.candidates, str):
        return "exact full ranking"
    sizes = [(own.candidates != PAD).sum(1) for own in asked.questions.parts.values() if own.candidates is not None]
    smallest, largest = min(int(one.min()) for one in sizes), max(int(one.max()) for one in sizes)
    among = f"{largest}" if smallest == largest else f"{smallest} to {largest}"
    return f"exact ranks among {among} candidates ({asked.candidates['kind']})"


def _write(
    cfg: EvaluateConfig, subject: Subject, asked: _Asked, result: EvaluateResult, measured: Mapping[str, Measured]
) -> None:
    folder, main = result.folder, measured[result.ranker]
    save_config(folder, cfg)
    write_json(folder / "environment.json", environment())
    tables = {"ranks": main.ranks, "lists": main.lists, "slices": result.slices}
    tables |= {f"baselines/{name}": measured[name].ranks for name in result.baselines}
    if main.calibration.height:
        tables["calibration"] = main.calibration
    if not isinstance(asked.candidates, str):
        tables["candidates"] = _candidates_table(subject, asked.questions)
    for name, table in tables.items():
        _write_parquet(folder / f"{name}.parquet", table)
    write_json(folder / "time.json", {name: found.seconds for name, found in measured.items()})
    write_json(folder / RUN_FILE, _record(cfg, subject, asked, result))
    write_json(folder / "metrics.json", dict(result.metrics) | {"baselines": dict(result.baselines)})


def _candidates_table(subject: Subject, questions: Questions) -> pl.DataFrame:
    return pl.concat(
        [
            candidates_frame(subject.bundle, part.examples, part.candidates).select(
                pl.lit(name).alias("part"), pl.all()
            )
            for name, part in questions.parts.items()
            if part.candidates is not None
        ]
    )


def _record(cfg: EvaluateConfig, subject: Subject, asked: _Asked, result: EvaluateResult) -> dict[str, Any]:
    """What a later comparison must know: the subject, its data and the protocol."""
    protocol = {
        "split": subject.split.description,
        "candidates": asked.candidates,
        "filter_seen": cfg.eval.filter_seen if asked.candidates == "full" else None,
        "ties": "mean rank",
    }
    return {
        "stage": "evaluate",
        "ranker": result.ranker,
        "run": None if subject.folder is None else str(subject.folder),
        "fit": subject.record,
        "data": subject.bundle.name,
        "data_fingerprint": subject.bundle.fingerprint,
        "n_items": subject.bundle.n_items,
        "part": cfg.part,
        "protocol": protocol,
        "protocol_fingerprint": fingerprint([("protocol", protocol)]),
        "population": asked.population,
        "warnings": list(result.warnings),
        "notes": list(result.notes),
    }


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with atomic_file(path) as temporary:
        frame.write_parquet(temporary)
