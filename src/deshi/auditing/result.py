"""What the stage ``audit`` hands back, and how it looks in a terminal and in a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deshi.auditing.finding import SEVERITIES, Finding, exit_code
from deshi.data.rendering import Rendered

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True)
class Checked:
    """One part of an audit: what was looked at, for how long, and how many findings came of it."""

    what: str
    seconds: float
    findings: int


@dataclass(frozen=True)
class AuditResult(Rendered):
    """A finished audit.

    Attributes:
        folder: the run folder that it wrote.
        subject: the name of what was audited.
        findings: the worst first.
        checked: what was looked at, in order.
        metrics: recomputed figures with their intervals ``(mean, low, high)``; of a pair of files only.
        notes: sentences about what was assumed or could not be looked at.
    """

    folder: Path
    subject: str
    findings: Sequence[Finding]
    checked: Sequence[Checked] = ()
    metrics: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def exit_code(self) -> int:
        """Of the command line: 1 if there is an error among the findings, else 0."""
        return exit_code(self.findings)

    @property
    def verdict(self) -> str:
        """One sentence."""
        counts = Counter(one.severity for one in self.findings)
        if not self.findings:
            return f"{self.subject}: nothing found."
        parts = [f"{counts[name]} {name}{'s' if counts[name] > 1 else ''}" for name in SEVERITIES if counts[name]]
        trust = "do not trust its figures before they are fixed" if counts["error"] else "no error"
        return f"{self.subject}: {', '.join(parts)}; {trust}."

    def tables(self) -> Group:
        """The findings for a rich console."""
        shown: list[RenderableType] = [_panel(one) for one in self.findings]
        if self.metrics:
            shown.append(self._figures())
        if self.checked:
            shown.append(self._checked())
        shown += [Text(sentence) for sentence in self.notes]
        style = COLOURS["error"] if self.exit_code else "bold green"
        shown += [Text(self.verdict, style=style), Text(f"Written to {self.folder}")]
        return Group(*shown)

    def _checked(self) -> Table:
        table = Table(title="What was looked at", title_justify="left")
        table.add_column("Part")
        table.add_column("Findings", justify="right")
        table.add_column("Seconds", justify="right")
        for one in self.checked:
            table.add_row(one.what, str(one.findings), f"{one.seconds:.1f}")
        return table

    def _figures(self) -> Table:
        table = Table(title="Computed again, with 95 % intervals", title_justify="left")
        for name in ("Metric", "Mean", "From", "To"):
            table.add_column(name, justify="left" if name == "Metric" else "right")
        for metric, values in self.metrics.items():
            table.add_row(metric, *(f"{value:.4f}" for value in values))
        return table


def _panel(one: Finding) -> Panel:
    lines = Text()
    for label, content in (("", one.what), ("where", "; ".join(one.where)), ("effect", one.effect), ("fix", one.fix)):
        if content:
            lines.append(f"{label + ':':<8}" if label else "", style="bold").append(content + "\n")
    lines.rstrip()
    title = Text(f"{one.severity}: {one.name}", style=COLOURS[one.severity])
    return Panel(lines, title=title, title_align="left", border_style=COLOURS[one.severity])
