"""Which evaluations are one model, what a model is called, and how a baseline is named."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deshi.comparison._models import find_model, group, named
from deshi.configuration.schemas import PathsConfig
from deshi.configuration.validation import flatten
from deshi.runs import Evaluation, find_evaluations
from deshi.types import DeshiError
from evaluation_folders import SASREC, write_evaluation

RANKS = [1, 2, 3]


def sasrec(**changes: Any) -> dict[str, Any]:
    return {**SASREC, "student": {**SASREC["student"], **changes}}


def names_of(evaluations: list[Evaluation], **options: Any) -> list[str]:
    return [model.name for model in named(group(evaluations, **options)[0])]


def test_runs_that_differ_only_in_the_seed_are_one_model(tmp_path: Path) -> None:
    """Name, paths, progress bar, threads and the data's location are no part of a model either."""
    first = write_evaluation(tmp_path, "a", RANKS, {**SASREC, "paths": {"root": "x"}, "data": {"name": "y"}}, seed=1)
    other = {**SASREC, "train": {**SASREC["train"], "progress": False, "threads": 1}}
    (model,), notes = group([first, write_evaluation(tmp_path, "b", RANKS, other, seed=2)])
    assert [member.seed for member in model.members] == [1, 2] and notes == []
    assert names_of([first]) == ["sasrec"]


def test_names_show_what_differs(tmp_path: Path) -> None:
    """A name that a reader can't map to a configuration is no name; what is the same in all is noise."""
    runs = [
        write_evaluation(tmp_path, "a", RANKS, sasrec(dim=64)),
        write_evaluation(tmp_path, "b", RANKS, sasrec(dim=32)),
        write_evaluation(tmp_path, "c", RANKS, sasrec(dim=99), student="gru4rec"),
    ]
    assert names_of(runs) == ["sasrec dim=64", "sasrec dim=32", "gru4rec"]


def test_another_loss_is_shown_by_its_name(tmp_path: Path) -> None:
    """The arguments of different classes differ all by themselves."""
    losses = [
        {"_target_": "deshi.losses.softmax.Softmax", "chunk": 512},
        {"_target_": "deshi.losses.gbce.GBCE", "t": 0.5},
    ]
    runs = [write_evaluation(tmp_path, f"{n}", RANKS, {**SASREC, "loss": loss}) for n, loss in enumerate(losses)]
    assert names_of(runs) == ["sasrec loss=Softmax", "sasrec loss=GBCE"]
    third = write_evaluation(tmp_path, "2", RANKS, {**SASREC, "loss": {**losses[1], "t": 0.7}})
    assert names_of([*runs, third])[1:] == ["sasrec loss=GBCE t=0.5", "sasrec loss=GBCE t=0.7"]


def test_keys_that_end_alike_are_written_out(tmp_path: Path) -> None:
    """`size=1 size=2` would not say which size."""
    runs = [
        write_evaluation(tmp_path, name, RANKS, {"student": {"size": size}, "loss": {"size": -size}})
        for name, size in (("a", 1), ("b", 2))
    ]
    assert names_of(runs) == ["sasrec student.size=1 loss.size=-1", "sasrec student.size=2 loss.size=-2"]


def test_many_differences_are_shown_as_far_as_needed(tmp_path: Path) -> None:
    """Two presets may differ in twenty keys; the whole configuration is in comparison.json."""
    keys = [f"k{n}" for n in range(9)]
    runs = [
        write_evaluation(tmp_path, "a", RANKS, {"train": dict.fromkeys(keys, 0)}),
        write_evaluation(tmp_path, "b", RANKS, {"train": dict.fromkeys(keys, 1)}),
        write_evaluation(tmp_path, "c", RANKS, {"train": {**dict.fromkeys(keys, 0), "k8": 1}}),
    ]
    names = names_of(runs)
    assert names_of(runs[:2])[0] == "sasrec k0=0 k1=0 k2=0 k3=0"
    assert len(set(names)) == 3 and names[2].endswith("k8=1")


def test_every_run_alone(tmp_path: Path) -> None:
    """Seeds can be told apart on request, and repetitions of a seed by their folder."""
    runs = [write_evaluation(tmp_path, f"run{n}", RANKS, SASREC, seed=seed) for n, seed in enumerate((0, 1, 1))]
    assert names_of(runs, each_run=True) == ["sasrec seed=0", "sasrec seed=1 (run1)", "sasrec seed=1 (run2)"]


def test_repetitions_are_named_once(tmp_path: Path) -> None:
    """A run counted twice would halve the spread over seeds."""
    old = write_evaluation(tmp_path, "old", RANKS, SASREC)
    again = write_evaluation(tmp_path, "one", RANKS, SASREC, run=old.record["run"])
    (model,), (note,) = group([again, old])
    assert [member.evaluation for member in model.members] == [again] and "old and one are of one run" in note
    (model,), (note,) = group([old, write_evaluation(tmp_path, "two", RANKS, SASREC)])
    assert model.first.evaluation.folder.name == "two" and "one configuration and the seed 0" in note


