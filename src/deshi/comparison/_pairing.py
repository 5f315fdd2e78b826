"""Metrics of all models for the same users, after a check that the evaluations were measured alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import Floats
from deshi.comparison._models import Group, Member
from deshi.configuration.validation import flatten
from deshi.evaluation import KEYS, example_values
from deshi.metrics import read_metric
from deshi.runs import Evaluation
from deshi.types import USER, DeshiError

ABSENT = "nothing"
HASH = re.compile(r"fingerprint$|sha256")
"""Fields whose values are shown shortened."""


def check_measured_alike(evaluations: Sequence[Evaluation]) -> None:
    """Refuse evaluations on other data or by another protocol.

    Raises:
        DeshiError: naming every field that differs, with its values and the evaluations that have them.
    """
    protocols = _comparable([_protocol(evaluation) for evaluation in evaluations])
    fields = list(dict.fromkeys(key for protocol in protocols for key in protocol))
    differing = [key for key in fields if len({repr(protocol.get(key, ABSENT)) for protocol in protocols}) > 1]
    if "data_fingerprint" not in differing:  # a folder that was renamed holds the same data
        differing = [key for key in differing if key != "data"]
    if len(differing) > 1:  # the fingerprint only repeats the fields
        differing = [key for key in differing if key != "protocol_fingerprint"]
    if differing:
        names = [evaluation.folder.name for evaluation in evaluations]
        lines = "\n".join(f"  {key}: {_values(key, protocols, names)}" for key in differing)
        raise DeshiError(
            f"These evaluations were not measured alike, so their figures can't be compared:\n{lines}\n"
            f"Name only those that were measured alike, or run deshi evaluate again for one side, with the data, "
            f"split, candidates and eval settings of the other."
        )


def per_user(groups: Sequence[Group], part: str, metrics: Sequence[str]) -> list[Floats]:
    """For each model the metrics of the same users in the same order, ``(members, users, metrics)``.

    Raises:
        DeshiError: if an evaluation lacks the part, or has other users or targets than the first one.
    """
    checked = [read_metric(metric, "metrics has") for metric in metrics]
    frames = [[_ranks(member, part) for member in model.members] for model in groups]
    for model, its_frames in zip(groups, frames, strict=True):
        for member, frame in zip(model.members, its_frames, strict=True):
            _check_same_users(groups[0].first.evaluation, frames[0][0], member.evaluation, frame)
    return [np.stack([example_values(frame, checked) for frame in its_frames]) for its_frames in frames]


def _protocol(evaluation: Evaluation) -> dict[str, Any]:
    """Data and protocol of an evaluation, flat."""
    record = evaluation.record
    return {
        "data": record.get("data"),
        "data_fingerprint": record.get("data_fingerprint"),
        **flatten({"protocol": record.get("protocol") or {}}),
        "protocol_fingerprint": record.get("protocol_fingerprint"),
    }


def _comparable(protocols: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fields below one that is plain elsewhere put together: candidates are ``full`` in A, ``kind=llara ...`` in B."""
    fields = {key for protocol in protocols for key in protocol}
    joined = [key for key in fields if any(other.startswith(f"{key}.") for other in fields)]
    return [_joined(protocol, joined) for protocol in protocols]


def _joined(protocol: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """``protocol`` with the fields below each of ``keys`` as one text; hashes of candidate sets are left out."""
    result = dict(protocol)
    for key in keys:
        below = {name.removeprefix(f"{key}."): result.pop(name) for name in protocol if name.startswith(f"{key}.")}
        if below:
            result[key] = " ".join(f"{name}={value}" for name, value in below.items() if not name.startswith("sha256"))
    return result


def _values(key: str, protocols: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """``True in A, False in B``."""
    owners: dict[str, list[str]] = {}
    for protocol, name in zip(protocols, names, strict=True):
        text = str(protocol.get(key, ABSENT))
        owners.setdefault(text[:16] if HASH.search(key) else text, []).append(name)
    return ", ".join(f"{value} in {_few(who)}" for value, who in owners.items())


def _few(names: Sequence[str]) -> str:
    shown = " and ".join(names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"


def _ranks(member: Member, part: str) -> pl.DataFrame:
    """The member's ranks, whole and sorted by user, example and item.

    Raises:
        DeshiError: if the part was not evaluated, or ranks have been lost or spoilt since.
    """
    evaluation, baseline = member.evaluation, member.baseline
    ranks = evaluation.baseline_ranks(baseline, part) if baseline else evaluation.ranks(part)
    metrics = evaluation.baselines[baseline] if baseline else evaluation.metrics
    wrong = ranks.filter(~(pl.col("rank") >= 1) | pl.col("rank").is_nan()).height
    n_examples = ranks["example"].n_unique()
    expected = metrics.get(f"{part}/n_examples", n_examples)
    if wrong or n_examples != expected:
        raise DeshiError(
            f"The stored ranks of {member.kind} in {evaluation.folder} are damaged: {n_examples:,} "
            f"examples on {part}, {wrong:,} ranks below 1 or NaN, but its figures are means over "
            f"{expected:,.0f} examples. deshi audit says more; run deshi evaluate again."
        )
    return ranks.select(*KEYS, "rank").sort(KEYS)


def _check_same_users(first: Evaluation, expected: pl.DataFrame, other: Evaluation, ranks: pl.DataFrame) -> None:
    if ranks.select(KEYS).equals(expected.select(KEYS)):
        return
    missing = sorted(set(expected[USER]) - set(ranks[USER]))
    extra = sorted(set(ranks[USER]) - set(expected[USER]))
    problem = f"{first.folder.name} and {other.folder.name} have the same users but other targets."
    if missing or extra:
        problem = (
            f"{first.folder.name} has {len(missing)} users that {other.folder.name} lacks{_example(missing)}, "
            f"and lacks {len(extra)} that it has{_example(extra)}: figures over other users can't be compared."
        )
    raise DeshiError(f"{problem} Run deshi evaluate again for both, with one split.")


def _example(users: Sequence[str]) -> str:
    return f" (e.g. user_id {users[0]})" if users else ""
