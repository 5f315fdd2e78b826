"""What a distilled student gains over a plain one of the same size, and how much of its teacher's gain that is.

    python benchmarks/distillation.py ml-100k
    python benchmarks/distillation.py amazon-beauty amazon-toys --shared ../shared/data --recipes kl table kl+table
    python benchmarks/distillation.py ml-100k --teacher ilora --recipes kl
    python benchmarks/distillation.py amazon-beauty --plain twice student.dim=128 --recipes --keep
    python benchmarks/distillation.py amazon-toys --shared ../shared/data --recipes table --refit --keep

For each seed: the plain student of the preset, the teacher (the ensemble ID + text of ``benchmarks/teachers.py``, one
with the iLoRA of ``benchmarks/ilora.py``, or ``wide``: two of either kind), its knowledge (100 items after every
event), and for each recipe a student that is distilled with the preset's own training; the teacher only if a recipe
needs it. All are tested by ``deshi evaluate``; paired permutation tests compare all with the plain student. With
``--refit`` each is trained again on training and validation events, from lists written anew, and those are compared
among themselves. Figures
land in ``benchmarks/results/distillation-NAME.json`` with the words that made them and the test ranks that tests need,
beside those of other seeds and models; ``--keep`` trains no model whose figures are there. What is finished under
``--root`` is not done again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from quality import common_parser, data_words, deshi, merged, newest, preset, refit_of, root_of, trained
from teachers import OTHER, SHOWN, cell, compare, id_words, tested, text_words

BOTH = ("distill=listwise", "distill.item_table={_target_:deshi.distillation.item_tables.ItemTableAdapter}")
RECIPES: dict[str, tuple[str, ...]] = {
    "kl": BOTH[:1],
    "table": ("distill=table",),
    "kl+table": BOTH,
}
"""What each recipe adds to ``deshi distill`` with the preset; ``--add NAME word word ...`` makes further ones."""
TRIED: dict[str, tuple[str, ...]] = {
    "temperature-2": (*BOTH, "distill.terms.kl.temperature=2"),
    "temperature-0.5": (*BOTH, "distill.terms.kl.temperature=0.5"),
    "sharp": (*BOTH, "distill.terms.kl.teacher_temperature=0.5"),
    "sharper": (*BOTH, "distill.terms.kl.teacher_temperature=0.25"),
    "top-10": (*BOTH, "distill.terms.kl.top_k=10"),
    "top-30": (*BOTH, "distill.terms.kl.top_k=30"),
    "ranks": (*BOTH, "distill.terms.kl.target=ranks"),
    "weight-0.3": (*BOTH, "distill.terms.kl.weight=0.3"),
    "weight-3": (*BOTH, "distill.terms.kl.weight=3"),
    "dropped": (*BOTH, "soft_labels=[lists,dropped]"),
    "vectors": (*BOTH, "soft_labels=[vectors]"),
    "soft": (*BOTH, "distill.hard_loss_weight=0.3"),
    "student-128": (*BOTH, "student.dim=128"),
}
"""Further ones, asked for by name: changes of ``kl+table``, one at a time.

``soft_labels=[lists,dropped]`` names :data:`STORES`; without it a recipe has ``lists``."""

STORES: dict[str, tuple[str, ...]] = {
    "lists": ("positions=train+held_out",),
    "dropped": ("positions=train", "augment.item_drop=0.3", "copies=2"),
    "vectors": ("positions=train+held_out", "vectors=scoring"),
}
"""What a recipe may learn from: the teacher's lists after all events, and after those of augmented histories."""

TEACHERS = {
    "text": ("id", "text"),
    "wide": ("id", "id2", "text", "text2"),
    "ids": ("id", "id2"),
    "self": ("id",),
    "twice": ("twice",),
    "crossed": ("id-crossed", "text-crossed"),
    "ilora": ("id", "ilora"),
    "text+ilora": ("id", "text", "ilora"),
    "text+counts": ("text", "counts"),
    "id+counts": ("id", "counts"),
    "id+text+counts": ("id", "text", "counts"),
    "ids+counts": ("id", "id2", "counts"),
}
"""The members of each teacher; ``counts`` are those of item pairs.

``crossed`` ones answer for the users that they were not trained on; ``twice`` is a plain student, see :data:`TWICE`.
"""

REFITTED = " refitted"
"""Ends the names of models that ``--refit`` trains on training and validation events: they are compared apart."""

TWICE = {"ml-100k": 192, "ml-1m": 200, "amazon-beauty": 128, "amazon-toys": 128}
"""The width at which a plain student has at least 1.98 times the numbers: ``--plain twice student.dim=...``."""

CONTEXT = {"ml-1m": 100}
"""How many events an answer about a late one reads at least, where histories are much longer than a pass."""

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
        for seed in options.seeds:
            found = one_seed(data, seed, words, options)
            everything = merged(results(data, options), settings(data), [found])
        show(data, everything)


