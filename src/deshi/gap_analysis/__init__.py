"""Gap analysis: contributions to the difference of a metric between validation and test, and a verdict."""

from __future__ import annotations

from deshi.gap_analysis._analysis import GapAnalysis
from deshi.gap_analysis._probe import Metric, MetricProbe
from deshi.gap_analysis._result import Contribution, Counterfactual, GapResult, Step

__all__ = ["Contribution", "Counterfactual", "GapAnalysis", "GapResult", "Metric", "MetricProbe", "Step"]
