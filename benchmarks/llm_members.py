"""What a language model adds to text + counts: iLoRA over a text teacher's items, or vectors of other encoders.

    python benchmarks/llm_members.py amazon-toys --shared ../shared/data --seeds 0 --only imitate random second
    python benchmarks/llm_members.py amazon-toys amazon-beauty --shared ../shared/data --layers 30 --only imitate
    python benchmarks/llm_members.py amazon-toys --shared ../shared/data --seeds 0 --only mpnet smollm2 --together

Text teacher, counts and their ensemble are those of the whole run (``benchmarks/whole_run.py``; ``--of``: with that
``--label``) under the same ``--root``. iLoRA's prompts hold a token for each item, made of the text teacher's vector of
it; its scoring table begins as that teacher's, so that it knows items by text and ID. All variants use the first
``--layers`` layers of SmolLM2-135M and train for the same epochs. ``second``, the text teacher of another seed of the
whole run, is what a third member of the kind of the first one adds; ``mpnet``, ``smollm2``, ``words`` and so on are
that text teacher over other encoders' vectors of the texts. Each is ranked alone and joined with text and counts
(``--together``: all of them at once, too), text teachers also with counts alone, on validation and test; nothing is
selected on test. Figures land in ``benchmarks/results/llm-members-NAME.json``; what is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quality import common_parser, data_words, merged, trained, with_overrides
from teachers import SHOWN, cell, compare, tested

TRAIN = (
    "train=teach", "train.batch_positions=1600", "train.learning_rate=1e-3",
    "teacher.max_length=50", 'teacher.prompt.instruction="Bought:"',
)  # fmt: skip
IMITATE = "teacher.imitate=10.0"
HYBRID = (IMITATE, "teacher.prompt.item=hybrid", "teacher.prompt.title_tokens=12", "train.batch_positions=400")
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "imitate": (IMITATE,),
    "random": (IMITATE, "teacher.llm.random=true"),
    "frozen": (IMITATE, "teacher.lora.rank=0"),
    "one": (IMITATE, "teacher.lora.experts=1"),
    "eight": (IMITATE, "teacher.lora.experts=8"),
    "hybrid": HYBRID,
    "permuted": (*HYBRID, "teacher.prompt.permute_titles=true"),
}
"""What each variant changes: ``plain`` learns from the items that came next alone, the others also imitate the text
teacher's states; random weights, no LoRA, one expert, eight; titles beside the vectors, and those of other items."""
WORDS = "{_target_: deshi.teachers.encoders.WordEncoder}"
LLM = "llm: {_target_: deshi.teachers.llm.LLM, layers: 12, random: %s, dtype: bf16}"
SMOLLM2, RANDOM = (f"{{_target_: deshi.teachers.encoders.CausalEncoder, {LLM % value}}}" for value in ("false", "true"))
ENCODERS = {
    "mpnet": "{_target_: deshi.teachers.encoders.SentenceEncoder, "
    "name: sentence-transformers/all-mpnet-base-v2, dtype: bf16}",
    "smollm2": SMOLLM2,
    "smollm2-random": RANDOM,
    "words": WORDS,
    "minilm-words": f"[{{_target_: deshi.teachers.encoders.SentenceEncoder}}, {WORDS}]",
}
"""Text teachers over vectors of other encoders: a sentence encoder of five times MiniLM's size; the mean hidden state
of the first 12 of 30 layers of a language model, with trained and random weights; words alone, and beside MiniLM's."""
BASE = "text+counts"
SEEDS = (0, 1, 2)
"""Of the whole run."""


def main() -> None:
    options = arguments()
    for data in options.data:
        words = [*data_words(data, options.shared), f"paths.root={options.root}"]
        found = [one_seed(data, seed, words, options) for seed in options.seeds]
        settings = {"train": list(TRAIN), **{key: getattr(options, key) for key in ("epochs", "layers", "overrides")}}
        path = Path(__file__).parent / "results" / f"llm-members-{data}{options.label}.json"
        show(data, merged(path, settings, found))


