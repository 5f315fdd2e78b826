"""`_target_` nodes: arguments are checked by name and type before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch

from deshi.configuration.targets import ConfigError, build, check_node, complete, import_target, nearest, refusals
from deshi.types import DeshiError

HERE = "test_targets"


class Inner:
    def __init__(self, depth: int = 1) -> None:
        self.depth = depth


class Outer:
    def __init__(
        self, size: int, rate: float = 0.5, kind: Literal["a", "b"] = "a", shape: tuple[int, ...] = (1,),
        folder: Path | None = None, inner: Inner | None = None, parts: Sequence[Inner] = (), n_items: int = 0,
    ) -> None:  # fmt: skip
        self.size, self.rate, self.kind, self.shape = size, rate, kind, shape
        self.folder, self.inner, self.parts, self.n_items = folder, inner, parts, n_items


class Picky:
    """Refuses a depth below 1, before it looks at the items."""

    def __init__(self, n_items: int = 0, resources: object = None, depth: int = 1, inner: object = None) -> None:
        if depth < 1:
            raise DeshiError(f"Picky got depth={depth}, expected at least 1.")
        assert resources is not None and resources.vocabulary  # type: ignore[attr-defined]  # not before the work


class Anything:
    def __init__(self, **options: object) -> None:
        self.options = options


def node(**values: object) -> dict[str, object]:
    return {"_target_": f"{HERE}.Outer", **values}


def messages(values: dict[str, object], runtime: Sequence[str] = ()) -> list[str]:
    return [str(problem) for problem in check_node(values, runtime)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": "3"}, "size: got '3' (str), expected int."),
        ({"size": 3.5}, "size: got 3.5 (float), expected int."),
        ({"size": True}, "size: got True (bool), expected int."),
        ({"size": None}, "size: got null, expected int."),
        ({"size": 3, "rate": "fast"}, "rate: got 'fast' (str), expected float."),
        ({"size": 3, "kind": "c"}, "kind: got 'c' (str), expected one of a, b."),
        ({"size": 3, "shape": [1, "x"]}, "shape.1: got 'x' (str), expected tuple[int, ...]."),
        ({"size": 3, "inner": {"_target_": f"{HERE}.Inner", "depth": "deep"}}, "inner.depth: got 'deep' (str)"),
        ({"size": 3, "parts": [{"_target_": f"{HERE}.Inner", "dept": 1}]}, "parts.0.dept: unknown argument"),
        ({}, "size: is missing"),
    ],
)
def test_wrong_arguments_are_named_with_what_was_got_and_expected(values: dict[str, object], expected: str) -> None:
    """A wrong type that only fails inside training costs hours."""
    (message,) = messages(node(**values))
    assert message.startswith(expected)


def test_an_unknown_argument_names_the_nearest() -> None:
    """A typo must not be swallowed, and the right name should be at hand."""
    (message,) = messages(node(size=1, sise=2))
    assert message.startswith("sise: unknown argument") and "size" in message


def test_runtime_arguments_are_deshis() -> None:
    """The number of items comes from the bundle: a configuration that sets it would contradict the data."""
    assert messages(node(size=1), ["n_items"]) == []
    assert "supplied by deshi" in messages(node(size=1, n_items=5), ["n_items"])[0]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (f"{HERE}.Outr", "has no 'Outr'. Nearest valid names: Outer"),
        ("deshi.nowhere.Thing", "can't be imported"),
        ("Outer", "expected an import path"),
        (f"{HERE}.HERE", "expected a class"),
    ],
)
def test_a_target_that_cannot_be_imported_says_so(target: str, expected: str) -> None:
    """The path in the YAML is a string: nothing but this check tells that it is wrong."""
    with pytest.raises(DeshiError, match=expected.replace("(", r"\(")):
        import_target(target)


def test_a_node_without_a_target_is_refused() -> None:
    """`student.dim=3` over no student at all leaves such a node behind."""
    assert messages({"dim": 3})[0].startswith("_target_: got null")


def test_build_converts_as_annotated_and_supplies_what_the_target_takes() -> None:
    """YAML has no tuples and paths; and a target that needs no `n_items` must not be given one."""
    values = node(size=1, rate=1, shape=[2, 3], folder="x", inner={"_target_": f"{HERE}.Inner", "depth": 2})
    built = build(values, n_items=7, unused=1)
    assert (built.shape, built.folder, built.inner.depth, built.n_items) == ((2, 3), Path("x"), 2, 7)
    assert isinstance(built.rate, float)


def test_build_refuses_what_check_finds() -> None:
    """Built nodes were checked, also when they come from a hand-written configuration."""
    with pytest.raises(ConfigError, match="size: got 'x'"):
        build(node(size="x"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"depth": 0}, ["Picky got depth=0, expected at least 1."]),
        ({"inner": {"_target_": f"{HERE}.Picky", "depth": 0}}, ["inner: Picky got depth=0, expected at least 1."]),
        ({"inner": [{"_target_": f"{HERE}.Picky", "depth": 0}]}, ["inner.0: Picky got depth=0, expected at least 1."]),
        ({"depth": 2}, []),
    ],
)
def test_what_a_class_refuses_is_known_before_the_work(values: dict[str, object], expected: list[str]) -> None:
    """As far as the class comes without what deshi supplies; random numbers that it draws are put back."""
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    found = refusals({"_target_": f"{HERE}.Picky", **values}, ("n_items", "resources"))
    assert [str(problem) for problem in found] == expected
    assert torch.equal(before, torch.random.get_rng_state())
    student = {"_target_": "deshi.models.sasrec.SASRec", "heads": 3}
    assert "multiple of heads" in str(refusals(student, ("n_items",))[0])
    assert not refusals(student | {"heads": 2}, ("n_items",)) and torch.equal(before, torch.random.get_rng_state())


def test_targets_that_take_anything_are_left_alone() -> None:
    """A class with **options checks its options itself."""
    assert messages({"_target_": f"{HERE}.Anything", "colour": "red"}) == []


def test_complete_writes_defaults_out() -> None:
    """A saved configuration must mean the same after a class's default has changed."""
    full = complete(node(size=1), ["n_items"])
    assert full == node(size=1, rate=0.5, kind="a", shape=[1], folder=None, inner=None, parts=[])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("max_epochs", "train.max_epochs"),
        ("trian.max_epochs", "train.max_epochs"),
        ("train.max_epoch", "train.max_epochs"),
        ("MAX_EPOCHS", "train.max_epochs"),
        ("sed", "seed"),
    ],
)
def test_nearest_finds_the_key_that_was_meant(name: str, expected: str) -> None:
    """Typos, forgotten prefixes and misspelt groups are the usual mistakes."""
    assert nearest(name, ["train.max_epochs", "train.max_minutes", "eval.ks", "seed"])[0] == expected


def test_nearest_stays_silent_when_nothing_is_near() -> None:
    """A wild guess misleads."""
    assert nearest("zzz", ["train.max_epochs", "seed"]) == []


def test_defaults_of_nested_nodes_are_written_out_too() -> None:
    """A teacher's encoder lies two nodes deep: a saved run must pin its settings as well."""
    text = {
        "_target_": "deshi.teachers.text.Text",
        "embeddings": {
            "_target_": "deshi.teachers.item_embeddings.ItemEmbeddings",
            "encoder": {"_target_": "deshi.teachers.encoders.SentenceEncoder", "max_tokens": 64},
        },
    }
    found = complete(text, ("n_items", "resources"))
    assert found["embeddings"]["template"] == "{title}"
    assert found["embeddings"]["encoder"]["max_tokens"] == 64 and found["embeddings"]["encoder"]["pooling"] == "mean"
