"""Finished evaluations side by side: intervals over users, paired tests, tables."""

from deshi.comparison._comparison import Comparison, Figure, Model, PairTest
from deshi.comparison._compute import compare_evaluations
from deshi.comparison._models import Group, Member, both_protocols, group, is_refitted, named
from deshi.comparison._output import figures_frame, tests_frame, write_comparison
from deshi.comparison._pairing import check_measured_alike
from deshi.comparison._result import CompareResult
from deshi.comparison._settings import settings_of
from deshi.comparison._tables import figure_cell, tables_of

__all__ = [
    "CompareResult",
    "Comparison",
    "Figure",
    "Group",
    "Member",
    "Model",
    "PairTest",
    "both_protocols",
    "check_measured_alike",
    "compare_evaluations",
    "figure_cell",
    "figures_frame",
    "group",
    "is_refitted",
    "named",
    "settings_of",
    "tables_of",
    "tests_frame",
    "write_comparison",
]
