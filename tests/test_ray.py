"""Work of a Ray cluster of two nodes: what is written is that of one process, whatever dies meanwhile."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import deshi
from deshi.artifacts import read_json
from deshi.cluster import Cluster
from deshi.configuration.schemas import RayConfig
from deshi.data.bundle import Bundle
from deshi.models.scorers import Scorer
from deshi.soft_labels import Histories, Labeller, write_soft_labels
from deshi.soft_labels._progress import Progress
from deshi.soft_labels._working_folder import working_path
from deshi.teachers import _embedding
from deshi.teachers._embedding import embed
from deshi.teachers.encoders import SentenceEncoder
from deshi.types import DeshiError
from hashed_scorer import META, Hashed, sasrec, shop
from mortal_scorers import Broken, Faulty, Mortal, Slow
from ray_cluster import TESTS, TwoNodes, two_nodes
from tiny_exports import serving

__all__ = ["serving", "two_nodes"]


def export(
    bundle: Bundle,
    folder: Path,
    scorer: Scorer,
    settings: RayConfig | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    labeller = Labeller(scorer, Histories.of(bundle), 5, batch=4)
    rows = np.arange(bundle.n_interactions)

    def write(cluster: Cluster | None) -> None:
        write_soft_labels(labeller, rows, folder, teacher=META, shard_rows=8, progress=progress, cluster=cluster)

    if settings is None:
        return write(None)
    with Cluster(settings) as cluster:
        write(cluster)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a store but its times."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "time.json"}


def test_the_store_is_that_of_one_process(two_nodes: TwoNodes, tmp_path: Path) -> None:
    """A network that is asked for whole histories at once travels to the workers with its weights."""
    bundle = shop(tmp_path, users=60)
    export(bundle, tmp_path / "local", sasrec(bundle.n_items, 8))
    export(bundle, tmp_path / "ray", sasrec(bundle.n_items, 8), two_nodes.settings)
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_a_killed_node_costs_its_shards_only(two_nodes: TwoNodes, tmp_path: Path) -> None:
    """Its tasks and the results that lay on it are made again elsewhere; the others are not."""
    bundle = shop(tmp_path, users=60)
    export(bundle, tmp_path / "local", Hashed(bundle.n_items))
    moments: list[Progress] = []
    with two_nodes.killer() as kill:

        def progress(now: Progress) -> None:
            moments.append(now)
            if now.done > 150:
                kill()

        export(bundle, tmp_path / "ray", Slow(bundle.n_items), two_nodes.settings, progress)
    assert moments[-1].done == bundle.n_interactions and len(moments) > 10
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_a_killed_worker_costs_its_shard_only(two_nodes: TwoNodes, tmp_path: Path) -> None:
    """As when the memory of a node runs out."""
    bundle = shop(tmp_path, users=20)
    export(bundle, tmp_path / "local", Hashed(bundle.n_items))
    export(bundle, tmp_path / "ray", Mortal(bundle.n_items, tmp_path / "died"), two_nodes.settings)
    assert (tmp_path / "died").exists()
    assert content(tmp_path / "ray") == content(tmp_path / "local")


@pytest.mark.slow
def test_a_shard_that_always_kills_its_worker_ends_the_command(two_nodes: TwoNodes, tmp_path: Path) -> None:
    """It must not be tried for ever; the shards before the deadly one stay written."""
    bundle = shop(tmp_path, users=20)
    with pytest.raises(DeshiError, match=r"given up after 6 tries.*ray\.cpus=4"):
        export(bundle, tmp_path / "never", Mortal(bundle.n_items, tmp_path / "died", True), two_nodes.settings)
    assert read_json(working_path(tmp_path / "never") / "progress.json")["shards_done"] > 0


SCRIPT = """
import sys
from pathlib import Path
from deshi.configuration.schemas import RayConfig
from deshi.data.bundle import Bundle
from mortal_scorers import Slow
from test_ray import export
bundle = Bundle.load(sys.argv[1])
export(bundle, Path(sys.argv[2]), Slow(bundle.n_items), RayConfig(address=sys.argv[3]))
"""


def test_a_killed_command_goes_on_after_its_last_shard(two_nodes: TwoNodes, tmp_path: Path) -> None:
    """SIGKILL of the process that writes; the workers of a cluster don't outlive it, and the shards do."""
    bundle = shop(tmp_path, users=80)
    export(bundle, tmp_path / "local", Hashed(bundle.n_items))
    words = [sys.executable, "-c", SCRIPT, str(bundle.path), str(tmp_path / "ray"), two_nodes.address]
    process = subprocess.Popen(words, cwd=TESTS, env=os.environ)
    state, deadline = working_path(tmp_path / "ray") / "progress.json", time.monotonic() + 60
    while not (state.is_file() and read_json(state)["shards_done"] >= 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    moments: list[Progress] = []
    export(bundle, tmp_path / "ray", Hashed(bundle.n_items), two_nodes.settings, moments.append)
    assert moments[0].done > 5 * 8 - 14, "finished shards were ranked again"
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_errors_arrive_as_they_would_from_one_process(two_nodes: TwoNodes, tmp_path: Path) -> None:
    """What a teacher did wrong is a sentence; a bug is named with its type; neither is a wall of frames."""
    bundle = shop(tmp_path)
    with pytest.raises(DeshiError) as local:
        export(bundle, tmp_path / "a", Broken(bundle.n_items))
    with pytest.raises(DeshiError) as error:
        export(bundle, tmp_path / "b", Broken(bundle.n_items), two_nodes.settings)
    assert str(error.value) == str(local.value)
    with pytest.raises(DeshiError, match=r"A task on the Ray cluster failed with KeyError: 'weights'") as error:
        export(bundle, tmp_path / "c", Faulty(bundle.n_items), two_nodes.settings)
    assert "\n" not in str(error.value)


def test_recommendations_are_those_of_one_process(
    two_nodes: TwoNodes, serving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle's files travel to the workers; the file that is written is the same to the byte."""
    monkeypatch.setattr("deshi.stages._recommend.CHUNK", 8)
    rows = [(user, str(item)) for user in range(60) for item in range(1 + user % 5, 40, 1 + user % 7)]
    pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").write_csv(tmp_path / "events.csv")
    options: dict[str, Any] = {"bundle": str(serving), "input": str(tmp_path / "events.csv"), "k": 5, "threads": 1}
    local = deshi.recommend(output=str(tmp_path / "local.parquet"), **options)
    ray = deshi.recommend(output=str(tmp_path / "ray.parquet"), engine="ray", **options)
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    assert (ray.users, ray.rows, ray.short_users) == (local.users, local.rows, local.short_users)
    assert ray.users == 60


def test_texts_are_encoded_as_by_one_process(
    two_nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that an earlier call has finished are taken up; the cache's file is the same to the byte."""
    monkeypatch.setattr(_embedding, "SHARD", 4)
    importlib.import_module("teachers.tiny_models").write_tiny_bert(tmp_path / "bert")
    encoder, texts = SentenceEncoder(str(tmp_path / "bert")), [f"star wars {'the ' * n}heat" for n in range(11)]
    local = embed(texts, encoder, tmp_path / "local")
    assert torch.equal(embed(texts, encoder, tmp_path / "ray", ray=two_nodes.settings), local)
    [file] = (tmp_path / "local" / "embeddings").glob("*.safetensors")
    assert (tmp_path / "ray" / "embeddings" / file.name).read_bytes() == file.read_bytes()
