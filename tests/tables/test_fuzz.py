"""The fuzz of tables, two hundred of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_tables_lose_nothing(tmp_path: Path) -> None:
    """Tables of every form keep their rows, ids and times from the file to prepare and recommend, or are refused."""
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "benchmarks/fuzz_tables.py", "--tables", "200", "--first", "1000000", "--log", str(log)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"POLARS_MAX_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = json.loads(log.read_text().splitlines()[-1])
    assert (figures["tracebacks"], figures["losses"]) == (0, 0)
    assert figures["tables"] >= 200 and figures["checks"]["histories of recommend"] > 30
