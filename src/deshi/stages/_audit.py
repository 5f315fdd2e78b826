"""The work of ``deshi audit``: checks of deshi's artifacts, or of a pair of files of any tool."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deshi.artifacts import write_json
from deshi.auditing import (
    AuditResult,
    Checked,
    Finding,
    Names,
    audit,
    audit_pair,
    audit_soft_labels,
    find_subject,
    in_order,
    pairwise_evidence,
)
from deshi.configuration.schemas import AuditConfig
from deshi.runs import finished_evaluations, whole_run, write_record

FINDINGS_FILE = "findings.json"
FILES = {"interactions": "interactions", "predictions": "predictions", "test": "test", "trained_on": "train"}
"""The keys of the files and what the audit of a pair calls them."""


def run(cfg: AuditConfig) -> AuditResult:
    """Audit what ``cfg`` names and write a run folder.

    Raises:
        DeshiError: if what is named is missing, unfinished or can't be read. What is wrong with it is a finding.
    """
    if cfg.interactions is not None and cfg.predictions is not None:
        return _pair(cfg, cfg.interactions, cfg.predictions)
    subject = find_subject(cfg)
    # The store comes first: it takes no time and may be a misspelt path.
    begin = time.perf_counter()
    problems = audit_soft_labels(cfg.soft_labels, subject.bundle) if cfg.soft_labels is not None else []
    seconds = time.perf_counter() - begin
    findings, checked = audit(subject)
    if cfg.soft_labels is not None:
        findings += problems
        checked.append(Checked("soft_labels", seconds, len(problems)))
    evidence = None
    if cfg.run is None:
        begin = time.perf_counter()
        evidence = pairwise_evidence(subject.bundle, subject.split, finished_evaluations(cfg.paths))
        checked.append(Checked("pairwise evidence", time.perf_counter() - begin, 0))
    record: dict[str, Any] = {
        "run": str(subject.run.folder) if subject.run else None,
        "data_fingerprint": subject.bundle.fingerprint,
        "evaluations": [str(evaluation.folder) for evaluation, _ in subject.evaluations],
    }
    with whole_run(cfg, "audit", subject.name) as folder:
        result = AuditResult(folder, subject.name, _distinct(findings), checked, notes=subject.notes, evidence=evidence)
        _write(result, record)
    return result


def _pair(cfg: AuditConfig, interactions: Path, predictions: Path) -> AuditResult:
    columns = cfg.columns.model_dump(exclude_none=True)
    files = {key: columns.pop(name) for name, key in FILES.items()}
    names = Names(**columns, files=files)
    audited = audit_pair(
        interactions, predictions, cfg.test, cfg.trained_on, names, cfg.claimed, cfg.ks, cfg.max_bad_rows
    )
    metrics = {name: (interval.mean, interval.low, interval.high) for name, interval in audited.metrics.items()}
    with whole_run(cfg, "audit", _plain(predictions)) as folder:
        result = AuditResult(folder, predictions.name, audited.findings, metrics=metrics, notes=audited.notes)
        _write(result, {"interactions": str(interactions), "predictions": str(predictions)})
    return result


def _distinct(findings: list[Finding]) -> list[Finding]:
    """The worst first; what two parts of the audit say in the same words is said once."""
    return in_order({(finding.name, finding.what): finding for finding in findings}.values())


def _plain(path: Path) -> str:
    return "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in path.name.partition(".")[0]) or "pair"


def _write(result: AuditResult, record: dict[str, Any]) -> None:
    write_json(result.folder / FINDINGS_FILE, [finding.to_json() for finding in result.findings])
    checked = [asdict(step) for step in result.checked]
    if result.evidence is not None:
        record = record | {"pairwise": asdict(result.evidence) | {"verdict": result.evidence.verdict}}
    common = {"stage": "audit", "subject": result.subject, "verdict": result.verdict, "exit_code": result.exit_code}
    more = {"checked": checked, "notes": list(result.notes), "metrics": dict(result.metrics)}
    write_record(result.folder, common | more | record)
