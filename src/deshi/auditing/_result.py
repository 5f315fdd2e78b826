"""Result of ``audit``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deshi.auditing._finding import SEVERITIES, Finding, exit_code
from deshi.auditing._pairwise import PairwiseEvidence
from deshi.auditing._probe import AT
from deshi.rendering import Block, Cell, Paragraph, Result, Row, Table, Tone, paragraphs

TONES: Mapping[str, Tone] = {"error": "alarm", "warning": "caution", "note": "info"}


@dataclass(frozen=True)
class Checked:
    """One part of an audit: what was looked at, for how long, and how many findings came of it."""

    what: str
    seconds: float
    findings: int


@dataclass(frozen=True)
class AuditResult(Result):
    """A finished audit.

    Attributes:
        folder: the run folder that it wrote.
        subject: the name of what was audited.
        findings: the worst first.
        checked: what was looked at, in order.
        metrics: recomputed figures with their intervals ``(mean, low, high)``; of a pair of files only.
        notes: sentences about what was assumed or could not be looked at.
        evidence: how far counts of item pairs go; of a data set only.
    """

    folder: Path
    subject: str
    findings: Sequence[Finding]
    checked: Sequence[Checked] = ()
    metrics: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    evidence: PairwiseEvidence | None = None

    @property
    def exit_code(self) -> int:
        """Of the command line: 1 if there is an error among the findings, else 0."""
        return exit_code(self.findings)

    @property
    def verdict(self) -> str:
        """One sentence."""
        counts = Counter(problem.severity for problem in self.findings)
        if not self.findings:
            return f"{self.subject}: nothing found."
        parts = [f"{counts[name]} {name}{'s' if counts[name] > 1 else ''}" for name in SEVERITIES if counts[name]]
        trust = "do not trust its figures before they are fixed" if counts["error"] else "no error"
        return f"{self.subject}: {', '.join(parts)}; {trust}."

    def blocks(self) -> list[Block]:
        """The findings, the figures, what was looked at, the verdict."""
        blocks: list[Block] = [_finding(finding) for finding in self.findings]
        if self.metrics:
            rows = [[metric, *(f"{value:.4f}" for value in values)] for metric, values in self.metrics.items()]
            blocks.append(Table("Computed again, with 95 % intervals", ["Metric", "Mean", "From", "To"], rows))
        if self.evidence is not None:
            blocks += [_evidence(self.evidence), *paragraphs(self.evidence.verdict)]
        if self.checked:
            rows = [[check.what, str(check.findings), f"{check.seconds:.1f}"] for check in self.checked]
            blocks.append(Table("What was looked at", ["Part", "Findings", "Seconds"], rows))
        verdict = Paragraph(self.verdict, "alarm" if self.exit_code else "good")
        return [*blocks, *paragraphs(*self.notes), verdict, Paragraph(f"Written to {self.folder}")]


def _finding(finding: Finding) -> Table:
    lines = {"what": finding.what, "where": "; ".join(finding.where), "effect": finding.effect, "fix": finding.fix}
    rows: list[Row] = [[Cell(label, bold=True), text] for label, text in lines.items() if text]
    return Table(f"{finding.severity}: {finding.name}", (), rows, align="ll", tone=TONES[finding.severity])


def _evidence(evidence: PairwiseEvidence) -> Table:
    ndcg = f"validation NDCG@{AT}"
    rows = [
        ["targets seen in training soon after the last item", f"{100 * evidence.after_last:.1f} %"],
        ["targets seen in training soon after any item that is read", f"{100 * evidence.after_any:.1f} %"],
        [f"popularity, {ndcg}", f"{evidence.popularity:.4f}"],
        [f"pairwise counts, {ndcg}", f"{evidence.pairwise:.4f}"],
    ]
    if evidence.student is not None:
        rows.append([f"plain student, {ndcg}", f"{evidence.student:.4f}"])
    return Table(f"Pairwise evidence, {evidence.targets:,} validation targets", (), rows, align="lr")
