"""Names say what a value is: pronouns and fillers as names stay the exception."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "deshi"
VAGUE = ("found", "one", "own", "known", "wanted", "place", "places", "rest", "what", "asked", "told")
BUDGET = 6
"""Assignments of each of them in all of src, where nothing else is meant."""


def test_vague_names_are_the_exception() -> None:
    """``found`` was once the second most assigned name of the tree, and no reader could tell what it held."""
    names: Counter[str] = Counter()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names[node.id] += 1
    assert {name: names[name] for name in VAGUE if names[name] > BUDGET} == {}
