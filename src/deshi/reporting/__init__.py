"""One HTML page about finished evaluations, with its figures as files."""

from deshi.reporting.content import Content, collect, find_runs
from deshi.reporting.result import ReportResult

__all__ = ["Content", "ReportResult", "collect", "find_runs"]
