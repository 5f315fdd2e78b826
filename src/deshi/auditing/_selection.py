"""Checks of model selection by the run's record, its learning curve and its recorded figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import Floats
from deshi.auditing._finding import Finding, finding, location
from deshi.auditing._probe import AT
from deshi.auditing._table import tolerance
from deshi.configuration.run_folders import CURVE_FILE


def audit_selection(
    record: Mapping[str, Any],
    curve: pl.DataFrame | None,
    recorded: float | None = None,
    figures: Mapping[str, Floats] | None = None,
) -> list[Finding]:
    """Look for a model that was selected on the test part.

    Args:
        record: the run's ``run.json``: ``selected_on``, ``selected_epoch``.
        curve: its learning curve, a row an epoch.
        recorded: the validation NDCG@10 that the run has recorded.
        figures: NDCG@10 of every example of ``validation`` and ``test``, computed again from the selected weights.
    """
    by_record = str(record.get("selected_on", "validation")).partition("/")[0]
    if by_record != "validation":
        message = f"The run's record says that its {record.get('selected_epoch')} epochs were selected on {by_record}."
        where = [location(file="run.json", selected_on=record["selected_on"])]
        return [_on_test(message, where, curve, record)]
    if recorded is not None and figures is not None:
        findings = _by_figure(recorded, figures)
        if findings:
            return findings
    return _by_curve(curve, record) if curve is not None and curve.height else []


def _by_figure(recorded: float, figures: Mapping[str, Floats]) -> list[Finding]:
    """A figure of the test part that is recorded as validation's."""
    validation, test = (float(figures[part].mean()) for part in ("validation", "test"))
    close = min(tolerance(recorded, figures["test"]), 0.2 * abs(validation - test))
    if abs(recorded - test) > close or abs(recorded - validation) < tolerance(recorded, figures["validation"]):
        return []
    message = f"The figure that selected the model, recorded as validation ({recorded:.4f}), is the test part's."
    effect = f"NDCG@{AT} of the selected weights is {validation:.4f} on {len(figures['validation']):,} validation "
    effect += "examples and "
    effect += f"{test:.4f} on {len(figures['test']):,} test examples: the test figure is the best of many, not a test."
    fix = "Select on the validation part; look at test once, at the end."
    return [
        finding("selected-on-test", message, [location(file="metrics.json", recorded=f"{recorded:.6f}")], effect, fix)
    ]


def _by_curve(curve: pl.DataFrame, record: Mapping[str, Any]) -> list[Finding]:
    chosen = record.get("selected_epoch")
    validation = _best_epoch(curve, "validation/ndcg@10")
    test = _best_epoch(curve, "test/ndcg@10")
    if chosen is None or validation is None or chosen == validation:
        return []
    where = [location(file=CURVE_FILE, epoch=chosen), location(file=CURVE_FILE, epoch=validation)]
    if chosen == test:
        message = (
            f"Epoch {chosen} was selected: the best of {curve.height} on test; on validation it is epoch {validation}."
        )
        return [_on_test(message, where, curve, record)]
    values = dict(zip(curve["epoch"].to_list(), curve["validation/ndcg@10"].to_list(), strict=True))
    if chosen in values and values[chosen] is not None and values[chosen] >= values[validation]:
        return []
    message = f"Epoch {chosen} was selected, but of {curve.height} epochs the best on validation is {validation}."
    chosen_value = values.get(chosen) or float("nan")
    effect = f"Validation NDCG@{AT} is {chosen_value:.4f} there and {values[validation]:.4f} at the best."
    fix = "Keep the weights of the best validation, and write down which epoch they are of."
    return [finding("selected-epoch-not-best", message, where, effect, fix)]


def _best_epoch(curve: pl.DataFrame, column: str) -> int | None:
    if column not in curve.columns or not curve[column].drop_nulls().len():
        return None
    return int(curve["epoch"][int(curve[column].arg_max() or 0)])


def _on_test(what: str, where: list[str], curve: pl.DataFrame | None, record: Mapping[str, Any]) -> Finding:
    """With the effect as the curve shows it: the selected epoch's test figure against that of validation's best."""
    effect = "Not measured: the learning curve has no test column; the more epochs were tried, the more it flatters."
    if curve is not None and "test/ndcg@10" in curve.columns:
        values = dict(zip(curve["epoch"].to_list(), curve["test/ndcg@10"].to_list(), strict=True))
        best = _best_epoch(curve, "validation/ndcg@10")
        selected = values.get(record.get("selected_epoch"), np.nan)
        unbiased = values.get(best, np.nan)
        effect = f"Test NDCG@{AT} is {selected:.4f} for the selected epoch and {unbiased:.4f} for validation's best."
    elif curve is not None:
        effect = f"The best of {curve.height} epochs was picked by what should judge it. " + effect
    fix = "Select on the validation part; look at test once, at the end."
    return finding("selected-on-test", what, where, effect, fix)
