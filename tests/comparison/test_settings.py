"""Runs made of other runs: those of two seeds are one model if all that they are made of differs in the seed only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deshi.artifacts import write_json
from deshi.comparison._settings import settings_of
from deshi.configuration.validation import resolved
from deshi.stages import compose


def write_run(runs: Path, stage: str, name: str, record: dict[str, Any] | None = None, **config: Any) -> Path:
    folder = runs / stage / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(folder / "run.json", record or {})
    return folder


def family(runs: Path, day: int, seed: int, dim: int = 8, k: str = "lists-1") -> tuple[Path, Path]:
    """An ensemble and a student distilled from it, with what they draw on."""
    stamp = f"2025010{day}-000000"
    student = {"_target_": "deshi.models.sasrec.SASRec", "dim": dim}
    plain = write_run(runs, "fit", f"{stamp}_plain{seed}", student=student, seed=seed)
    node = {"_target_": "deshi.teachers.ensemble.Ensemble", "members": [plain.name, "elsewhere"]}
    both = write_run(runs, "teach", f"{stamp}_both{seed}", teacher=node, seed=seed)
    store = f"{both.name}_{k}-{stamp}"
    record = {"soft_labels": [{"store": store, "teacher": {"name": "ensemble", "run": both.name}}]}
    strategy = {"selection": {"_target_": "P", "student": plain.name}}
    pupil = write_run(
        runs,
        "distill",
        f"{stamp}_pupil{seed}",
        record,
        student=student,
        seed=seed,
        soft_labels=[store],
        distill=strategy,
    )
    return both, pupil


def test_seeds_of_ensembles_and_distilled_students_are_one_model(tmp_path: Path) -> None:
    """Their configurations name runs and stores, which are others for each seed."""
    first, second = family(tmp_path, 1, seed=0), family(tmp_path, 2, seed=1)
    for run, other in zip(first, second, strict=True):
        assert settings_of(run) == settings_of(other)


def test_other_origins_are_other_models(tmp_path: Path) -> None:
    """A member of another width, or lists that were asked for otherwise, and the runs must not be joined."""
    base, wider, other = (
        family(tmp_path, 1, seed=0), family(tmp_path, 2, seed=0, dim=16), family(tmp_path, 3, seed=0, k="lists-2")
    )  # fmt: skip
    assert settings_of(base[0]) != settings_of(wider[0]) and settings_of(base[1]) != settings_of(other[1])
    assert settings_of(base[0]) == settings_of(other[0])


def test_names_that_lead_nowhere_stay(tmp_path: Path) -> None:
    """A run that is gone can't be looked into."""
    both, _ = family(tmp_path, 1, seed=0)
    known, unknown = settings_of(both)["teacher.members"]
    assert unknown == "elsewhere" and known.startswith("sasrec-")


def test_how_a_run_was_computed_makes_no_other_model(tmp_path: Path) -> None:
    """The softmax's chunks change no result, nor does a limit of time that wasn't reached; one that was may have."""

    def settings(name: str, epochs: int, minutes: float, chunk: int | None) -> dict[str, Any]:
        train, loss = {"max_epochs": 10, "max_minutes": minutes}, {"_target_": "L", "chunk": chunk}
        return settings_of(write_run(tmp_path, "fit", name, {"trained_epochs": epochs}, train=train, loss=loss))

    assert settings("whole", 10, 30, 512) == settings("longer", 10, 60, None)
    assert settings("cut", 6, 30, None) != settings("cut-later", 9, 60, None)


def test_a_run_of_before_a_key_came_is_one_with_its_default(tmp_path: Path) -> None:
    """A new version's runs of further seeds join an older one's, or a table would show one model twice."""
    newer = {key: value for key, value in resolved(compose("fit", ["data=ml-100k"], {})).items() if key != "name"}
    older = newer | {"train": {key: value for key, value in newer["train"].items() if key != "sparse_table"}}
    other = newer | {"train": newer["train"] | {"sparse_table": True}}
    runs = [write_run(tmp_path, "fit", name, **cfg) for name, cfg in zip("abc", (newer, older, other), strict=True)]
    assert settings_of(runs[0]) == settings_of(runs[1]) != settings_of(runs[2])
