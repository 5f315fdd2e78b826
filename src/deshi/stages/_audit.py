"""The stage ``audit``: find what makes a figure wrong, on deshi's artifacts or on anybody's pair of files."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deshi.artifacts import environment, new_run_folder, write_json
from deshi.auditing.finding import Finding, in_order
from deshi.auditing.pair import audit_pair
from deshi.auditing.pair_reading import Names
from deshi.auditing.provenance import audit_soft_labels
from deshi.auditing.result import AuditResult, Checked
from deshi.auditing.run import audit
from deshi.auditing.subject import find_subject
from deshi.configuration.saved import save_config
from deshi.configuration.schemas import AuditConfig
from deshi.types import DeshiError

FINDINGS_FILE = "findings.json"


def run(cfg: AuditConfig) -> AuditResult:
    """Audit what ``cfg`` names and write a run folder.

    Raises:
        DeshiError: if what is named is missing, unfinished or can't be read. What is wrong with it is a finding.
    """
    if cfg.interactions is not None and cfg.predictions is not None:
        return _pair(cfg, cfg.interactions, cfg.predictions)
    _refuse_other_split(cfg)
    subject = find_subject(cfg)
    # first, as it takes no time and may be a path that was misspelt
    begin = time.perf_counter()
    known = audit_soft_labels(cfg.soft_labels, subject.bundle) if cfg.soft_labels is not None else []
    seconds = time.perf_counter() - begin
    findings, checked = audit(subject, cfg.max_positions)
    if cfg.soft_labels is not None:
        findings += known
        checked.append(Checked("soft_labels", seconds, len(known)))
    folder = new_run_folder(cfg.paths.runs, "audit", subject.name)
    result = AuditResult(folder, subject.name, _distinct(findings), checked, notes=subject.notes)
    fitted = subject.fitted
    record: dict[str, Any] = {
        "run": str(fitted.folder) if fitted else None,
        "data_fingerprint": subject.bundle.fingerprint,
        "evaluations": [str(one.folder) for one, _ in subject.evaluations],
    }
    _write(cfg, result, record)
    return result


def _pair(cfg: AuditConfig, interactions: Path, predictions: Path) -> AuditResult:
    names = Names(**cfg.columns.model_dump())
    found = audit_pair(
        interactions, predictions, cfg.test, cfg.trained_on, names, cfg.claimed, cfg.ks, cfg.max_bad_rows
    )
    metrics = {name: (one.mean, one.low, one.high) for name, one in found.metrics.items()}
    folder = new_run_folder(cfg.paths.runs, "audit", _plain(predictions))
    result = AuditResult(folder, predictions.name, found.findings, metrics=metrics, notes=found.notes)
    _write(cfg, result, {"interactions": str(interactions), "predictions": str(predictions)})
    return result


def _refuse_other_split(cfg: AuditConfig) -> None:
    given = [text for text in cfg.overrides if text.startswith("split")]
    if cfg.run is not None and given:
        raise DeshiError(f"The audit of a run uses the run's own split, but got {given[0]}. Leave it out, or the run.")


def _distinct(findings: list[Finding]) -> list[Finding]:
    """The worst first; what two parts of the audit say in the same words is said once."""
    return in_order({(one.name, one.what): one for one in findings}.values())


def _plain(path: Path) -> str:
    return "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in path.name.partition(".")[0]) or "pair"


def _write(cfg: AuditConfig, result: AuditResult, record: dict[str, Any]) -> None:
    save_config(result.folder, cfg)
    write_json(result.folder / "environment.json", environment())
    write_json(result.folder / FINDINGS_FILE, [one.to_json() for one in result.findings])
    checked = [asdict(one) for one in result.checked]
    common = {"stage": "audit", "subject": result.subject, "verdict": result.verdict, "exit_code": result.exit_code}
    more = {"checked": checked, "notes": list(result.notes), "metrics": dict(result.metrics)}
    write_json(result.folder / "run.json", common | more | record)
