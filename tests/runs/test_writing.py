"""Run folders are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

import deshi


@pytest.mark.parametrize("stage", ["evaluate", "compare", "gap", "report", "audit"])
def test_a_full_disk_leaves_no_half_written_folder(
    finished_root: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A folder without its record would be taken for a result, or refused as a damaged one, by every later command."""

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run.json")

    monkeypatch.setattr(f"deshi.stages._{stage}.write_record", fail)
    before = set((finished_root / "runs").glob("*/*"))
    evaluations = [str(folder) for folder in (finished_root / "runs" / "evaluate").iterdir()]
    subject = {"runs": evaluations} if stage in ("compare", "report") else {"run": "tiny_seed0"}
    with pytest.raises(OSError, match="No space left"):
        getattr(deshi, stage)(f"paths.root={finished_root}", **subject)
    assert set((finished_root / "runs").glob("*/*")) == before
