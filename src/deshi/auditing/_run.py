"""The audit of deshi's own artifacts: data, split, training ranges, student, evaluations."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

from deshi.auditing._bundle import audit_bundle
from deshi.auditing._candidates import audit_candidates
from deshi.auditing._finding import Finding
from deshi.auditing._probe import AT, ndcg_per_example
from deshi.auditing._provenance import audit_record, audit_weights
from deshi.auditing._ranks import audit_ranks
from deshi.auditing._reranking import recompute
from deshi.auditing._result import Checked
from deshi.auditing._selection import audit_selection
from deshi.auditing._split import audit_split, audit_training_ranges
from deshi.auditing._student import audit_student
from deshi.auditing._subject import Subject
from deshi.auditing._table import audit_table, reproduced
from deshi.configuration.run_folders import CANDIDATES_FILE, RUN_FILE, WEIGHTS_FILE
from deshi.data.splits import PARTS, Examples, Split
from deshi.models.base import SequentialRecommender
from deshi.models.scorers import SequentialScorer
from deshi.runs import Evaluation, Run, read_curve, read_part
from deshi.training.module import MONITOR

log = logging.getLogger(__name__)

Step = tuple[str, Callable[[], list[Finding]]]


def audit(subject: Subject) -> tuple[list[Finding], list[Checked]]:
    """Run every check that applies to a subject.

    Args:
        subject: what is looked at.

    Returns:
        The findings in the order of the checks, and what was looked at.
    """
    findings: list[Finding] = []
    checked: list[Checked] = []
    for message, step in _steps(subject):
        begin = time.perf_counter()
        problems = step()
        checked.append(Checked(message, time.perf_counter() - begin, len(problems)))
        log.info("%s: %d findings in %.1f s", message, len(problems), checked[-1].seconds)
        findings += problems
    return findings, checked


def _steps(subject: Subject) -> Iterator[Step]:
    bundle, split, run = subject.bundle, subject.split, subject.run
    yield "bundle", lambda: audit_bundle(bundle)
    yield "split", lambda: audit_split(bundle, split, run.config.eval.filter_seen if run else True)
    if run is not None:
        problems = audit_record(run.record, bundle, run.folder / RUN_FILE)
        problems += audit_weights(run.folder / WEIGHTS_FILE, bundle)
        yield "provenance of the run", lambda: problems
        if problems:  # with other data or broken weights, its answers say nothing about this run
            return
        yield from _of_run(subject, run)
    for evaluation, evaluated_split in subject.evaluations:
        yield from _of_evaluation(subject, evaluation, evaluated_split)


def _of_run(subject: Subject, run: Run) -> Iterator[Step]:
    chosen_in = run.selected_run  # of a refit, the run whose epochs it took over
    selected = run.selected_student()
    examples = subject.split.examples(subject.bundle, "validation")
    yield "training ranges", lambda: _training_ranges(subject, run, selected)
    yield "student", lambda: audit_student(selected, subject.bundle, examples)
    yield "recorded figure", lambda: _recorded(subject, chosen_in, selected, examples)


def _training_ranges(subject: Subject, run: Run, student: SequentialRecommender) -> list[Finding]:
    """What the run was trained on by its own settings, and in its refit on training and validation together."""
    bundle, split, train, seen = subject.bundle, subject.split, run.config.train, run.config.eval.filter_seen
    with warnings.catch_warnings():  # the finding says with counts what this warns of
        warnings.simplefilter("ignore")
        ranges = split.train_ranges(bundle, train.train_targets)
    findings = audit_training_ranges(bundle, split, ranges, PARTS, seen)
    if train.refit:
        findings += audit_training_ranges(bundle, split, split.refit_ranges(bundle), PARTS[1:], seen)
    return [_with_figures_of_run(problem, subject, student, seen) for problem in findings]


def _with_figures_of_run(
    problem: Finding, subject: Subject, student: SequentialRecommender, filter_seen: bool
) -> Finding:
    """A leak's effect on this very run: its figure where the targets were trained on, and where they were not."""
    figures = []
    for part in PARTS:
        examples = subject.split.examples(subject.bundle, part)
        if len(examples):
            value = ndcg_per_example(SequentialScorer(student), subject.bundle, examples, filter_seen).mean()
            figures.append(f"{value:.4f} on {part}")
    return replace(problem, effect=f"{problem.effect} This run's student: NDCG@{AT} {', '.join(figures)}.")


def _recorded(subject: Subject, run: Run, student: SequentialRecommender, examples: Examples) -> list[Finding]:
    """The figure that selected the student must come back, and must be validation's."""
    bundle, seen = subject.bundle, run.config.eval.filter_seen
    scorer, recorded = SequentialScorer(student), run.metrics.get(MONITOR)
    test = subject.split.examples(bundle, "test")
    figures = {"validation": ndcg_per_example(scorer, bundle, examples, seen)}
    lost = recorded is not None and not reproduced(recorded, figures["validation"])
    if lost and len(test):
        figures["test"] = ndcg_per_example(scorer, bundle, test, seen)
    measured = figures if "test" in figures else None
    selection = audit_selection(run.record, read_curve(run.folder), recorded, measured)
    if any(problem.name == "selected-on-test" for problem in selection):
        return selection
    return selection + audit_table(scorer, bundle, examples, recorded, seen, figures["validation"])


def _of_evaluation(subject: Subject, evaluation: Evaluation, split: Split) -> Iterator[Step]:
    record, bundle = evaluation.record, subject.bundle
    foreign = audit_record(record, bundle, evaluation.folder / RUN_FILE)
    yield "provenance of the evaluation", lambda: foreign
    if not foreign:
        for part in evaluation.parts:
            yield f"ranks, {part}", lambda part=part: _part(subject, evaluation, split, part)  # type: ignore[misc]


def _part(subject: Subject, evaluation: Evaluation, split: Split, part: str) -> list[Finding]:
    bundle, protocol = subject.bundle, evaluation.record["protocol"]
    ranks, examples = evaluation.ranks(part), split.examples(bundle, part)
    full, seen = protocol["candidates"] == "full", bool(protocol["filter_seen"])
    recomputed = None
    if full and subject.run is not None:
        recomputed = recompute(SequentialScorer(subject.run.student()), bundle, examples, seen)
    findings = audit_ranks(ranks, bundle, split, part, seen, recomputed, full)
    drawn = evaluation.folder / CANDIDATES_FILE
    if drawn.is_file():
        findings += audit_candidates(read_part(drawn, part), ranks)
    return findings
