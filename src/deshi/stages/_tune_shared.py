"""One search on several machines: a study in a storage that all of them reach, whose trials are dealt out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deshi.data.freshness import differences
from deshi.data.sources.sql import hide_password
from deshi.types import DeshiError

HEARTBEAT, GRACE = 60, 300
"""Seconds between signs of life of a trial in a database, and after how many without one its worker counts as dead."""

ERROR, WORKER, RUN, EPOCHS, SECONDS = "error", "worker", "run", "epochs", "seconds"
"""What a trial carries: its failure, the run folder of the search that trains it, and what came of it."""

_REQUEST = "request"


def open_study(optuna: Any, storage: str, name: str, request: Mapping[str, Any], start: dict[str, Any] | None) -> Any:
    """The study of a search in a storage; the first worker creates it and enqueues ``start``.

    Args:
        optuna: the package.
        storage: an address of SQLAlchemy (``postgresql://...``, ``sqlite:///FILE``), or the path of a journal on a disk
            that all workers share.
        name: of the study.
        request: what all workers must agree on, JSON-able.
        start: values of the first trial, if there are any.

    Raises:
        DeshiError: if the storage can't be opened, or the study is that of another search.
    """
    from sqlalchemy.exc import SQLAlchemyError  # comes with Optuna

    try:
        opened = _storage(optuna, storage)
        study = optuna.create_study(storage=opened, study_name=name, direction="maximize")
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=opened, study_name=name)
    except (OSError, ImportError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _unreachable(storage, error) from error
    else:
        study.set_user_attr(_REQUEST, dict(request))
        if start is not None:
            study.enqueue_trial(start)
    changed = differences(study.user_attrs.get(_REQUEST, request), dict(request))
    if changed:
        raise DeshiError(
            f"The search {name} in {hide_password(storage)} is another one: {'; '.join(changed)}. Start all workers "
            "with the same command, or give this search a name of its own: name=NAME."
        )
    return study


def _storage(optuna: Any, address: str) -> Any:
    if "://" not in address:
        path = Path(address).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    url = address.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver of deshi[sql]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3)
        return optuna.storages.RDBStorage(
            url, heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=retry
        )


def _unreachable(storage: str, error: Exception) -> DeshiError:
    reason = hide_password(str(error)).splitlines()[0]
    return DeshiError(
        f"storage={hide_password(storage)} can't be opened ({reason}). Expected the path of a journal, sqlite:///FILE "
        "or postgresql://USER@HOST/DATABASE (which needs pip install 'deshi[sql]')."
    )


def taken(study: Any) -> list[Any]:
    """The trials that count: finished, failed by their values, or at work; not those whose worker died."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.name in ("COMPLETE", "RUNNING") or ERROR in trial.user_attrs]


def give_back(study: Any, worker: str) -> None:
    """Let the trials that a killed attempt of this worker was at be trained by whoever is free."""
    for trial in study.get_trials():
        if trial.state.name == "RUNNING" and trial.user_attrs.get(WORKER) == worker:
            study.tell(trial.number, state=type(trial.state).FAIL)
            if trial.params:
                study.enqueue_trial(trial.params)
