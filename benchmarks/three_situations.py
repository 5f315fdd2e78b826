"""The three situations of the report that deshi began from, told apart by ``deshi gap``.

    python benchmarks/three_situations.py ml-100k
    python benchmarks/three_situations.py ml-1m --shared ../shared/data

One student, trained with the same budget and seed on a range that stops one target short, on a range that includes the
validation targets, and on the right range with a refit. The table and the verdicts
come from ``deshi gap``; the figures land in ``benchmarks/results/situations-NAME.json``. Further ``key=value`` words go
to every ``deshi fit``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from quality import data_words, deshi, newest, trained

SITUATIONS = {
    "short range": ["train.train_targets=without_last"],
    "widened range": ["train.train_targets=including_validation"],
    "clean, refit": ["train.refit=true"],
}
BUDGETS = {
    "ml-100k": ["student.dim=128", "train.max_epochs=40", "train.patience=40", "train.validate_every=2"],
    "ml-1m": ["student.dim=64", "train.max_epochs=12", "train.validate_every=2", "train.windows=last"],
}
SCHEDULE = "train.schedule=cosine"


def main() -> None:
    options = arguments()
    words = [*data_words(options.data, options.shared), f"paths.root={options.root}"]
    deshi("prepare", words)
    found = {name: situation(name, own, words, options) for name, own in SITUATIONS.items()}
    path = Path(__file__).parent / "results" / f"situations-{options.data}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    show(found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="ml-100k or ml-1m")
    parser.add_argument("overrides", nargs="*", help="key=value words for every deshi fit")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of the shared data sets")
    parser.add_argument("--root", type=Path, default=Path("/tmp/deshi-bench"), help="where data and runs go")
    parser.add_argument("--metric", default="recall@10", help="what deshi gap explains")
    return parser.parse_intermixed_args()


def situation(name: str, own: list[str], words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train one situation, unless that was done, and let deshi explain its gap."""
    label = f"situation-{name.replace(', ', '-').replace(' ', '-')}-{options.data}"
    run = trained("fit", label, [*words, *BUDGETS[options.data], SCHEDULE, *own, *options.overrides])
    deshi("gap", [f"run={run}", f"paths.root={options.root}", f"metric={options.metric}"])
    gap = newest(options.root / "runs" / "gap", f"*_{label}")
    assert gap is not None
    explained: dict[str, Any] = json.loads((gap / "gap.json").read_text(encoding="utf-8"))
    return explained


def show(found: dict[str, dict[str, Any]]) -> None:
    """Markdown: the figures that tell the situations apart, and the verdicts."""
    steps = [step["name"] for step in next(iter(found.values()))["steps"]]
    print("\n| situation | validation | test | test/validation | " + " | ".join(steps[:-2]) + " | refit | verdict |")
    print("| --- " * (len(steps) + 4) + "|")
    for name, gap in found.items():
        ladder = {step["name"]: step["value"] for step in gap["steps"]}
        refit = [one["test"]["mean"] for one in gap["counterfactuals"] if one["name"].startswith("refit")]
        cells = [f"{gap['validation']:.4f}", f"{gap['test']:.4f}", f"{gap['ratio']:.2f}"]
        cells += [f"{ladder[step]:.4f}" for step in steps[:-2]]
        cells += [f"{refit[0]:.4f}" if refit else "", gap["verdict"]]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name, gap in found.items():
        print(f"\n{name}: {gap['sentence']}")


if __name__ == "__main__":
    main()
