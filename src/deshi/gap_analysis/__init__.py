"""Gap analysis: contributions to the difference of a metric between validation and test, and a verdict."""

from __future__ import annotations

from deshi.gap_analysis.analysis import GapAnalysis
from deshi.gap_analysis.probe import Metric, MetricProbe
from deshi.gap_analysis.result import Contribution, Counterfactual, GapResult, Step

__all__ = ["Contribution", "Counterfactual", "GapAnalysis", "GapResult", "Metric", "MetricProbe", "Step"]
