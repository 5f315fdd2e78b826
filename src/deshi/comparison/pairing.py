"""What must agree before figures may be compared, and the metrics of all models for the same users."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import Floats
from deshi.comparison.models import Group, Member, flatten
from deshi.metrics.ranking import example_ranks, metrics_per_example, read_metric
from deshi.runs import Evaluation
from deshi.types import ITEM, USER, DeshiError

KEYS = [USER, "example", ITEM]
ABSENT = "nothing"
HASH = re.compile(r"fingerprint$|sha256")
"""Fields whose values nobody reads to their end."""


def check_measured_alike(evaluations: Sequence[Evaluation]) -> None:
    """Refuse evaluations on other data or by another protocol.

    Raises:
        DeshiError: naming every field that differs, with its values and the evaluations that have them.
    """
    flat = _comparable([_measured_how(one) for one in evaluations])
    fields = list(dict.fromkeys(key for one in flat for key in one))
    differing = [key for key in fields if len({repr(one.get(key, ABSENT)) for one in flat}) > 1]
    if "data_fingerprint" not in differing:  # a folder that was renamed holds the same data
        differing = [key for key in differing if key != "data"]
    if len(differing) > 1:  # the fingerprint only repeats the fields
        differing = [key for key in differing if key != "protocol_fingerprint"]
    if differing:
        names = [one.folder.name for one in evaluations]
        lines = "\n".join(f"  {key}: {_values(key, flat, names)}" for key in differing)
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
    frames = [[_ranks(member, part) for member in one.members] for one in groups]
    wanted, first = frames[0][0], groups[0].first
    for one, its_frames in zip(groups, frames, strict=True):
        for member, frame in zip(one.members, its_frames, strict=True):
            _check_same_users(first.evaluation, wanted, member.evaluation, frame)
    return [np.stack([_values_of(frame, checked) for frame in its_frames]) for its_frames in frames]


def _measured_how(evaluation: Evaluation) -> dict[str, Any]:
    record = evaluation.record
    alike = {"data": record.get("data"), "data_fingerprint": record.get("data_fingerprint")}
    protocol = flatten({"protocol": record.get("protocol") or {}})
    return {**alike, **protocol, "protocol_fingerprint": record.get("protocol_fingerprint")}


def _comparable(flat: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fields below one that is plain elsewhere put together: candidates are ``full`` in A, ``kind=llara ...`` in B."""
    plain = {key for one in flat for key in one}
    joined = [key for key in plain if any(other.startswith(f"{key}.") for other in plain)]
    return [_joined(one, joined) for one in flat]


def _joined(one: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    found = dict(one)
    for key in keys:
        own = {name.removeprefix(f"{key}."): found.pop(name) for name in one if name.startswith(f"{key}.")}
        if own:
            found[key] = " ".join(f"{name}={value}" for name, value in own.items() if not name.startswith("sha256"))
    return found


def _values(key: str, flat: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """``True in A, False in B``."""
    owners: dict[str, list[str]] = {}
    for one, name in zip(flat, names, strict=True):
        value = one.get(key, ABSENT)
        shown = str(value) if isinstance(value, str) else repr(value)
        owners.setdefault(shown[:16] if HASH.search(key) else shown, []).append(name)
    return ", ".join(f"{value} in {_few(who)}" for value, who in owners.items())


def _few(names: Sequence[str]) -> str:
    shown = " and ".join(names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"


def _ranks(member: Member, part: str) -> pl.DataFrame:
    """The member's ranks, whole.

    Raises:
        DeshiError: if the part was not evaluated, or ranks have been lost or spoilt since.
    """
    evaluation, baseline = member.evaluation, member.baseline
    found = evaluation.baseline_ranks(baseline, part) if baseline else evaluation.ranks(part)
    metrics = evaluation.baselines[baseline] if baseline else evaluation.metrics
    examples, wrong = metrics.get(f"{part}/n_examples"), found.filter(~(pl.col("rank") >= 1) | pl.col("rank").is_nan())
    if wrong.height or (examples is not None and found["example"].n_unique() != examples):
        raise DeshiError(
            f"The stored ranks of {member.ranker} in {evaluation.folder} are damaged: {found['example'].n_unique():,} "
            f"examples on {part}, {wrong.height:,} ranks below 1 or NaN, but its figures are means over "
            f"{examples or found['example'].n_unique():,.0f} examples. deshi audit says more; run deshi evaluate again."
        )
    return found.select(*KEYS, "rank").sort(KEYS)


def _check_same_users(first: Evaluation, wanted: pl.DataFrame, other: Evaluation, found: pl.DataFrame) -> None:
    if found.select(KEYS).equals(wanted.select(KEYS)):
        return
    missing = sorted(set(wanted[USER]) - set(found[USER]))
    extra = sorted(set(found[USER]) - set(wanted[USER]))
    if missing or extra:
        raise DeshiError(
            f"{first.folder.name} has {len(missing)} users that {other.folder.name} lacks{_example(missing)}, "
            f"and lacks {len(extra)} that it has{_example(extra)}: figures over other users can't be compared. "
            f"Run deshi evaluate again for both, with one split."
        )
    raise DeshiError(
        f"{first.folder.name} and {other.folder.name} have the same users but asked for other targets. "
        f"Run deshi evaluate again for both, with one split."
    )


def _example(users: Sequence[str]) -> str:
    return f" (e.g. user_id {users[0]})" if users else ""


def _values_of(frame: pl.DataFrame, metrics: Sequence[tuple[str, int]]) -> Floats:
    """``(users, metrics)``; a user's examples stand together, as the frame is sorted."""
    examples = frame.select(pl.struct(USER, "example").rle_id())[USER].to_numpy()
    grouped = example_ranks(frame["rank"].to_numpy(), examples)
    found = metrics_per_example(grouped, sorted({k for _, k in metrics}))
    return np.stack([found[f"{name}@{k}"] for name, k in metrics], axis=1)
