"""An export that was killed goes on where it was, and its result is that of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from deshi.data.bundle import Bundle
from deshi.models.scorers import Scorer
from deshi.soft_labels import Histories, Labeller, SoftLabels, _working_folder, write_soft_labels
from deshi.soft_labels._working_folder import working_path
from deshi.types import Batch, DeshiError
from hashed_scorer import META, Hashed, shop

TESTS = Path(__file__).parents[1]


def export(bundle: Bundle, folder: Path, scorer: Scorer | None = None, k: int = 5, force: bool = False) -> SoftLabels:
    rows = np.arange(bundle.n_interactions)
    scorer = scorer or Hashed(bundle.n_items)
    return write_soft_labels(
        Labeller(scorer, Histories.of(bundle), k, batch=4), rows, folder, teacher=META, shard_rows=8, force=force
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a store but its times."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    files.pop("time.json")
    return files


SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from deshi.data.bundle import Bundle
from hashed_scorer import Hashed
from test_resume import export

class Slow(Hashed):
    def scores(self, batch):
        time.sleep(0.05)
        return super().scores(batch)

bundle = Bundle.load(sys.argv[1])
export(bundle, Path(sys.argv[2]), Slow(bundle.n_items))
"""


def killed_in_the_middle(bundle: Bundle, folder: Path, shards: int) -> None:
    """Export in a process of its own and kill it (SIGKILL) after ``shards`` shards."""
    path = os.pathsep.join([str(TESTS), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(bundle.path), str(folder), str(TESTS)], env=environment)
    state = working_path(folder) / "progress.json"
    deadline = time.monotonic() + 120
    while not (state.is_file() and json.loads(state.read_text())["shards_done"] >= shards):
        assert process.poll() is None and time.monotonic() < deadline, "the export ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_export_goes_on_and_equals_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL leaves no moment to tidy up: what is on disk must be enough, whatever was half written."""
    bundle = shop(tmp_path, users=40)
    whole = export(bundle, tmp_path / "whole")
    folder = tmp_path / "killed" / "store"
    folder.parent.mkdir()
    killed_in_the_middle(bundle, folder, shards=3)
    assert not folder.exists()
    with pytest.raises(DeshiError, match="repeat the command that wrote it to go on"):
        SoftLabels.load(folder)
    scorer = Hashed(bundle.n_items)
    resumed = export(bundle, folder, scorer)
    assert 0 < len(scorer.asked) < bundle.n_interactions
    assert content(folder) == content(tmp_path / "whole")
    assert resumed.manifest == whole.manifest
    assert [path.name for path in folder.parent.iterdir()] == ["store"]


class Stops(Hashed):
    """Ends like a pressed Ctrl-C after some batches."""

    def __init__(self, n_items: int, after: int) -> None:
        super().__init__(n_items)
        self.left = after

    def scores(self, batch: Batch) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().scores(batch)


@pytest.mark.parametrize("after", [0, 1, 5, 11])
def test_every_place_of_interruption_gives_the_same_store(tmp_path: Path, after: int) -> None:
    """Before the first shard, inside of one and between two."""
    bundle = shop(tmp_path, users=20)
    export(bundle, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        export(bundle, tmp_path / "store", Stops(bundle.n_items, after))
    (working_path(tmp_path / "store") / ".progress.json.0a1b2c3d.tmp").mkdir()  # as a kill leaves it
    export(bundle, tmp_path / "store")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@pytest.mark.parametrize("step", ["manifest", "rename", "tidying"])
def test_an_end_between_the_last_steps_loses_nothing(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Manifest, rename and tidying are three steps: stopping before any of them must not cost the lists."""
    bundle = shop(tmp_path)
    export(bundle, tmp_path / "whole")
    write_json, replace_folder = _working_folder.write_json, _working_folder.replace_folder

    def write(path: Path, value: object) -> None:
        if step == "manifest" and path.name == "manifest.json":
            raise KeyboardInterrupt
        write_json(path, value)

    def replace(new: Path, target: Path) -> None:
        if step == "tidying":
            replace_folder(new, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_working_folder, "write_json", write)
        patch.setattr(_working_folder, "replace_folder", replace)
        export(bundle, tmp_path / "store")
    scorer = Hashed(bundle.n_items)
    export(bundle, tmp_path / "store", scorer)
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert scorer.asked == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "tiny", "whole"]


def test_an_unfinished_export_of_another_request_is_not_mixed_in(tmp_path: Path) -> None:
    """Half of one teacher and half of another would be a store that nobody could explain."""
    bundle = shop(tmp_path, users=20)
    with pytest.raises(KeyboardInterrupt):
        export(bundle, tmp_path / "store", Stops(bundle.n_items, 5))
    with pytest.raises(DeshiError, match=r"unfinished export.*k: 5 -> 6.*another name.*force=true"):
        export(bundle, tmp_path / "store", k=6)
    store = export(bundle, tmp_path / "store", k=6, force=True)
    assert not store.check(bundle).problems and store.k == 6


def test_two_processes_do_not_write_one_store(tmp_path: Path) -> None:
    """Both would count the other's shards as their own."""
    bundle = shop(tmp_path)
    place = working_path(tmp_path / "store")
    place.mkdir()
    with FileLock(place / "lock"), pytest.raises(DeshiError, match="Another process is writing store"):
        export(bundle, tmp_path / "store")
    export(bundle, tmp_path / "store")


def test_damaged_arrays_of_an_unfinished_export_are_named(tmp_path: Path) -> None:
    """A full disk leaves a short file; the message says which folder to delete."""
    bundle = shop(tmp_path, users=20)
    with pytest.raises(KeyboardInterrupt):
        export(bundle, tmp_path / "store", Stops(bundle.n_items, 5))
    file = working_path(tmp_path / "store") / "topk_items.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DeshiError, match=r"can't be read.*Delete .*\.store\.partial"):
        export(bundle, tmp_path / "store")
