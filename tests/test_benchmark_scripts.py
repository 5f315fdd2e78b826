"""Scripts of benchmarks/ that run rarely, on other machines or beside other libraries, still run."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_every_script_can_be_imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of deshi that is moved would break scripts that nobody runs for months."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    assert script_at(path).__doc__


def test_make_bench_runs_scripts_that_exist() -> None:
    named = re.findall(r"benchmarks/\S+\.py", (BENCHMARKS.parent / "Makefile").read_text(encoding="utf-8"))
    assert len(named) == 3
    assert all((BENCHMARKS.parent / script).is_file() for script in named), named


def test_the_script_for_gpus_runs_on_a_cpu(tmp_path: Path) -> None:
    """Whoever has a GPU has it for minutes: the script must not fail there for a reason that isn't the GPU's."""
    script = script_at(BENCHMARKS / "gpu.py")
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


def test_the_throughput_arm_counts_every_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deshi's arm of the comparison with other libraries: 30 users of 8 events train 5 positions each an epoch."""
    data = tmp_path / "events.tsv"
    rows = [f"u{user}\ti{(user + step) % 12}\t{step}" for user in range(30) for step in range(8)]
    data.write_text("\n".join(["user\titem\tposition", *rows]) + "\n")
    arm = BENCHMARKS / "peers" / "deshi_sasrec.py"
    monkeypatch.syspath_prepend(str(arm.parent))
    words = f"--data {data} --work {tmp_path} --seconds 0.1 --warmup-seconds 0 --threads 1 --dim 8 --max-length 10"
    monkeypatch.setattr(sys, "argv", [str(arm), *words.split()])
    script_at(arm).main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["targets"] == 30 * 5 * result["steps"], "one batch holds the epoch"
    assert result["positions_per_second"] == pytest.approx(result["targets"] / result["seconds"])


def test_the_speed_of_comparisons_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its evaluations are written by hand: they must have the form that `deshi compare` reads."""
    monkeypatch.setattr(sys, "argv", "compare_speed.py --models 3 --users 40 --permutations 100".split())
    assert script_at(BENCHMARKS / "compare_speed.py").main() == 0
    assert "3 models, 12 tests" in capsys.readouterr().out
