"""Quality of plain students: trains and tests each seed by the command line, prints mean and spread.

    python benchmarks/quality.py ml-100k
    python benchmarks/quality.py ml-1m amazon-beauty amazon-toys --shared ../shared/data --seeds 0 1 2

Each seed is one ``deshi fit`` with the experiment preset of that name, selected on validation, and one
``deshi evaluate`` on both parts. Times include validation; peak memory is the ``deshi fit`` process's. Further
``key=value`` words go to every ``deshi fit``. The figures land in ``benchmarks/results/quality-NAME.json``, beside
those of other seeds that were measured before with the same preset and words.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

SHARED = ("ml-1m", "amazon-beauty", "amazon-toys")
PEAK_FILE = "peak_gib.json"
SHOWN = ("ndcg@10", "recall@10", "mrr@10", "coverage@10")


def main() -> None:
    options = arguments()
    for data in options.data:
        words = data_words(data, options.shared) + [f"paths.root={options.root}"]
        deshi("prepare", words)
        results = [one_seed(data, seed, words, options) for seed in options.seeds]
        show(data, write(data, results, options))


def arguments() -> argparse.Namespace:
    parser = common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys; and key=value words")
    parser.add_argument("--label", default="", help="ends the name of the results file")
    return with_overrides(parser)


def common_parser(description: str | None, data: str) -> argparse.ArgumentParser:
    """The options of every benchmark that trains over data sets and seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help=data)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of the shared data sets")
    parser.add_argument("--root", type=Path, default=Path("/tmp/deshi-bench"), help="where data and runs go")
    return parser


def with_overrides(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options read, ``key=value`` words apart, which may stand anywhere."""
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    options = parser.parse_intermixed_args([word for word in sys.argv[1:] if word not in overrides])
    options.overrides = overrides
    return options


def data_words(data: str, shared: Path) -> list[str]:
    """The overrides that name a data set: a group of deshi, or a folder of the shared ones."""
    if data not in SHARED:
        return [f"data={data}"]
    folder = (shared / data).resolve()
    if not folder.is_dir():
        sys.exit(f"{folder} does not exist: give the folder of the shared data sets with --shared.")
    return [
        "data=tabular",
        f"data.name=shared-{data}",
        f"data.source.path={folder}/interactions.tsv",
        "data.source.user=user",
        "data.source.item=item",
        "data.source.timestamp=position",
        "data.source.time_unit=position",
        f"data.source.items_path={folder}/items.tsv",
        "data.source.items_id=item",
        "data.source.items_title=title",
        "data.source.items_text=[category]",
        "data.filters.min_user_interactions=1",
        "data.filters.min_item_interactions=1",
    ]


def one_seed(data: str, seed: int, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train and test one seed; an interrupted run of that name is resumed, a finished one taken as it is."""
    given = [f"experiment={data}", f"seed={seed}", *words, *options.overrides]
    run = trained("fit", f"{data}_seed{seed}{options.label}", given)
    baselines = f"with_baselines={str(seed == options.seeds[0]).lower()}"
    tested = evaluated([f"run={run}", "part=both", baselines, words[-1]])
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name, folder in (("run", run), ("time", run))}
    metrics = json.loads((tested / "metrics.json").read_text())
    return {"seed": seed, "peak_gib": peak_memory(run), "metrics": metrics} | found


def trained(stage: str, name: str, words: list[str]) -> Path:
    """The finished run of that name, trained or resumed if need be; one that other words made is refused."""
    root, given = root_of(words), [*words, f"name={name}", "train.progress=false"]
    run, peak = newest(root / "runs" / stage, f"*_{name}"), None
    if run is None:
        peak = deshi(stage, given)
    elif words_of(run) != given:
        sys.exit(f"{run} was made by {words_of(run)}, not by {given}. Move it away, or give another --root or --label.")
    elif not (run / "metrics.json").exists():
        peak = deshi(stage, [f"resume={run}", f"paths.root={root}"])
    found = newest(root / "runs" / stage, f"*_{name}")
    assert found is not None
    if peak is not None:
        (found / PEAK_FILE).write_text(json.dumps(round(peak, 2)))
    return found


def refit_of(run: Path, changed: dict[str, str] | None = None) -> Path:
    """The refit of a finished run on training and validation events, by the run's own words.

    Members are replaced by their refits; ``changed`` holds other values by key, such as stores that were written anew.
    """
    words = []
    for word in words_of(run):
        key, _, value = word.partition("=")
        if key == "teacher.members":
            value = f"[{','.join(str(refit_of(Path(member))) for member in value.strip('[]').split(','))}]"
        if key not in ("name", "train.progress"):
            words.append(f"{key}={(changed or {}).get(key, value)}")
    return trained(run.parent.name, f"{run.name.partition('_')[2]}_refitted", [*words, f"train.refit={run}"])


