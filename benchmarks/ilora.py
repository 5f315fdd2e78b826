"""iLoRA with a real language model on MovieLens-100K, and whether it is the language model that helps.

    python benchmarks/ilora.py --seeds 0 1 2 --only ilora               # half an hour a seed
    python benchmarks/ilora.py --epochs 5 --label=-short                # all variants, as long each
    python benchmarks/ilora.py --minutes 0.3 --layers 2 --answers 8 --label=-smoke

The gate is the ID student of ``benchmarks/teachers.py``; that student, the one of another seed and the text teacher are
taken from there, too, or trained if they are missing. Each variant of iLoRA has the same time. All are tested by
``deshi evaluate``: among all items and among 20, and ``words`` also by the titles that it writes; so are ensembles of
them and, beside these, of two ID students. Paired permutation tests compare all with the ID student and with two, all
seeds together. The end measures tokens and rows a second for both modes of prompts. Further ``key=value`` words go to
every ``deshi teach`` of iLoRA. Figures land in ``benchmarks/results/ilora-ml-100k.json``, beside those of other seeds
with the same settings; what is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quality import deshi, evaluated, peak_memory, preset, trained
from teachers import OTHER, cell, compare, tested, text_words

DATA = "ml-100k"
TRAIN = ("train.batch_positions=1600", "train.learning_rate=1e-3", "train.augment.item_drop=0.2")
HYBRID = (
    "teacher.prompt.item=hybrid",
    "teacher.max_length=30",
    "train.windows=random",
    "train.max_epochs=3",
    "train.batch_positions=160",
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "ilora": (),
    "random": ("teacher.llm.random=true",),
    "frozen": ("teacher.lora.rank=0",),
    "uniform": ("teacher.lora.gate=uniform",),
    "words": ("teacher.objective=both", "train.max_epochs=3", "train.max_batch_size=16"),
    "hybrid": HYBRID,
    "permuted": (*HYBRID, "teacher.prompt.permute_titles=true"),
}
"""What each variant changes. Titles stand in the prompts of the last two alone, so that only they tell of titles. Such
prompts are ten times as long, hence 30 items of a history, fewer epochs and smaller batches; a question with its 20
titles is four times as long as a history, hence fewer of both."""
SHOWN = (
    "validation/ndcg@10",
    "test/ndcg@10",
    "test/recall@10",
    "test/hit_ratio@1",
    "test/generated_hit_ratio_of_all@1",
    "test/generated_valid_ratio",
)
MODES = ("causal", "per_prefix")
STEPS, USERS = {"causal": 6, "per_prefix": 2}, 4
"""Training steps and exported histories of the measurement of speed: a minute of work in either mode."""


def main() -> None:
    options = arguments()
    if options.slice:
        print(json.dumps(measure(Path(options.gate), options)))
        return
    words = [f"data={DATA}", f"paths.root={options.root}"]
    deshi("prepare", words)
    path = Path(__file__).parent / "results" / f"ilora-{DATA}{options.label}.json"
    known = json.loads(path.read_text()) if path.exists() else {"speed": {}}
    if known.get("settings") != settings(options):
        known = {"settings": settings(options), "seeds": {}, "speed": known["speed"]}
    for seed in options.seeds:
        models = known["seeds"].setdefault(str(seed), {})
        for label, run in runs_of(seed, words, options):
            if models.get(label, {}).get("run") != str(run):
                models[label] = figures(label, run, words, options)
                write(path, known)
    gate = Path(known["seeds"][str(options.seeds[0])]["id"]["run"])
    for mode in MODES:
        if mode not in known["speed"]:
            known["speed"][mode] = sliced(mode, gate, options)
            write(path, known)
    show(known, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="key=value words for every deshi teach of iLoRA")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="these variants")
    parser.add_argument("--minutes", type=float, default=28, help="of a training, at most")
    parser.add_argument("--epochs", type=int, default=10, help="of a training, at most, where a variant hasn't its own")
    parser.add_argument("--layers", type=int, help="of the language model: the first so many")
    parser.add_argument("--answers", type=int, default=200, help="test examples that are answered in words")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--root", type=Path, default=Path("/tmp/deshi-bench"), help="where data and runs go")
    parser.add_argument("--label", default="", help="ends the names of the runs and of the results file")
    parser.add_argument("--slice", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--gate", help=argparse.SUPPRESS)
    return parser.parse_intermixed_args()


def runs_of(seed: int, words: list[str], options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """The models of one seed by their labels, each trained or found when it is its turn."""
    gate, other = (
        trained("fit", f"{DATA}_seed{s}", [f"experiment={DATA}", f"seed={s}", *words]) for s in (seed, seed + OTHER)
    )
    text = trained("teach", f"{DATA}_text_seed{seed}", [*text_words(DATA), f"seed={seed}", *words])
    yield from (("id", gate), ("text", text))
    yield "id+id", ensemble("id-id", [gate, other], seed, words)
    yield "id+text", ensemble("id-text", [gate, text], seed, words)
    for name in options.only:
        run = variant(name, gate, seed, words, options)
        yield name, run
        if name == "ilora":
            yield "id+ilora", ensemble(f"id-ilora{options.label}", [gate, run], seed, words)
            yield "id+text+ilora", ensemble(f"id-text-ilora{options.label}", [gate, text, run], seed, words)


def ensemble(name: str, members: list[Path], seed: int, words: list[str]) -> Path:
    """Members by z-scores, their weights chosen on validation."""
    given = ["teacher=ensemble", f"teacher.members=[{','.join(map(str, members))}]", "teacher.scale=zscore"]
    return trained("teach", f"{DATA}_{name}_zscore_seed{seed}", [*given, f"seed={seed}", *words])


def teacher_words(gate: Path, seed: int, options: argparse.Namespace) -> list[str]:
    """What all variants share."""
    given = ["teacher=ilora", f"teacher.student={gate}", f"seed={seed}", *TRAIN]
    given += [f"train.max_epochs={options.epochs}", f"train.max_minutes={options.minutes}"]
    given += [f"teacher.llm.layers={options.layers}"] if options.layers else []
    return [*given, *options.overrides]


def variant(name: str, gate: Path, seed: int, words: list[str], options: argparse.Namespace) -> Path:
    """Train one variant, or find it."""
    given = [*words, *teacher_words(gate, seed, options), *VARIANTS[name]]
    return trained("teach", f"{DATA}_ilora-{name}{options.label}_seed{seed}", given)


def figures(name: str, run: Path, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A model's figures: full ranking on both parts, 20 candidates on test, and how it was trained."""
    found = tested(run, words)
    given = [f"run={run}", "candidates=llara", f"paths.root={options.root}"]
    folder = evaluated([*given, *([f"answers={options.answers}"] if name == "words" else [])])
    metrics = json.loads((folder / "metrics.json").read_text())
    few = {key: value for key, value in metrics.items() if "hit_ratio" in key or "written" in key}
    record = json.loads((run / "run.json").read_text())
    told = {key: record.get(key) for key in ("llm", "trained_epochs", "selected_epoch", "positions", "threads")}
    memory = {key: peak_memory(path) for key, path in (("peak_gib", run), ("evaluate_peak_gib", folder))}
    return found | few | told | memory | {"run": str(run), "evaluations": [found["run"], str(folder)]}


