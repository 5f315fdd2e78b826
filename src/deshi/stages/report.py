"""The command ``deshi report``."""

from __future__ import annotations

from deshi.configuration.schemas import ReportConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="report",
    schema=ReportConfig,
    work="deshi.stages._report:run",
    subject="runs",
    summary="one HTML page about finished evaluations",
    purpose="Writes a page that needs no network: intervals, learning curves, slices, validation against test,\n"
    "popularity, examples with titles, configurations; and every figure as SVG and PNG.",
    examples=(
        ("deshi report latest", "the newest evaluation"),
        ("deshi report latest examples=40 output=report.html", "more examples, and a copy of the page"),
    ),
)
