"""The whole of ``deshi run`` on a data set, selected and refitted, with and without counts at serving: two tables.

    python benchmarks/whole_run.py amazon-toys amazon-beauty ml-1m --shared ../shared/data
    python benchmarks/whole_run.py ml-100k --seeds 0 1 2 3 4 sizes=[32]

One ``deshi run`` with ``refit=true`` and what ``experiment=auto`` chooses for the data; further ``key=value`` words
go to it, ``refit=false`` among them. Then the bundle of each plain and distilled student, selected and refitted, is
exported with counts and evaluated as it is served. Paired permutation tests compare them with the plain student over
users, the mean over seeds, with Holm's correction. Settings, epochs and weights are chosen on validation; a refitted
model has no validation figure. Figures land in ``benchmarks/results/whole-run-NAME.json`` (``--label`` ends that name
and the run's), with the test ranks that tests need, beside those of other seeds with the same words. What is finished
under ``--root`` is not done again, and an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality import common_parser, data_words, deshi, evaluated, merged, newest, with_overrides
from teachers import SHOWN, cell, compare, top_ranks

PARTS = {"": ("validation", "test"), " refitted": ("test",)}
"""What is measured of selected models, and of those whose names end so."""
COUNTED = ("plain", "distilled")
"""The models that are also served with counts."""
WITHOUT_EFFECT = ("refit", "train.threads")
"""Words that don't change a model's figures."""


def main() -> None:
    parser = common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys; and key=value words")
    parser.add_argument(
        "--label", default="", help="ends the names of the run and of the results file, as of a recipe or machine"
    )
    options = with_overrides(parser)
    for data in options.data:
        found, beside = measured(data, options)
        words = [word for word in options.overrides if word.partition("=")[0] not in WITHOUT_EFFECT]
        path = Path(__file__).parent / "results" / f"whole-run-{data}{options.label}.json"
        show(data, merged(path, {"overrides": words}, found, beside))


def measured(data: str, options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The models of each seed by name, and what belongs to the command as a whole."""
    root = f"paths.root={options.root}"
    words = [
        f"name={data}{options.label}",
        f"seeds={options.seeds}".replace(" ", ""),
        "refit=true",
        "train.progress=false",
    ]
    deshi("run", [*data_words(data, options.shared), *words, *options.overrides, root])
    folder = newest(options.root / "runs" / "run", f"*_{data}{options.label}")
    assert folder is not None
    run = json.loads((folder / "metrics.json").read_text())
    found = [
        {"seed": seed, "models": models(folder, run, "", place, seed, options)}
        for place, seed in enumerate(options.seeds)
    ]
    if run["refitted"]:
        for place, one in enumerate(found):
            one["models"] |= models(folder, run["refitted"], " refitted", place, one["seed"], options)
    beside = {"cores": os.cpu_count(), "seconds": json.loads((folder / "time.json").read_text()), "sizes": run["sizes"]}
    return found, beside


def models(
    folder: Path, run: Mapping[str, Any], suffix: str, place: int, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """A seed's models of one protocol, the baselines first, with the names that ``suffix`` ends."""
    steps = {step["name"]: folder / step["folder"] for step in json.loads((folder / "plan.json").read_text())["steps"]}
    keys = [f"{part}/{metric}" for metric in SHOWN for part in PARTS[suffix]]
    found: dict[str, Any] = {name: {key: values[key] for key in keys} for name, values in run["baselines"].items()}
    for model, values in run["models"].items():
        figures = {key: values["figures"][key][place] for key in keys}
        evaluation = steps[f"evaluation of {model}{suffix}, seed {seed}"]
        found[model] = figures | {"parameters": values["parameters"], "top10": top_ranks(evaluation)}
    for model in COUNTED:
        part = "both" if len(PARTS[suffix]) > 1 else "test"
        evaluation, about = counted(run["models"][model]["runs"][place], part, options.root)
        metrics = json.loads((evaluation / "metrics.json").read_text())
        found[f"{model}+counts"] = {key: metrics[key] for key in keys} | about | {"top10": top_ranks(evaluation)}
    return {f"{name}{suffix}": values for name, values in found.items()}


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


def show(data: str, found: Sequence[dict[str, Any]]) -> None:
    """Markdown: a table for each protocol, mean and standard deviation, the baselines first; and the tests."""
    for suffix, parts in PARTS.items():
        seeds = [one for one in found if f"plain{suffix}" in one["models"]]
        if not seeds:
            continue
        keys = [f"{part}/{metric}" for metric in SHOWN for part in parts]
        names = [name for name in seeds[0]["models"] if name.endswith(" refitted") == bool(suffix)]
        print(f"\n{data}{suffix}, {len(seeds)} seeds\n| model | " + " | ".join(keys) + " |")
        print("| --- " * (len(keys) + 1) + "|")
        for name in names:
            print(f"| {name} | {' | '.join(cell([one['models'][name][key] for one in seeds]) for key in keys)} |")
        tested = [f"{name}{suffix}" for name in ("plain", "distilled", "plain+counts", "distilled+counts", "all")]
        compare([one for one in seeds if all(name in one["models"] for name in tested)], tested, tested[0])
        for model in (f"{model}+counts{suffix}" for model in COUNTED):
            served = [one["models"][model] for one in seeds if "weight" in one["models"][model]]  # not in earlier files
            if served:
                times = {key: served[0][key] for key in ("bytes", "p50_ms")}
                print(f"{model}: weights {[one['weight'] for one in served]}, of the first {times}")


if __name__ == "__main__":
    main()
