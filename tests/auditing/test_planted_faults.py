"""The planted-bug suite: every fault of the list, as a small change of a clean pipeline, is found and named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_pair_planted import PLANTED

from deshi.auditing._finding import CHECKS, SEVERITIES, Finding
from planted_fault_table import PAGE, descriptions, head
from planted_faults import FAULTS, NAMES, Fault, open_shop


@pytest.mark.parametrize("planted", FAULTS, ids=NAMES)
def test_a_planted_fault_is_named(planted: Fault, tmp_path: Path) -> None:
    """A fault that the audit overlooks, or reports without place, size and remedy, would be believed."""
    findings, touched = planted.plant(open_shop(tmp_path))
    named = [problem for problem in findings if problem.name == planted.finding]
    assert named, f"expected {planted.finding}, got {[problem.name for problem in findings]}"
    problem = named[0]
    assert problem.what and problem.fix and 1 <= len(problem.where) <= 5
    assert re.search(r"\d", problem.effect), problem.effect
    if touched is not None:
        users = {match for text in problem.where for match in re.findall(r"user (u\d+)", text)}
        assert users and users <= touched, (users, touched)


def test_every_check_has_its_planted_fault() -> None:
    """A check that no fault has ever triggered may be blind; those of a pair of files have a suite of their own."""
    elsewhere = {"averaged-by-batch", "claim-not-reproduced", "malformed-rows"}  # test_pair_claims, test_pair_reading
    assert set(CHECKS) - {fault.finding for fault in FAULTS} - {name for _, name in PLANTED} == elsewhere


def test_the_documentation_lists_every_check() -> None:
    """A finding that nobody can look up is half a finding; tests/planted_fault_table.py writes the table anew."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(CHECKS)
    assert [
        row for row, parts in zip(rows, descriptions().items(), strict=True) if not row.startswith(head(*parts))
    ] == []


def test_findings_survive_json() -> None:
    """findings.json is read by other tools and by deshi report."""
    for severity in SEVERITIES:
        problem = Finding("cold-targets", severity, "what", ("user 1", "user 2"), "0.1", "fix")
        assert Finding.from_json(problem.to_json()) == problem