def arguments() -> argparse.Namespace:
    parser = common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES | TRIED)}")
    parser.add_argument("--add", nargs="+", action="append", default=[], metavar="NAME WORD", help="a recipe more")
    parser.add_argument("--plain", nargs="+", action="append", default=[], metavar="NAME WORD", help="a plain student")
    parser.add_argument("--teacher", choices=list(TEACHERS), default="text", help="whose lists the recipes learn from")
    parser.add_argument("--refit", action="store_true", help="all models again on train + validation, tested beside")
    parser.add_argument("--keep", action="store_true", help="train no model whose figures the results file holds")
    parser.add_argument("--label", default="", help="ends the names of the distilled runs and of the results file")
    options = parser.parse_args()
    options.label = ("" if options.teacher == "text" else f"-{options.teacher.replace('+', '-')}") + options.label
    options.known = {**RECIPES, **TRIED, **{name: tuple(words) for name, *words in options.add}}
    unknown = [name for name in options.recipes if name not in options.known]
    if unknown:
        parser.error(f"there is no recipe {', '.join(unknown)}; the recipes are {', '.join(options.known)}")
    twice = {name for name, *_ in options.plain} & {*options.recipes, "plain", "teacher"}
    if twice:
        parser.error(f"{', '.join(sorted(twice))} names a plain student and something else: give it another name")
    return options