def words_of(run: Path) -> Any:
    """The words that a run or an evaluation was made by."""
    return yaml.safe_load((run / "overrides.yaml").read_text())


def root_of(words: list[str]) -> Path:
    """Where the words put data and runs."""
    return Path(next(word for word in words if word.startswith("paths.root=")).partition("=")[2])


def peak_memory(run: Path) -> float | None:
    """Peak memory of the process that made a run, in GiB, if it was measured."""
    path = run / PEAK_FILE
    return float(path.read_text()) if path.exists() else None


def newest(folder: Path, pattern: str) -> Path | None:
    """The run folder that was made last."""
    return max(folder.glob(pattern), key=lambda path: path.name, default=None)


def evaluated(words: list[str]) -> Path:
    """The evaluation by exactly these words: one that is there, or a new one.

    Other benchmarks may run at the same time under the same root: the newest folder could be theirs.
    """

    def there() -> Path | None:
        for folder in sorted((root_of(words) / "runs" / "evaluate").glob("*"), reverse=True):
            if (folder / "metrics.json").exists() and words_of(folder) == words:
                return folder
        return None

    found = there()
    if found is None:
        peak = deshi("evaluate", words)
        found = there()
        assert found is not None, f"deshi evaluate left no finished run of these words under {root_of(words)}"
        (found / PEAK_FILE).write_text(json.dumps(round(peak, 2)))
    return found


def deshi(stage: str, words: list[str]) -> float:
    """Run a stage in a process of its own and return its peak memory in GiB."""
    print("deshi", stage, *words, flush=True)
    process = subprocess.Popen([sys.executable, "-m", "deshi", stage, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"deshi {stage} failed with status {os.waitstatus_to_exitcode(status)}.")
    return usage.ru_maxrss / 2**20


def write(data: str, results: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Put the results into the file, beside those of other seeds that it holds, and return all of them."""
    path = Path(__file__).parent / "results" / f"quality-{data}{options.label}.json"
    return merged(path, {"preset": preset(data), "overrides": options.overrides}, results, {"cores": os.cpu_count()})


def merged(
    path: Path, settings: dict[str, Any], found: list[dict[str, Any]], beside: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Write what was found for some seeds beside what the file holds, if that has the same settings.

    Seeds may have ``models``: those of the same seed are joined, and one that other ``words`` made goes in every seed.
    """
    before = json.loads(path.read_text()) if path.exists() else {}
    known = before["seeds"] if all(before.get(key) == value for key, value in settings.items()) else []
    words = {name: model.get("words") for one in found for name, model in one.get("models", {}).items()}
    by_seed: dict[int, dict[str, Any]] = {}
    for one in [*known, *found]:
        models = by_seed.get(one["seed"], {}).get("models", {}) | one.get("models", {})
        kept = {
            name: model for name, model in models.items() if model.get("words") == words.get(name, model.get("words"))
        }
        by_seed[one["seed"]] = one | ({"models": kept} if kept else {})
    seeds = [by_seed[seed] for seed in sorted(by_seed)]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings | (beside or {}) | {"seeds": seeds}, indent=1, sort_keys=True) + "\n")
    return seeds


def preset(data: str) -> Any:
    """The experiment preset of that name; one that only names another is that one."""
    values = yaml.safe_load((resources.files("deshi.conf") / "experiment" / f"{data}.yaml").read_text(encoding="utf-8"))
    return preset(values["defaults"][0]) if set(values) == {"defaults"} else values


def show(data: str, results: list[dict[str, Any]]) -> None:
    """Mean and standard deviation over the seeds, as Markdown rows."""
    wall = [result["time"]["student_baseline_train_time"] for result in results]
    peak = max((result["peak_gib"] for result in results if result["peak_gib"]), default="not measured")
    print(f"\n{data}: {len(results)} seeds, training {min(wall):.0f} to {max(wall):.0f} s, peak memory {peak} GiB")
    print("| model | part | " + " | ".join(SHOWN) + " |\n" + "| --- " * (len(SHOWN) + 2) + "|")
    for row in rows(results):
        print(row)


def rows(results: list[dict[str, Any]]) -> list[str]:
    """A row for each part of the student, mean and standard deviation, and one for each baseline."""
    lines = []
    for part in ("validation", "test"):
        cells = []
        for metric in SHOWN:
            values = [result["metrics"][f"{part}/{metric}"] for result in results]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        lines.append(f"| {results[0]['run']['model']} | {part} | " + " | ".join(cells) + " |")
    for name, metrics in results[0]["metrics"]["baselines"].items():
        figures = [f"{metrics[f'test/{metric}']:.4f}" for metric in SHOWN]
        lines.append(f"| {name} | test | " + " | ".join(figures) + " |")
    return lines


if __name__ == "__main__":
    main()
