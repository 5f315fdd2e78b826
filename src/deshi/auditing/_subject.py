"""The subject of an audit: a data set and its split, and a run with its evaluations where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field

from deshi.configuration.run_folders import TRAINING_STAGES
from deshi.configuration.schemas import LEAVE_ONE_OUT, AuditConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.splits import Split
from deshi.runs import Evaluation, Run, load_bundle
from deshi.types import DeshiError


@dataclass(frozen=True, eq=False)
class Subject:
    """What ``deshi audit`` looks at.

    Attributes:
        name: for the run folder and the title.
        bundle: the data.
        split: of the run, or as configured.
        run: a finished training of one network, or None.
        evaluations: of the run, with the split of each.
        notes: sentences about what could not be looked at.
    """

    name: str
    bundle: Bundle
    split: Split
    run: Run | None = None
    evaluations: list[tuple[Evaluation, Split]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_subject(cfg: AuditConfig) -> Subject:
    """Load what ``cfg`` names. Whether run and data belong together is for the audit to say.

    Raises:
        DeshiError: if a run or bundle is missing or unfinished, with what to do.
    """
    if cfg.run is None:
        if cfg.data is None:
            raise DeshiError("There is nothing to audit: give a run, or data=NAME, e.g. data=ml-100k.")
        bundle = load_bundle(cfg.data.name, cfg.paths.data)
        return Subject(bundle.name, bundle, build(cfg.split or LEAVE_ONE_OUT)(bundle))
    stages = TRAINING_STAGES if cfg.run == "latest" else (*TRAINING_STAGES, "evaluate")
    run = Run.open(cfg.run, cfg.paths, stages)
    if run.stage not in TRAINING_STAGES:
        return _of_evaluation(cfg, Evaluation(run.folder, cfg.paths))
    return _of_training(cfg, run)


def _of_training(cfg: AuditConfig, run: Run) -> Subject:
    """A training with its newest evaluation, if it was evaluated."""
    _check_one_network(run)
    bundle = _bundle(cfg, run)
    newest = run.evaluations()[-1:]
    notes = [] if newest else [f"The run was not evaluated: no ranks to audit. Run: deshi evaluate run={run.folder}"]
    evaluations = [(evaluation, evaluation.split_of(bundle)) for evaluation in newest]
    return Subject(f"{bundle.name}_{run.record['model']}", bundle, run.split_of(bundle), run, evaluations, notes)


def _of_evaluation(cfg: AuditConfig, evaluation: Evaluation) -> Subject:
    """An evaluation with the training that it is of; a baseline has none."""
    recorded, run, notes = evaluation.record["run"], evaluation.run, []
    if recorded and run is None:
        notes.append(f"The run {recorded} is gone: its training ranges and weights could not be audited.")
    if evaluation.record.get("served"):
        notes.append("It is of a serving bundle: its ranks are audited, the bundle is not.")
        run = None
    if run is not None and not run.is_one_network:
        notes.append(f"The run {recorded} is no single network: its ranks are audited, its weights are not.")
        run = None
    bundle = _bundle(cfg, evaluation)
    split = evaluation.split_of(bundle)
    trained_split = split if run is None else run.split_of(bundle)
    name = f"{bundle.name}_{evaluation.record['model']}"
    return Subject(name, bundle, trained_split, run, [(evaluation, split)], notes)


def _bundle(cfg: AuditConfig, run: Run) -> Bundle:
    name = run.saved["data"]["name"] if cfg.data is None else cfg.data.name
    return load_bundle(str(name), *run.data_folders)


def _check_one_network(run: Run) -> None:
    record = run.record
    if not run.is_one_network:
        raise DeshiError(
            f"The run {run.folder} holds {record['model']}, which is no single network. Audit its evaluation "
            f"instead: deshi audit EVALUATION, after deshi evaluate run={run.folder}"
        )
