"""The stage ``report``: one HTML file about finished evaluations, and its figures as files."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version

from deshi.artifacts import atomic_file
from deshi.configuration.schemas import ReportConfig
from deshi.reporting.content import collect, find_models
from deshi.reporting.page import render
from deshi.reporting.result import ReportResult
from deshi.runs import new_run, write_record
from deshi.types import DeshiError


def run(cfg: ReportConfig) -> ReportResult:
    """Write the report that ``cfg`` asks for.

    Raises:
        DeshiError: if a run isn't there, was not evaluated as asked, or the runs can't share a page.
    """
    if cfg.output is not None and cfg.output.is_dir():
        raise DeshiError(f"output={cfg.output} is a folder, expected a file. Say output={cfg.output / 'report.html'}.")
    models = find_models(cfg)
    folder = new_run(cfg, "report", str(models[0].record["data"]))
    content = collect(cfg, models, folder / "figures")
    page = render(content, version("deshi"), datetime.now(timezone.utc))
    targets = [folder / "report.html", *([cfg.output] if cfg.output else [])]
    for target in targets:
        with atomic_file(target) as path:
            path.write_text(page, encoding="utf-8")
    write_record(folder, {
        "stage": "report", "evaluations": [str(model.evaluation.folder) for model in models],
        "data": models[0].record["data"], "data_fingerprint": models[0].record["data_fingerprint"],
        "warnings": list(content.warnings),
    })  # fmt: skip
    figures = sorted(path.stem for path in (folder / "figures").glob("*.svg"))
    return ReportResult(folder, targets[-1], figures, content.warnings)