def sliced(mode: str, gate: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The speed of one mode of prompts, measured in a process of its own."""
    given = [sys.executable, __file__, "--slice", mode, "--gate", str(gate), "--root", str(options.root)]
    given += ["--layers", str(options.layers)] if options.layers else []
    print("measuring the speed of", mode, flush=True)
    done = subprocess.run(given, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(gate: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Training steps and exported rows a second, of an untrained iLoRA: training changes no time."""
    from deshi.hardware import limit_kernel_cache
    from deshi.stages import compose

    limit_kernel_cache()
    import torch

    from deshi.runs import load_bundle, new_network

    words = [f"data={DATA}", *teacher_words(gate, options.seeds[0], options), f"paths.root={options.root}"]
    cfg = compose("teach", [*words, f"teacher.prompt.mode={options.slice}"], {})
    bundle = load_bundle(cfg.data.name, cfg.paths.data)
    teacher = new_network(cfg, bundle, bundle.n_items)
    read: list[int] = []
    teacher.network.llm.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    found = training_speed(teacher, cfg, bundle, read, STEPS[options.slice])
    found |= export_speed(teacher, bundle, USERS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found | {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "peak_gib": round(peak, 2)}


def training_speed(teacher: Any, cfg: Any, bundle: Any, read: list[int], steps: int) -> dict[str, float]:
    """Positions that are learnt from and tokens (padding included) a second, over some steps after the first one."""
    import torch

    from deshi.configuration.targets import build
    from deshi.hardware import choose_precision
    from deshi.training.trainer import data_module

    starts, ends = build(cfg.split)(bundle).train_ranges(bundle)
    batches = data_module(cfg, bundle, starts, ends, None, teacher.max_length).epoch(0)
    softmax, bf16 = build(cfg.loss), choose_precision(cfg.train.precision, torch.device("cpu")) == "bf16"
    optimizer = torch.optim.AdamW([p for p in teacher.parameters() if p.requires_grad], fused=True)
    learnt, begin = list[int](), 0.0

    def loss(hidden: Any, table: Any, targets: Any) -> Any:
        learnt.append(len(targets))
        return softmax(hidden, table, targets)

    teacher.train()
    for number, batch in zip(range(steps + 1), batches, strict=False):
        if number == 1:  # the first one prepares kernels
            read.clear()
            learnt.clear()
            begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            value = teacher.training_loss(batch, loss)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - begin
    return {"train_tokens_per_s": round(sum(read) / seconds), "train_positions_per_s": round(sum(learnt) / seconds, 1)}


def export_speed(teacher: Any, bundle: Any, users: int) -> dict[str, float]:
    """Rows a second of what ``deshi label`` does, over all events of some users, drawn once."""
    import numpy as np

    from deshi.models.scorers import scorer_of
    from deshi.soft_labels import Histories, Labeller, write_soft_labels

    chosen = np.random.default_rng(0).permutation(bundle.n_users)[:users]
    rows = np.concatenate([np.arange(bundle.offsets[user], bundle.offsets[user + 1]) for user in np.sort(chosen)])
    scorer = scorer_of(teacher)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        labeller = Labeller(scorer, Histories.of(bundle), 100)
        write_soft_labels(labeller, rows, Path(folder) / "store", teacher={"name": "ilora"})
        return {"export_rows_per_s": round(len(rows) / (time.perf_counter() - begin), 1), "export_rows": len(rows)}


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures of all seeds in a file share."""
    given = {key: getattr(options, key) for key in ("epochs", "minutes", "layers", "answers", "overrides")}
    return given | {"preset": preset(DATA), "text": text_words(DATA), "train": list(TRAIN)}


def write(path: Path, known: dict[str, Any]) -> None:
    """Keep what there is, so that an interrupted run goes on from there."""
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def show(known: dict[str, Any], options: argparse.Namespace) -> None:
    """Markdown: quality with its spread over the seeds, tests against the ID student, speed."""
    labels = list(dict.fromkeys(name for models in known["seeds"].values() for name in models))
    heads = [name.partition("/")[2] + (", validation" if name.startswith("validation") else "") for name in SHOWN]
    print(
        f"\n| model | seeds | {' | '.join(heads)} | epochs | minutes | peak GiB |\n" + "| --- " * (len(SHOWN) + 5) + "|"
    )
    for name in labels:
        models = [models[name] for models in known["seeds"].values() if name in models]
        cells = [cell([model[key] for model in models]) if key in models[0] else "" for key in SHOWN]
        first = models[0]
        cells += [str(first["trained_epochs"] or ""), f"{first['seconds'] / 60:.1f}", str(first["peak_gib"] or "")]
        print(f"| {name} | {len(models)} | {' | '.join(cells)} |")
    compared(known["seeds"], labels)
    print(
        "\n| prompts | training tokens/s | positions/s | exported rows/s | peak GiB | threads |\n" + "| --- " * 6 + "|"
    )
    for mode, speed in known["speed"].items():
        keys = ("train_tokens_per_s", "train_positions_per_s", "export_rows_per_s", "peak_gib", "threads")
        print(f"| {mode} | {' | '.join(str(speed[key]) for key in keys)} |")


def compared(seeds: dict[str, Any], labels: list[str]) -> None:
    """Paired tests of the models that every seed has against the ID student and as many ID students."""
    shared = [name for name in labels if all(name in models for models in seeds.values())]
    found = [{"seed": int(seed), "models": models} for seed, models in seeds.items()]
    for baseline in ("id", "id+id"):
        compare(found, shared, baseline)


if __name__ == "__main__":
    main()
