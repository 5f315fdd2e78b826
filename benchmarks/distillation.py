"""What a distilled student gains over a plain one of the same size, and how much of its teacher's gain that is.

    python benchmarks/distillation.py ml-100k
    python benchmarks/distillation.py amazon-beauty amazon-toys --shared ../shared/data --recipes kl table kl+table
    python benchmarks/distillation.py ml-100k --teacher ilora --recipes kl

For each seed: the plain student of the preset, the teacher (the ensemble ID + text of ``benchmarks/teachers.py``, or
one with the iLoRA of ``benchmarks/ilora.py``), its knowledge (100 items after every event), and for each recipe a
student that is distilled with the preset's own training.
All are tested by ``deshi evaluate``; paired permutation tests compare all with the plain student. Figures land in
``benchmarks/results/distillation-NAME.json``, beside those of other seeds with the same settings, with the test ranks
that the tests need. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from quality import common_parser, data_words, deshi, merged, newest, preset, trained
from teachers import SHOWN, cell, compare, tested, text_words

TABLE = "distill.table={_target_:deshi.distill.tables.Added}"
KL = "distill=listwise"
RECIPES: dict[str, tuple[str, ...]] = {
    "kl": (KL,),
    "table": ("distill=table",),
    "kl+table": (KL, TABLE),
}
"""What each recipe adds to ``deshi distill`` with the preset; ``--add NAME word word ...`` makes further ones."""

TEACHERS = {"text": ("text",), "ilora": ("ilora",), "text+ilora": ("text", "ilora")}
"""What may stand beside the ID student in the teacher."""

WITH_TABLE: dict[str, tuple[str, ...]] = {
    "amazon-beauty": ("student.dropout=0.3",),
    "amazon-toys": ("student.dropout=0.3",),
}
"""In what students with a table of text vectors differ from the preset: chosen on validation of seed 0 of Beauty.

``--plain low student.dropout=0.3`` gives the plain student the same.
"""


def main() -> None:
    options = arguments()
    for data in options.data:
        words = [*data_words(data, options.shared), f"paths.root={options.root}"]
        deshi("prepare", words)
        found = [one_seed(data, seed, words, options) for seed in options.seeds]
        write_and_show(data, found, options)


def arguments() -> argparse.Namespace:
    parser = common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), help=f"of {', '.join(RECIPES)} and those added")
    parser.add_argument("--add", nargs="+", action="append", default=[], metavar="NAME WORD", help="a recipe more")
    parser.add_argument("--plain", nargs="+", action="append", default=[], metavar="NAME WORD", help="a plain student")
    parser.add_argument("--teacher", choices=list(TEACHERS), default="text", help="what the ID student is joined by")
    parser.add_argument("--label", default="", help="ends the names of the distilled runs and of the results file")
    options = parser.parse_args()
    options.label = ("" if options.teacher == "text" else f"-{options.teacher.replace('+', '-')}") + options.label
    options.known = {**RECIPES, **{name: tuple(words) for name, *words in options.add}}
    unknown = [name for name in options.recipes if name not in options.known]
    if unknown:
        parser.error(f"there is no recipe {', '.join(unknown)}; the recipes are {', '.join(options.known)}")
    return options


def one_seed(data: str, seed: int, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train or find the plain student, the teacher and the distilled students of a seed, and test them."""
    shared = [f"experiment={data}", f"seed={seed}", *words]
    plain, teacher = plain_and_teacher(data, seed, words, options.teacher)
    store = exported(teacher, words)
    runs = {"plain": plain, "teacher": teacher}
    for name, *more in options.plain:
        runs[name] = trained("fit", f"{data}_{name}_seed{seed}", [*shared, *more])
    for name in options.recipes:
        given = [*shared, f"knowledge=[{store}]", *recipe(name, data, options)]
        runs[name] = trained("distill", f"{data}_{name.replace('+', '-')}{options.label}_seed{seed}", given)
    return {"seed": seed, "models": {name: tested(run, words) for name, run in runs.items()}}


def recipe(name: str, data: str, options: argparse.Namespace) -> list[str]:
    """The words of a recipe."""
    return [*(WITH_TABLE.get(data, ()) if "table" in name else ()), *options.known[name]]


def plain_and_teacher(data: str, seed: int, words: list[str], teacher: str = "text") -> tuple[Path, Path]:
    """The preset's student, and the ensemble of it and one of :data:`TEACHERS`."""
    plain = trained("fit", f"{data}_seed{seed}", [f"experiment={data}", f"seed={seed}", *words])
    members = [plain]
    if "text" in TEACHERS[teacher]:
        members.append(trained("teach", f"{data}_text_seed{seed}", [*text_words(data), f"seed={seed}", *words]))
    if "ilora" in TEACHERS[teacher]:
        tuned = newest(plain.parents[1] / "teach", f"*_{data}_ilora-ilora_seed{seed}")
        if tuned is None or not (tuned / "metrics.json").exists():
            sys.exit(
                f"There is no finished iLoRA of {data}, seed {seed}: benchmarks/ilora.py --seeds {seed} trains it."
            )
        members.append(tuned)
    joined = [f"teacher.members=[{','.join(map(str, members))}]", "teacher.scale=log_softmax", f"seed={seed}"]
    name = f"{data}_id-{teacher.replace('+', '-')}_log_softmax_seed{seed}"
    return plain, trained("teach", name, ["teacher=ensemble", *joined, *words])


def exported(run: Path, words: list[str]) -> str:
    """The store of a run's lists and of its text model's vectors, if it has one, written if need be."""
    store, vectors = run.name, "text" if "text" in run.name else "none"
    root = next(word for word in words if word.startswith("paths.root="))
    if not (Path(root.partition("=")[2]) / "knowledge" / store / "manifest.json").is_file():
        deshi("know", ["export", str(run), f"store={store}", "positions=train+held_out", f"vectors={vectors}", root])
    return store


def write_and_show(data: str, found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Markdown: mean and standard deviation over the seeds, gains, share of the teacher's gain, paired tests."""
    path = Path(__file__).parent / "results" / f"distillation-{data}{options.label}.json"
    recipes = {name: recipe(name, data, options) for name in options.recipes}
    settings = {"preset": preset(data), "recipes": recipes, "plain": options.plain, "text": text_words(data)}
    found = merged(path, settings, found)
    names = list(found[0]["models"])
    print(f"\n{data}, {len(found)} seeds\n| model | part | NDCG@10 | Recall@10 | gain | share of the teacher's |")
    print("| --- " * 6 + "|")
    for part in ("validation", "test"):
        values = {name: [one["models"][name][f"{part}/ndcg@10"] for one in found] for name in names}
        base, best = statistics.mean(values["plain"]), statistics.mean(values["teacher"])
        for name in names:
            columns = [[one["models"][name][f"{part}/{metric}"] for one in found] for metric in SHOWN]
            mean = statistics.mean(values[name])
            share = f"{(mean - base) / (best - base):.0%}" if best > base and name != "plain" else ""
            print(f"| {name} | {part} | {' | '.join(map(cell, columns))} | {mean / base - 1:+.1%} | {share} |")
    compare(found, names, "plain")


if __name__ == "__main__":
    main()
