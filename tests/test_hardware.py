"""Choices by hardware: threads for free cores only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deshi import hardware


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores of PyTorch's choice, all free, and no limit; returns the folder of its files."""
    (tmp_path / "stat").write_text("")
    (tmp_path / "cgroup").write_text("1:cpu:/\n0::/mine/deeper\n")
    (tmp_path / "groups" / "mine" / "deeper").mkdir(parents=True)
    for name, path in (("_STAT", "stat"), ("_GROUPS", "cgroup"), ("_GROUP_ROOT", "groups")):
        monkeypatch.setattr(hardware, name, tmp_path / path)
    monkeypatch.setattr(hardware, "_MOST_THREADS", 4)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    busy(monkeypatch, 0, 0, 0, 0)
    return tmp_path


def busy(monkeypatch: pytest.MonkeyPatch, *shares: float) -> None:
    """Two samples of the cores' ticks between which each core was busy for its share of the time."""
    samples = iter([dict.fromkeys(range(4), (100, 900)), {}])
    after = {core: (100 + round(30 * (1 - share)), 930) for core, share in enumerate(shares)}
    monkeypatch.setattr(hardware, "_core_times", lambda: next(samples) or after)
    monkeypatch.setattr(hardware, "_SAMPLE_SECONDS", 0)


@pytest.mark.parametrize(
    ("shares", "free"),
    [((0, 0, 0, 0), 4), ((0.05, 0.05, 0, 0.03), 4), ((1, 0, 0, 0), 3), ((0.5, 0.5, 1, 0), 2), ((1, 1, 1, 1), 1)],
)
def test_busy_cores_get_no_thread(
    machine: Path, monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], free: int
) -> None:
    """A thread beside other work holds up all threads; the noise of an idle machine must not cost one."""
    busy(monkeypatch, *shares)
    assert hardware.free_cores() == free


@pytest.mark.parametrize(
    ("folder", "text", "free"),
    [("mine/deeper", "200000 100000", 2), ("mine", "150000 100000", 1), ("", "max 100000", 4), ("", "20000 100000", 1)],
)
def test_a_control_group_limits_the_threads(machine: Path, folder: str, text: str, free: int) -> None:
    """In a container with the time of two cores, threads for all of the machine's would be throttled."""
    (machine / "groups" / folder / "cpu.max").write_text(text)
    assert hardware.free_cores() == free


def test_without_ticks_the_load_of_the_last_minute_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS has no /proc/stat."""
    monkeypatch.setattr(hardware, "_core_times", dict)
    monkeypatch.setattr(hardware.os, "getloadavg", lambda: (2.9, 0.0, 0.0))
    assert hardware.free_cores() == 1
    (machine / "stat").write_text("cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 40 5 6 7 8 0 0\nintr 1\n")
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "_STAT", machine / "stat")
    assert hardware._core_times() == {1: (45, 72)}


def test_threads_that_somebody_chose_are_taken(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key, the variable and PyTorch's own function win over the measurement."""
    before = torch.get_num_threads()
    monkeypatch.setattr(hardware, "_chosen", {"threads": before})
    monkeypatch.setattr(hardware, "free_cores", lambda: 3)
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", str(before))
        assert hardware.set_threads(None) == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert hardware.set_threads(None) == 3
        torch.set_num_threads(2)
        assert hardware.set_threads(None) == 2
        assert hardware.set_threads(1) == 1
    finally:
        torch.set_num_threads(before)
