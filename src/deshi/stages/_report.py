"""The work of ``deshi report``: one HTML file about finished evaluations, and its figures as files."""

from __future__ import annotations

from datetime import datetime, timezone

from deshi.artifacts import atomic_file
from deshi.configuration.schemas import ReportConfig
from deshi.reporting import ReportResult, collect, find_runs
from deshi.runs import whole_run, write_record
from deshi.types import DeshiError


def run(cfg: ReportConfig) -> ReportResult:
    """Write the report that ``cfg`` asks for.

    Raises:
        DeshiError: if a run isn't there, was not evaluated as asked, or the runs can't share a page.
    """
    if cfg.output is not None and cfg.output.is_dir():
        raise DeshiError(f"output={cfg.output} is a folder, expected a file. Say output={cfg.output / 'report.html'}.")
    runs = find_runs(cfg)
    with whole_run(cfg, "report", str(runs[0].record["data"])) as folder:
        content = collect(cfg, runs, folder / "figures")
        page = content.page(datetime.now(timezone.utc))
        targets = [folder / "report.html", *([cfg.output] if cfg.output else [])]
        for target in targets:
            with atomic_file(target) as path:
                path.write_text(page, encoding="utf-8")
        write_record(folder, {
            "stage": "report", "evaluations": [str(run.evaluation.folder) for run in runs],
            "data": runs[0].record["data"], "data_fingerprint": runs[0].record["data_fingerprint"],
            "warnings": list(content.warnings),
        })  # fmt: skip
        figures = sorted(path.stem for path in (folder / "figures").glob("*.svg"))
    return ReportResult(folder, targets[-1], figures, content.warnings)
