"""Refit of an earlier run: the run whose choice on validation a training takes over, checked against it."""

from __future__ import annotations

from typing import Any

from deshi.configuration.schemas import TrainingConfig
from deshi.configuration.validation import belongs_to, flatten, resolved
from deshi.data.bundle import Bundle
from deshi.runs import Run
from deshi.types import DeshiError

MAY_DIFFER = (
    "name", "resume", "paths", "data", "seed", "eval",
    "train.refit", "train.progress", "train.logger", "train.threads",
    "train.precision", "train.accelerator", "train.patience",
    "train.validate_every", "train.max_minutes", "train.devices", "train.nodes", "loss.chunk",
    "soft_labels", "distill.selection.student", "teacher.members", "teacher.student",
    "teacher.first",
)  # fmt: skip
"""Keys without effect on a training of so many epochs, and those that name other runs and stores, refitted by now."""


def refitted_run(cfg: TrainingConfig, bundle: Bundle) -> Run | None:
    """The finished run that ``train.refit`` names; None without a name.

    Raises:
        DeshiError: for a run that isn't finished, was made on other data or by other keys, was refitted itself,
            has chosen by figures of trained events, or was cross-fitted.
    """
    if not isinstance(cfg.train.refit, str):
        return None
    run = Run.open(cfg.train.refit, cfg.paths, (cfg.stage,))
    run.check_same_data(bundle)
    if run.stage != cfg.stage:
        raise _refusal(run, f"is a run of deshi {run.stage}, expected one of deshi {cfg.stage}. Give such a run")
    train = run.config.train
    if train.refit:
        advice = f"Give the run that selected: train.refit={train.refit}" if train.refit is not True else "Give one"
        raise _refusal(run, f"was refitted itself, expected a run with train.refit=false. {advice}")
    if train.train_targets == "including_validation":
        raise _refusal(run, "selected its epochs on events that it was trained on. Train it with train_targets=train")
    if run.record.get("cross_fit"):
        raise _refusal(run, f"holds {run.record['cross_fit']} networks of parts of the users, expected one network")
    differing = differing_keys(cfg, run.config)
    if differing:
        raise _refusal(
            run,
            f"was trained by other keys than this run: {'; '.join(differing)}. Give this run the keys of that one, or "
            "select anew with these",
        )
    _check_members(cfg, run)
    return run


def _check_members(cfg: TrainingConfig, run: Run) -> None:
    """The members of a refitted ensemble are the refits of the selected ensemble's members, in their order."""
    here, there = (getattr(config, "teacher", {}).get("members") or [] for config in (cfg, run.config))
    if len(here) != len(there):
        raise _refusal(run, f"has the members {', '.join(there)}, expected their {len(there)} refits, got {len(here)}")
    for member, selected in zip(here, there, strict=True):
        refit = Run.open(member, cfg.paths)
        if not refit.is_refitted or refit.selected_run.name != Run.open(selected, run.paths).name:
            raise _refusal(
                run,
                f"has the member {selected}, but here {member} stands in its place, which is no refit of it. Train one "
                f"with train.refit={selected} and name it in teacher.members",
            )


def differing_keys(cfg: TrainingConfig, selected: TrainingConfig) -> list[str]:
    """What the refit of a run may not change, ``key is A, but B here`` each."""
    here, there = (_deciding(config) for config in (cfg, selected))
    return [
        f"{key} is {there.get(key, 'absent')}, but {here.get(key, 'absent')} here"
        for key in {**there, **here}
        if there.get(key) != here.get(key)
    ]


def _deciding(cfg: TrainingConfig) -> dict[str, Any]:
    return {key: value for key, value in flatten(resolved(cfg)).items() if not belongs_to(key, MAY_DIFFER)}


def _refusal(run: Run, reason: str) -> DeshiError:
    return DeshiError(f"train.refit={run.name} {reason}.")