def test_a_run_whose_folder_is_gone_is_told_by_its_record(tmp_path: Path) -> None:
    """Checkpoints are deleted, evaluations are kept."""
    fits = [{"student": "sasrec", "seed": n, "selected_epoch": n, "parameters": 9} for n in range(2)]
    runs = [write_evaluation(tmp_path, f"{n}", RANKS, fit=fit) for n, fit in enumerate(fits)]
    other = write_evaluation(tmp_path, "2", RANKS, fit={**fits[0], "parameters": 7})
    assert names_of([*runs, other]) == ["sasrec parameters=9", "sasrec parameters=7"]


def test_a_folder_of_runs_may_have_moved(tmp_path: Path) -> None:
    """Runs are copied from a cluster: the path in run.json is then no longer theirs, but the run lies beside."""
    for name, dim in (("a", 64), ("b", 32)):
        write_evaluation(tmp_path / "far", name, RANKS, sasrec(dim=dim), run=f"/nowhere/runs/fit/{name}")
    shutil.move(tmp_path / "far", tmp_path / "near")
    paths = PathsConfig.model_validate({"root": str(tmp_path / "near")})
    assert names_of(find_evaluations(paths, ["*"])) == [
        "sasrec dim=64",
        "sasrec dim=32",
    ]


def test_baselines_come_last_and_once(tmp_path: Path) -> None:
    """They don't depend on the student, but they do on what the run was allowed to train on."""
    baselines: dict[str, Sequence[float]] = {"popularity": RANKS}
    runs = [
        write_evaluation(tmp_path, "a", RANKS, SASREC, seed=0, baselines=baselines),
        write_evaluation(tmp_path, "b", RANKS, SASREC, seed=1, baselines=baselines),
    ]
    assert names_of(runs) == ["sasrec"] and names_of(runs, with_baselines=True) == ["sasrec", "popularity"]
    refit = write_evaluation(
        tmp_path, "c", RANKS, SASREC, seed=2, baselines=baselines, fit={"student": "sasrec", "seed": 2, "refit": True}
    )
    assert names_of([*runs, refit], with_baselines=True)[1:] == [
        "refitted sasrec",
        "popularity fitted_on=train", "popularity fitted_on=train and validation",
    ]  # fmt: skip
    assert "No baselines" in group([write_evaluation(tmp_path, "d", RANKS, SASREC)], True)[1][0]


def test_a_baseline_evaluated_alone_is_a_model(tmp_path: Path) -> None:
    """`deshi evaluate baseline=popularity` has no run and no seed."""
    alone = write_evaluation(tmp_path, "p", RANKS, student="popularity", run=None, fit=None)
    evaluated = write_evaluation(tmp_path, "a", RANKS, SASREC, baselines={"popularity": RANKS})
    assert names_of([alone, evaluated], with_baselines=True) == ["popularity", "sasrec"]


def test_names_of_ones_own(tmp_path: Path) -> None:
    """They must fit the models, or a table would call one by the other's name."""
    runs = [write_evaluation(tmp_path, f"{d}", RANKS, sasrec(dim=d), baselines={"ease": RANKS}) for d in (1, 2)]
    groups, _ = group(runs, with_baselines=True)
    assert [model.name for model in named(groups, ["small", "large"])] == ["small", "large", "ease"]
    with pytest.raises(DeshiError, match="1 entries, expected 2, for the models sasrec dim=1, sasrec dim=2"):
        named(groups, ["small"])
    for doubled in (["same", "same"], ["ease", "large"]):
        with pytest.raises(DeshiError, match="expected different ones"):
            named(groups, doubled)


def test_a_model_is_found_by_name_kind_or_run(tmp_path: Path) -> None:
    """Nobody types `sasrec dim=64` if there is a shorter name for it."""
    runs = [write_evaluation(tmp_path, f"run{d}", RANKS, sasrec(dim=d)) for d in (1, 2)]
    runs.append(write_evaluation(tmp_path, "g", RANKS, sasrec(), student="gru4rec"))
    groups = named(group(runs)[0])
    for text, label in (("sasrec dim=1", "sasrec dim=1"), ("run2", "sasrec dim=2"), ("gru4rec", "gru4rec")):
        assert find_model(groups, text) == label
    assert find_model(groups, str(runs[0].folder)) == find_model(groups, runs[0].record["run"]) == "sasrec dim=1"
    with pytest.raises(DeshiError, match="means 'sasrec dim=1' and 'sasrec dim=2'"):
        find_model(groups, "sasrec")
    with pytest.raises(DeshiError, match="against=gru4rek is no model of this comparison. Nearest .* gru4rec"):
        find_model(groups, "gru4rek")


def test_flatten_by_hand() -> None:
    """Lists and empty mappings are values."""
    assert flatten({"a": {"b": 1, "c": {"d": [1]}}, "e": {}}) == {"a.b": 1, "a.c.d": [1], "e": {}}


def test_a_distilled_student_is_called_so(tmp_path: Path) -> None:
    """The stores that it learnt from are long names, which say of no model what it is."""
    plain = write_evaluation(tmp_path, "a", RANKS, sasrec())
    fit = {"student": "sasrec", "seed": 0, "stage": "distill"}
    distilled = write_evaluation(tmp_path, "b", RANKS, {**sasrec(), "soft_labels": ["ensemble-x"]}, fit=fit)
    assert names_of([plain, distilled]) == ["sasrec", "distilled sasrec"]
