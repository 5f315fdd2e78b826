"""Connections to a Ray cluster that can't be made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deshi.cluster import Cluster
from deshi.configuration.needs import RAY
from deshi.configuration.schemas import RayConfig
from deshi.types import DeshiError


def test_no_cluster_and_no_ray_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing answers, and where the extra isn't installed."""
    with pytest.raises(DeshiError, match=r"ray\.address is 127\.0\.0\.1:1, but no Ray cluster answers there"):
        Cluster(RayConfig(address="127.0.0.1:1")).__enter__()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DeshiError, match=r"engine=ray needs: pip install 'deshi\[ray\]'"):
        Cluster(RayConfig()).__enter__()
    assert RAY.problem(Path()) is not None
