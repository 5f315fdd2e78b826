"""The loggers of curves: what they write and where, and what is said of a package that isn't there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import polars as pl
import pytest

from deshi.artifacts import read_json
from deshi.configuration.schemas import FitConfig
from deshi.configuration.validation import validate
from deshi.runs import Run
from deshi.training import fit
from deshi.types import DeshiError
from tiny_bundles import random_sequences, tiny_bundle


def trained(root: Path, logger: str, resume: str | None = None, **train: Any) -> Run:
    if not (root / "data").exists():
        tiny_bundle(root / "data", random_sequences(20, 15, 4, 9))
    values = {
        "data": {"name": "tiny", "source": {"_target_": "deshi.data.sources.tabular.Tabular", "path": "none.csv"}},
        "student": {"_target_": "deshi.models.sasrec.SASRec", "dim": 8, "max_length": 8, "heads": 1},
        "loss": {"_target_": "deshi.losses.softmax.Softmax"},
        "paths": {"root": str(root)},
        "train": {
            "max_epochs": 2, "threads": 1, "precision": "fp32", "progress": False, "accelerator": "cpu",
            "logger": logger, **train,
        },
        "resume": resume,
    }  # fmt: skip
    return fit.run(validate(FitConfig, values))


def test_curves_go_to_a_csv_file(tmp_path: Path) -> None:
    """The figures of epochs.csv, by step, and no TensorBoard beside them."""
    run = trained(tmp_path, "csv")
    curve = pl.read_csv(run.folder / "csv" / "select" / "metrics.csv")
    assert curve["validation/ndcg@10"].max() == pytest.approx(run.metrics["validation/ndcg@10"], rel=1e-6)
    assert not (run.folder / "tensorboard").exists()


@pytest.mark.parametrize("logger", ["mlflow", "wandb"])
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, logger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own message has no command that helps; nothing is left behind."""
    monkeypatch.setitem(sys.modules, logger, None)
    with pytest.raises(DeshiError, match=rf"train\.logger={logger} needs.*pip install 'deshi\[{logger}\]'"):
        trained(tmp_path, logger)
    assert not list((tmp_path / "runs").glob("fit/*"))


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """The address of a real server on this machine, without the workers of its jobs."""
    pytest.importorskip("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination",
        str(tmp_path / "art"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"{address}/health", server)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            urlopen(address, timeout=5)
            return
        except (URLError, OSError):
            assert server.poll() is None, "the server has ended"
            time.sleep(0.5)
    raise AssertionError("the server doesn't answer")


@pytest.mark.slow
def test_mlflow_gets_curves_and_configuration(
    tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real server; a run that is trained further goes on with the curves that it began."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "trial")
    run = trained(tmp_path, "mlflow")
    number = read_json(run.folder / "mlflow-select.json")["run_id"]

    def asked(path: str, **body: Any) -> Any:
        request = Request(f"{mlflow_server}/api/2.0/mlflow/{path}", method="POST" if body else "GET")
        request.add_header("Content-Type", "application/json")
        with urlopen(request, json.dumps(body).encode() if body else None, timeout=60) as answer:
            return json.load(answer)

    kept = asked(f"runs/get?run_id={number}")["run"]
    metrics = {metric["key"]: metric["value"] for metric in kept["data"]["metrics"]}
    assert metrics["validation/ndcg10"] == pytest.approx(read_curve(run)[-1], rel=1e-6)
    assert {"key": "train.logger", "value": "mlflow"} in kept["data"]["params"]
    assert kept["info"]["run_name"] == f"{run.name}-select"
    (run.folder / "metrics.json").unlink()
    trained(tmp_path, "mlflow", resume=str(run.folder))
    experiment = kept["info"]["experiment_id"]
    assert len(asked("runs/search", experiment_ids=[experiment])["runs"]) == 1


@pytest.mark.slow
def test_wandb_works_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, its files are in the run folder; the refit has a run of its own."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = trained(tmp_path, "wandb", refit=True)
    names = [path.name for path in sorted((run.folder / "wandb").glob("offline-run-*"))]
    assert [name.rpartition("-")[2] for name in names] == ["select", "refit"]


def read_curve(run: Run) -> list[float]:
    return pl.read_csv(run.folder / "epochs.csv")["validation/ndcg@10"].to_list()
