"""The whole of ``deshi run`` on a data set, selected and refitted, with and without counts at serving: one table.

    python benchmarks/whole_run.py amazon-toys amazon-beauty ml-1m --shared ../shared/data
    python benchmarks/whole_run.py ml-100k --seeds 0 1 2 3 4 sizes=[32]

One ``deshi run`` with ``refit=true`` and what ``experiment=auto`` chooses for the data; further ``key=value`` words
go to it, ``refit=false`` among them. Then the bundle of each plain and distilled student, selected and refitted, is
exported with counts and evaluated as it is served, and one comparison for each protocol tests all against the plain
student, paired over users, the mean over seeds, with Holm's correction. Settings, epochs and weights are chosen on
validation; a refitted model has no validation figure. Figures land in ``benchmarks/results/whole-run-NAME.json``.
What is finished under ``--root`` is not done again, and an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality import common_parser, data_words, deshi, evaluated, newest, with_overrides

SHOWN = ("ndcg@10", "recall@10")
PARTS = {"selected": ("validation", "test"), "refitted": ("test",)}
COUNTED = ("plain", "distilled")
"""The models that are also served with counts."""


def main() -> None:
    options = with_overrides(common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys; and key=value words"))
    for data in options.data:
        results = measured(data, options)
        path = Path(__file__).parent / "results" / f"whole-run-{data}.json"
        path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        show(data, results)


def measured(data: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both protocols' figures and tests, by model."""
    root = f"paths.root={options.root}"
    words = [f"name={data}", f"seeds={options.seeds}".replace(" ", ""), "refit=true", "train.progress=false"]
    deshi("run", [*data_words(data, options.shared), *words, *options.overrides, root])
    folder = newest(options.root / "runs" / "run", f"*_{data}")
    assert folder is not None
    run = json.loads((folder / "metrics.json").read_text())
    refitted = protocol(folder, run["refitted"], "refitted", options) if run["refitted"] else None
    return {
        "cores": os.cpu_count(), "seeds": options.seeds, "overrides": options.overrides,
        "seconds": json.loads((folder / "time.json").read_text()), "sizes": run["sizes"],
        "selected": protocol(folder, run, "selected", options), "refitted": refitted,
    }  # fmt: skip


def protocol(folder: Path, run: Mapping[str, Any], name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures by seed of every model and of the served ones, baselines, and the tests against the plain student."""
    steps = {step["name"]: folder / step["folder"] for step in json.loads((folder / "plan.json").read_text())["steps"]}
    suffix = "" if name == "selected" else " refitted"
    parts, models, evaluations = PARTS[name], {}, dict[str, list[Path]]()
    for model, values in run["models"].items():
        models[model] = {key: values["figures"][key] for key in keys(parts)} | {"parameters": values["parameters"]}
        if model in COUNTED:
            folders = [steps[f"evaluation of {model}{suffix}, seed {seed}"] for seed in options.seeds]
            served = [
                counted(trained, "both" if len(parts) > 1 else "test", options.root) for trained in values["runs"]
            ]
            # where validation wants no counts, what is served is the student, and there is nothing to test
            evaluations[model] = folders
            evaluations[f"{model}+counts"] = [evaluation for evaluation, about in served if about["weight"]]
            figures = [json.loads((evaluation / "metrics.json").read_text()) for evaluation, _ in served]
            models[f"{model}+counts"] = {key: [each[key] for each in figures] for key in keys(parts)} | served[0][1]
            models[f"{model}+counts"]["weights"] = [about["weight"] for _, about in served]
    baselines = {name: {key: values[key] for key in keys(parts)} for name, values in run["baselines"].items()}
    return {"models": models, "baselines": baselines, "tests": tests(evaluations, options.root)}


def keys(parts: Sequence[str]) -> list[str]:
    """The figures that are kept, such as ``test/ndcg@10``."""
    return [f"{part}/{metric}" for metric in SHOWN for part in parts]


def counted(run: str, part: str, root: Path) -> tuple[Path, dict[str, Any]]:
    """The evaluation of a run's bundle with counts; its weight and bytes, the time of a request with and without."""
    bundle = root / "served" / run
    if not (bundle / "manifest.json").is_file():
        deshi("export", [f"run={run}", "counts=true", f"output={bundle}", f"paths.root={root}"])
    folder = evaluated([f"run={run}", f"served={bundle}", f"part={part}", f"paths.root={root}"])
    manifest = json.loads((bundle / "manifest.json").read_text())
    config = json.loads((bundle / "config.json").read_text())
    times = {key: value["p50_ms"] for key, value in manifest.items() if isinstance(value, dict) and "p50_ms" in value}
    size = sum(file.stat().st_size for file in bundle.iterdir())
    return folder, {"weight": (config["counts"] or {}).get("weight", 0.0), "bytes": size, "p50_ms": times}


def tests(evaluations: Mapping[str, Sequence[Path]], root: Path) -> list[dict[str, Any]]:
    """Paired tests of every model with an evaluation against the plain student, which stands first."""
    names = [name for name, folders in evaluations.items() if folders]
    folders = ",".join(str(folder.resolve()) for name in names for folder in evaluations[name])
    deshi("compare", [f"runs=[{folders}]", f"names=[{','.join(names)}]", "against=plain", f"paths.root={root}"])
    folder = newest(root / "runs" / "compare", "*")
    assert folder is not None
    comparison: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    kept = ("first", "second", "metric", "difference", "low", "high", "permutation_p", "permutation_holm")
    return [{key: test[key] for key in kept} for test in comparison["tests"]]


def show(data: str, results: Mapping[str, Any]) -> None:
    """Markdown: a table for each protocol, mean and standard deviation, the best baseline first."""
    selected = results["selected"]["baselines"]
    best = max(selected, key=lambda name: selected[name]["validation/ndcg@10"])
    for name, parts in PARTS.items():
        protocol = results[name]
        if protocol is None:
            continue
        p_values = {}
        for test in protocol["tests"]:
            if test["metric"] == SHOWN[0]:
                p_values[({test["first"], test["second"]} - {"plain"}).pop()] = test["permutation_holm"]
        print(f"\n{data}, {name}, {len(results['seeds'])} seeds\n| model | " + " | ".join(keys(parts)) + " | p |")
        print("| --- " * (len(keys(parts)) + 2) + "|")
        rows = {f"{best} (best baseline)": {key: [value] for key, value in protocol["baselines"][best].items()}}
        for model, values in (rows | protocol["models"]).items():
            figures = [cell(values[key]) for key in keys(parts)]
            p_value = f"{p_values[model]:.2g}" if model in p_values else ""
            print(f"| {model} | " + " | ".join(figures) + f" | {p_value} |")
        for model in (f"{model}+counts" for model in COUNTED):
            about = {key: protocol["models"][model][key] for key in ("weights", "bytes", "p50_ms")}
            print(f"{model}, weights by seed, the rest of the first: {about}")


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


if __name__ == "__main__":
    main()
