"""Quality of the baselines: settings chosen on validation, and tested, by one ``deshi evaluate`` each.

    python benchmarks/baselines.py ml-100k
    python benchmarks/baselines.py amazon-toys amazon-beauty ml-1m --shared ../shared/data

The figures land in ``benchmarks/results/baselines-NAME.json``, beside those of other baselines that were measured
before; seconds are those of ``time.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from deshi.baselines import BASELINES, STAR
from quality import data_words, deshi, evaluated

SHOWN = ("ndcg@10", "recall@10")
PARTS = ("validation", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="ml-100k, ml-1m, amazon-beauty, amazon-toys")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of the shared data sets")
    parser.add_argument("--root", type=Path, default=Path("/tmp/deshi-bench"), help="where data and runs go")
    parser.add_argument("--only", nargs="+", default=[*BASELINES, STAR], help="names of baselines; default: all")
    options = parser.parse_args()
    for data in options.data:
        words = [*data_words(data, options.shared), f"paths.root={options.root}"]
        deshi("prepare", words)
        show(data, measured(data, options.only, words))


def measured(data: str, names: list[str], words: list[str]) -> dict[str, Any]:
    """The metrics and seconds of every baseline that was ever measured, written beside the other results."""
    path = Path(__file__).parent / "results" / f"baselines-{data}.json"
    results: dict[str, Any] = json.loads(path.read_text())["models"] if path.exists() else {}
    for name in names:
        folder = evaluated([f"baseline={name}", "part=both", *words])
        metrics, seconds = (json.loads((folder / file).read_text()) for file in ("metrics.json", "time.json"))
        results[name] = {"seconds": seconds[name], "metrics": {key: metrics[key] for key in keys()}}
        path.write_text(json.dumps({"cores": os.cpu_count(), "models": results}, indent=1, sort_keys=True) + "\n")
    return results


def keys() -> list[str]:
    """What is kept, such as ``test/ndcg@10``."""
    return [f"{part}/{metric}" for part in PARTS for metric in SHOWN]


def show(data: str, results: dict[str, Any]) -> None:
    """Markdown rows, the best on validation first."""
    print(f"\n| {data} | " + " | ".join(keys()) + " | search, s |\n" + "| --- " * (len(keys()) + 2) + "|")
    for name in sorted(results, key=lambda name: -results[name]["metrics"]["validation/ndcg@10"]):
        figures = [f"{results[name]['metrics'][key]:.4f}" for key in keys()]
        print(f"| {name} | " + " | ".join(figures) + f" | {results[name]['seconds']['search']:.0f} |")


if __name__ == "__main__":
    main()