def one_seed(data: str, seed: int, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train or find the plain students, the teacher and the distilled students of a seed, and test them."""
    wanted = {"plain": [], **{name: more for name, *more in options.plain}}
    if options.recipes:
        wanted["teacher"] = list(TEACHERS[options.teacher])
    wanted |= {name: recipe(name, data, options) for name in options.recipes}
    known = measured(data, seed, options) if options.keep else {}
    models = {}
    for name, more in wanted.items():
        if known.get(name) != more:
            run = model(name, more, data, seed, words, options)
            models[name] = tested(run, words) | {"words": more}
        if options.refit and known.get(name + REFITTED) != more:
            run = refitted(name, more, data, seed, words, options)
            models[name + REFITTED] = tested(run, words) | {"words": more}
    return {"seed": seed, "models": models}


def measured(data: str, seed: int, options: argparse.Namespace) -> dict[str, list[str]]:
    """The models whose figures the results file holds for that seed, with their words."""
    path = results(data, options)
    known = json.loads(path.read_text()) if path.exists() else {}
    same = all(known.get(key) == value for key, value in settings(data).items())
    found = [one["models"] for one in known["seeds"] if one["seed"] == seed] if same else []
    return {name: figures["words"] for models in found for name, figures in models.items()}


def results(data: str, options: argparse.Namespace) -> Path:
    """The results file."""
    return Path(__file__).parent / "results" / f"distillation-{data}{options.label}.json"


def settings(data: str) -> dict[str, Any]:
    """What all figures of a file share."""
    return {"preset": preset(data), "text": text_words(data)}


def recipe(name: str, data: str, options: argparse.Namespace) -> list[str]:
    """The words of a recipe."""
    words = options.known[name]
    return [*(WITH_TABLE.get(data, ()) if "table" in " ".join(words) else ()), *words]


def model(name: str, more: list[str], data: str, seed: int, words: list[str], options: argparse.Namespace) -> Path:
    """The run of a plain student, of the teacher or of a recipe."""
    shared = [f"experiment={data}", f"seed={seed}", *words]
    if name == "teacher":
        return teacher(data, seed, words, options.teacher)
    if name not in options.recipes:
        return (
            member("id", data, seed, words) if not more else trained("fit", f"{data}_{name}_seed{seed}", shared + more)
        )
    given = ",".join(soft_labels(options.teacher, store, data, seed, words) for store in stores_of(more))
    own = [word for word in more if not word.startswith("soft_labels=")]
    run = f"{data}_{name.replace('+', '-')}{options.label}_seed{seed}"
    return trained("distill", run, [*shared, f"soft_labels=[{given}]", *own])


def refitted(name: str, more: list[str], data: str, seed: int, words: list[str], options: argparse.Namespace) -> Path:
    """The refit of a model on training and validation events; a student's lists are written anew by the teacher's."""
    run = model(name, more, data, seed, words, options)
    if name not in options.recipes:
        return refit_of(run)
    taught = refit_of(teacher(data, seed, words, options.teacher))
    stores = [soft_labels(options.teacher, store, data, seed, words, taught) for store in stores_of(more)]
    return refit_of(run, {"soft_labels": f"[{','.join(stores)}]"})


def stores_of(more: list[str]) -> list[str]:
    """The stores that a recipe learns from."""
    named = next((word for word in more if word.startswith("soft_labels=")), "soft_labels=[lists]")
    return named.partition("=")[2].strip("[]").split(",")


def teacher(data: str, seed: int, words: list[str], kind: str = "text") -> Path:
    """One of :data:`TEACHERS`: an ensemble by log-probabilities, weights chosen on validation, or its only member."""
    members = [member(name, data, seed, words) for name in TEACHERS[kind] if name != "counts"]
    if "counts" in TEACHERS[kind]:
        beside = f"teacher.members=[{','.join(map(str, members))}]"
        name = f"{data}_{kind.replace('+', '-')}_alone_seed{seed}"
        members.append(trained("teach", name, ["teacher=pairwise", beside, f"seed={seed}", *words]))
    if len(members) == 1:
        return members[0]
    joined = [f"teacher.members=[{','.join(map(str, members))}]", "teacher.scale=log_softmax", f"seed={seed}"]
    name = f"{data}_id-{kind.replace('+', '-')}_log_softmax_seed{seed}"
    return trained("teach", name, ["teacher=ensemble", *joined, *words])


def member(kind: str, data: str, seed: int, words: list[str]) -> Path:
    """A member of a teacher; ``id`` is the plain student itself."""
    if kind == "ilora":
        run = newest(root_of(words) / "runs" / "teach", f"*_{data}_ilora-ilora_seed{seed}")
        if run is None or not (run / "metrics.json").exists():
            sys.exit(f"There is no finished iLoRA of {data}, seed {seed}: benchmarks/ilora.py --seeds {seed} makes it.")
        return run
    if kind.endswith("2"):
        kind, seed = kind[:-1], seed + OTHER
    given = [f"seed={seed}", *words]
    if kind == "id":
        return trained("fit", f"{data}_seed{seed}", [f"experiment={data}", *given])
    if kind == "twice":
        return trained("fit", f"{data}_twice_seed{seed}", [f"experiment={data}", *given, f"student.dim={TWICE[data]}"])
    if kind == "text":
        return trained("teach", f"{data}_text_seed{seed}", [*text_words(data), *given])
    own = {"id-crossed": id_words(data), "text-crossed": text_words(data)}[kind]
    return trained("teach", f"{data}_{kind}_seed{seed}", [*own, "cross_fit=2", *given])


def soft_labels(kind: str, store: str, data: str, seed: int, words: list[str], run: Path | None = None) -> str:
    """The name of one of the :data:`STORES` of a teacher, with the vectors of its text models; written if need be.

    iLoRA, and any teacher of MovieLens-1M, answers late events in overlapping windows, ten times as fast as one by one.
    """
    run, root = run or teacher(data, seed, words, kind), root_of(words)
    name = run.name if store == "lists" else f"{run.name}-{store}"
    vectors = "text" if any(one.startswith("text") for one in TEACHERS[kind]) else "none"
    given = [f"store={name}", *STORES[store]]
    given += [] if any(word.startswith("vectors=") for word in given) else [f"vectors={vectors}"]
    context = 50 if "ilora" in TEACHERS[kind] else CONTEXT.get(data)
    given += [f"min_context={context}"] if context else []
    if not (root / "soft_labels" / name / "manifest.json").is_file():
        deshi("label", [str(run), *given, f"paths.root={root}"])
    return name


def show(data: str, found: list[dict[str, Any]]) -> None:
    """Markdown: mean and standard deviation over the seeds, gains, share of the teacher's gain, paired tests.

    A model's seeds are those that the file holds; its gain is over the plain student of the same seeds.
    """
    names = list(dict.fromkeys(name for one in found for name in one["models"]))
    print(f"\n{data}\n| model | seeds | part | NDCG@10 | Recall@10 | gain | share of the teacher's |")
    print("| --- " * 7 + "|")
    for part in ("validation", "test"):
        for name in names:
            seeds = [one for one in found if f"{part}/{SHOWN[0]}" in one["models"].get(name, {})]
            if not seeds:  # a refitted model has no validation figure
                continue
            protocol = REFITTED if name.endswith(REFITTED) else ""
            columns = [[one["models"][name][f"{part}/{metric}"] for one in seeds] for metric in SHOWN]
            mean, base, best = (
                mean_of(seeds, other, f"{part}/{SHOWN[0]}")
                for other in (name, f"plain{protocol}", f"teacher{protocol}")
            )
            gain = f"{mean / base - 1:+.1%}"
            share = f"{(mean - base) / (best - base):.0%}" if best > base and name != f"plain{protocol}" else ""
            numbers = " ".join(str(one["seed"]) for one in seeds)
            print(f"| {name} | {numbers} | {part} | {' | '.join(map(cell, columns))} | {gain} | {share} |")
    for refit in (False, True):  # compared within one protocol
        plain = f"plain{REFITTED}" if refit else "plain"
        alike = [name for name in names if name.endswith(REFITTED) is refit and name != plain]
        for shared, same in by_seeds(found, alike).items():
            compare([one for one in found if one["seed"] in shared], [plain, *same], plain)


def mean_of(found: list[dict[str, Any]], name: str, metric: str) -> float:
    """A model's mean over these seeds; not a number where one of them lacks it."""
    return statistics.mean(one["models"].get(name, {}).get(metric, math.nan) for one in found)


def by_seeds(found: list[dict[str, Any]], names: list[str]) -> dict[tuple[int, ...], list[str]]:
    """The models, those whose test ranks are kept for the same seeds together: a family of tests."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        seeds = tuple(one["seed"] for one in found if "top10" in one["models"].get(name, {}))
        if seeds:
            groups.setdefault(seeds, []).append(name)
    return groups


if __name__ == "__main__":
    main()
