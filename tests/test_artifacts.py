"""What every stage leaves behind."""

from __future__ import annotations

from pathlib import Path

from deshi.artifacts import new_run_folder


def test_run_folders_sort_in_the_order_of_their_making(tmp_path: Path) -> None:
    """The newest run is found by its name, also when a run takes less than a second."""
    made = [new_run_folder(tmp_path, "fit", name) for name in ("zebra", "ant")]
    assert sorted(path.name for path in made) == [path.name for path in made]
    assert made[0].name[:15] < made[1].name[:15] and all(path.is_dir() for path in made)
