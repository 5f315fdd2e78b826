"""The stage ``evaluate``: exact ranks of a student or a reference ranker on a split, in a run folder of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from deshi.artifacts import atomic_file, environment, fingerprint, new_run_folder, write_json
from deshi.config import save_config
from deshi.data.splits import Cases
from deshi.evaluate.measure import Measured, Questions, measure
from deshi.evaluate.reference import REFERENCES
from deshi.evaluate.reference.ease import MAX_ITEMS
from deshi.evaluate.reference.events import training_events
from deshi.evaluate.result import EvaluateResult, unbeaten
from deshi.evaluate.scorers import StudentScorer
from deshi.evaluate.subject import Subject, find_subject, leaked_targets
from deshi.schemas import EvaluateConfig
from deshi.types import DeshiError

RUN_FILE = "run.json"


def run(cfg: EvaluateConfig) -> EvaluateResult:
    """Evaluate what ``cfg`` names and write a run folder.

    Raises:
        DeshiError: if the run, the bundle or a case is missing, the run was trained on other data, or its scores
            can't be ranked.
    """
    subject = find_subject(cfg)
    parts = {part: _cases(subject, part) for part in (("validation", "test") if cfg.part == "both" else (cfg.part,))}
    names, notes = _references(cfg, subject.bundle.n_items)
    counts = training_events(subject.bundle, subject.starts, subject.ends).counts()
    questions = Questions(subject.bundle, parts, counts, cfg.eval.ks, cfg.eval.filter_seen, cfg.eval.batch_size)
    measured: dict[str, Measured] = {}
    student = _student_name(subject)
    if student is not None:
        measured[student] = _measure_student(subject, questions)
    for name in names:
        measured[name] = _measure_reference(name, subject, questions)
    main, *others = measured
    references = {name: measured[name].metrics for name in others}
    warnings = _leaks(subject, parts)
    if student is not None:
        warnings += unbeaten(student, measured[student].metrics, references, cfg.eval.ks)
    folder = new_run_folder(cfg.paths.runs, "evaluate", f"{subject.bundle.name}_{main}")
    result = EvaluateResult(
        folder, main, measured[main].metrics, references, measured[main].ranks, cfg.eval.ks, warnings, notes
    )
    _write(cfg, subject, result, measured)
    return result


def _cases(subject: Subject, part: str) -> Cases:
    cases = subject.split.cases(subject.bundle, part)
    if not len(cases):
        raise DeshiError(
            f"The split {subject.split.name} of {subject.bundle.name} has no {part} case: no user has a {part} event "
            f"and a history before it. Lower the filters of the data or move the split's boundaries."
        )
    return cases


def _references(cfg: EvaluateConfig, n_items: int) -> tuple[list[str], list[str]]:
    """The reference rankers to evaluate, the named one first, and notes about those left out."""
    named = [cfg.reference] if cfg.reference else []
    others = [name for name in REFERENCES if cfg.with_references and name != cfg.reference]
    if "ease" in others and n_items > MAX_ITEMS:
        others.remove("ease")
        return [*named, *others], [f"ease was left out: {n_items} items are more than its limit of {MAX_ITEMS}."]
    return [*named, *others], []


def _student_name(subject: Subject) -> str | None:
    return None if subject.record is None else str(subject.record["student"])


def _measure_student(subject: Subject, questions: Questions) -> Measured:
    if subject.student is None:
        raise DeshiError("There is no student to evaluate: give run=FOLDER or run=latest.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scorer = StudentScorer(subject.student, device)
    return measure(scorer, questions, device, scorer.item_vectors())


def _measure_reference(name: str, subject: Subject, questions: Questions) -> Measured:
    begin = time.perf_counter()
    ranker = REFERENCES[name]().fit(subject.bundle, subject.starts, subject.ends)
    seconds = {"fit": round(time.perf_counter() - begin, 3)}
    found = measure(ranker, questions)
    return replace(found, seconds=seconds | found.seconds)


def _leaks(subject: Subject, parts: dict[str, Cases]) -> list[str]:
    sentences = []
    for part, cases in parts.items():
        leaked = leaked_targets(subject, cases)
        if leaked:
            sentences.append(
                f"LEAK: {leaked} of {len(cases.target_rows)} {part} targets were trained on; the {part} figures say "
                f"nothing about new events."
            )
    return sentences


def _write(cfg: EvaluateConfig, subject: Subject, result: EvaluateResult, measured: dict[str, Measured]) -> None:
    folder = result.folder
    save_config(folder, cfg)
    write_json(folder / "environment.json", environment())
    _write_parquet(folder / "ranks.parquet", result.ranks)
    _write_parquet(folder / "lists.parquet", measured[result.ranker].lists)
    for name in result.references:
        _write_parquet(folder / "references" / f"{name}.parquet", measured[name].ranks)
    write_json(folder / "time.json", {name: found.seconds for name, found in measured.items()})
    write_json(folder / RUN_FILE, _record(cfg, subject, result))
    write_json(folder / "metrics.json", dict(result.metrics) | {"references": dict(result.references)})


def _record(cfg: EvaluateConfig, subject: Subject, result: EvaluateResult) -> dict[str, Any]:
    """What a later comparison must know: the subject, its data and the protocol."""
    protocol = {
        "split": subject.split.description,
        "candidates": "full",
        "filter_seen": cfg.eval.filter_seen,
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
        "warnings": list(result.warnings),
        "notes": list(result.notes),
    }


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with atomic_file(path) as temporary:
        frame.write_parquet(temporary)
