"""The table of docs/audit.md, made by planting every fault: ``python tests/planted_fault_table.py`` writes it anew.

What a finding means comes from the registry; effect and remedy are what the audit says of the planted fault.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "audit.md"
BEGIN, END = "<!-- made by tests/planted_fault_table.py -->", "<!-- end of the table -->"

sys.path[:0] = [str(TESTS), str(TESTS / "auditing")]

from file_pairs import PairFrames, audit, frames_of, good, good_pair, make_world  # noqa: E402
from test_pair_claims import CLAIMS  # noqa: E402
from test_pair_planted import PLANTED  # noqa: E402

from deshi.auditing._finding import CHECKS, Finding  # noqa: E402
from planted_faults import FAULTS, open_shop  # noqa: E402


def descriptions() -> dict[str, list[str]]:
    """By check: how it is planted, the faults of deshi's own artifacts first."""
    found: dict[str, list[str]] = {name: [] for name in CHECKS}
    for one in FAULTS:
        found[one.finding].append(one.name)
    for plant, name in PLANTED:
        text = plant.__name__.replace("_", " ") if plant.__name__ != "<lambda>" else "candidate sets"
        if f"files: {text}" not in found[name]:
            found[name].append(f"files: {text}")
    found["malformed-rows"].append("files: a row without its columns")
    found["averaged-by-batch"].append("files: a claim that is a mean of batch means")
    found["claim-not-reproduced"].append("files: a figure that nothing gives")
    return found


def examples() -> dict[str, Finding]:
    """By check: what the audit says of its first planted fault."""
    torch.manual_seed(0)
    found: dict[str, Finding] = {}
    for one in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            _keep(found, one.finding, one.plant(open_shop(Path(folder)))[0])
    for plant, name in PLANTED:
        if name not in found:
            with tempfile.TemporaryDirectory() as folder:
                _keep(found, name, audit(Path(folder), plant()[0]).findings)
    with tempfile.TemporaryDirectory() as folder:
        _keep(
            found, "claim-not-reproduced", audit(Path(folder), _frames().options_and(claimed="ndcg@10=0.917")).findings
        )
        _keep(found, "malformed-rows", _malformed(Path(folder)))
        _keep(found, "averaged-by-batch", audit(Path(folder), _batch_means()).findings)
    return found


def _keep(found: dict[str, Finding], name: str, findings: Iterable[Finding]) -> None:
    for one in findings:
        if one.name == name:
            found.setdefault(name, one)


def _frames() -> PairFrames:
    import numpy as np

    world = make_world()
    return frames_of(world, good(world, np.random.default_rng(0)))


def _batch_means() -> PairFrames:
    frames = good_pair(2, seen_from_end=2)
    metric, value, _, _ = next(claim for claim in CLAIMS if claim[2] == "averaged-by-batch")
    return frames.options_and(claimed=f"{metric}={value(frames):.6f}")


def _malformed(folder: Path) -> Iterable[Finding]:
    from deshi.auditing._pair import audit_pair

    audit(folder, _frames())
    with (folder / "interactions.csv").open("a") as handle:
        handle.write("alone\n")
    return audit_pair(folder / "interactions.csv", folder / "predictions.csv").findings


def head(name: str, planted: list[str]) -> str:
    """The cells of a row that a test compares."""
    return f"| `{name}` | {CHECKS[name].severity} | {CHECKS[name].meaning} | {'; '.join(planted)} |"


def table() -> str:
    """The whole table."""
    rows = [
        "| finding | severity | what it means | planted as | effect, on the first of these | fix |",
        "|" + " --- |" * 6,
    ]
    said = examples()
    for name, planted in descriptions().items():
        one = said[name]
        rows.append(f"{head(name, planted)} {_cell(one.effect)} | {_cell(one.fix)} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
