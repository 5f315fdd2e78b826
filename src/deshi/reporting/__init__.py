"""One HTML page about finished evaluations, with its figures as files."""

from deshi.reporting._content import Content, collect, find_runs
from deshi.reporting._result import ReportResult

__all__ = ["Content", "ReportResult", "collect", "find_runs"]
