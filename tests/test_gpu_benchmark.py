"""benchmarks/gpu.py, which is to run where a GPU is at hand, runs on this machine's CPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def test_the_script_for_gpus_runs_on_a_cpu(tmp_path: Path) -> None:
    """Whoever has a GPU has it for minutes: the script must not fail there for a reason that isn't the GPU's."""
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    result = script.Bench(str(tmp_path), "cpu", tiny=True, llm="none").run()
    assert [(row["stage"], row["epoch"]) for row in result["parity"]] == [
        ("fit", 1), ("fit", 2), ("distill", 1), ("distill", 2),
    ]  # fmt: skip
    assert all(row["difference"] == 0 for row in result["parity"]), "the CPU agrees with itself to the bit"
    assert [row["stage"] for row in result["speed"]] == ["fit", "distill"]
    assert all(row["positions_per_second"] > 0 for row in result["speed"])
    assert result["labels"][0]["rows_per_second"] > 0
    text = script.markdown(result)
    assert "Losses agree" in text and "positions per second" in text