def arguments() -> argparse.Namespace:
    parser = common_parser(__doc__, "ml-100k, ml-1m, amazon-beauty, amazon-toys; and words for iLoRA")
    parser.add_argument(
        "--only", nargs="+", choices=[*VARIANTS, *ENCODERS, "second"], default=["imitate", "random", "second"]
    )
    parser.add_argument("--together", action="store_true", help="also join all of --only with text and counts")
    parser.add_argument("--epochs", type=int, default=10, help="of a training of iLoRA")
    parser.add_argument("--layers", type=int, default=6, help="of the language model: the first so many of 30")
    parser.add_argument("--of", default="", help="the label of the whole run")
    parser.add_argument("--label", default="", help="ends the names of the runs and of the results file")
    return with_overrides(parser)


def one_seed(data: str, seed: int, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train or find the members of a seed, join each with text and counts, and test all of them."""
    text, counts, both = (step(data, f"{name}, seed {seed}", options) for name in ("text", "counts", "all"))
    models = {"text": tested(text, words), BASE: tested(both, words)}

    def join(name: str, *runs: Path) -> None:
        given = ["teacher=ensemble", "teacher.scale=log_softmax", f"seed={seed}", *words]
        given.append(f"teacher.members=[{','.join(map(str, runs))}]")
        label = f"{data}_{name.replace('+', '-')}{options.label}_seed{seed}"
        models[name] = tested(trained("teach", label, given), words)

    runs = {}
    for name, run in members(data, seed, text, words, options):
        runs[name], models[name] = run, tested(run, words)
        join(f"{BASE}+{name}", text, counts, run)
        if name in ENCODERS:
            join(f"counts+{name}", counts, run)
    if options.together:
        join(f"{BASE}+{'-'.join(runs)}", text, counts, *runs.values())
    return {"seed": seed, "models": models}


def step(data: str, name: str, options: argparse.Namespace) -> Path:
    """What a step of the whole run of this data set made."""
    for folder in sorted((options.root / "runs" / "run").glob(f"*_{data}{options.of}"), reverse=True):
        steps = {step["name"]: step for step in json.loads((folder / "plan.json").read_text())["steps"]}
        if name in steps and "folder" in steps[name]:
            return (folder / steps[name]["folder"]).resolve()
    missing = f"No run of {data}{options.of} under {options.root} has finished the step {name!r}"
    raise SystemExit(f"{missing}: python benchmarks/whole_run.py")


def members(
    data: str, seed: int, text: Path, words: list[str], options: argparse.Namespace
) -> Iterator[tuple[str, Path]]:
    """The further members by their names, each trained or found when it is its turn."""
    for name in options.only:
        label = f"{data}_llm-{name}{options.label}_seed{seed}"
        if name == "second":
            yield name, step(data, f"text, seed {(seed + 1) % len(SEEDS)}", options)
        elif name in ENCODERS:
            given = [f"config={text}", f"teacher.embeddings.encoder={ENCODERS[name]}", f"seed={seed}", words[-1]]
            yield name, trained("teach", label, given)
        else:
            given = [*words[:-1], "teacher=ilora", f"teacher.student={text}", f"teacher.llm.layers={options.layers}"]
            given += [*TRAIN, *VARIANTS[name], f"train.max_epochs={options.epochs}", f"seed={seed}", *options.overrides]
            yield name, trained("teach", label, [*given, words[-1]])


def show(data: str, found: list[dict[str, Any]]) -> None:
    """Markdown: mean and standard deviation over the seeds, the gain over text + counts, and the paired tests."""
    names = [name for name in found[0]["models"] if all(name in one["models"] for one in found)]
    heads = [f"{part}/{metric}" for part in ("validation", "test") for metric in SHOWN]
    print(f"\n{data}, {len(found)} seeds\n| model | {' | '.join(heads)} | validation against {BASE} | minutes |")
    print("| --- " * (len(heads) + 3) + "|")
    base = [one["models"][BASE]["validation/ndcg@10"] for one in found]
    for name in names:
        models = [one["models"][name] for one in found]
        gain = sum(model["validation/ndcg@10"] for model in models) / sum(base) - 1
        cells = [cell([model[key] for model in models]) for key in heads]
        print(f"| {name} | {' | '.join(cells)} | {gain:+.1%} | {models[0]['seconds'] / 60:.1f} |")
    compare(found, names, BASE)


if __name__ == "__main__":
    main()
