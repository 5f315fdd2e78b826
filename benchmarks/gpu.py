"""A GPU beside the CPU: parity of the losses, positions/s of fit and distill, label rows/s; under ten minutes.

python benchmarks/gpu.py [--output gpu.json] [--llm HuggingFaceTB/SmolLM2-135M-Instruct]
python benchmarks/gpu.py --device cpu --tiny --llm none

Parity: a student without dropout (whose masks are drawn by the device) is fitted and distilled for two epochs on random
events in fp32, on the CPU and on the device; the epochs' losses must agree to 1e-4. Speed: random events of
MovieLens-1M's size, the default batches of 3,200 positions and eight times as large ones; an epoch's seconds are those
between its beginning and the reading of its loss, of all epochs but the first and the last, which warm up and validate.
Labels: lists of 100 after every training event, of a student and of iLoRA over the language model; the time to load
the teacher is taken away. Rows that would begin after eight minutes are left out. Writes FILE.json and FILE.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import deshi
from deshi.hardware import training_device
from deshi.runs import Run
from deshi.types import DeshiError

LAST_START = 480.0
"""Seconds after which no further row is begun."""
AGREES = 1e-4
Row = dict[str, Any]


def main() -> None:
    """Measure all parts and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--llm", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="name, folder or file; none")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        result = Bench(root, options.device, options.tiny, options.llm).run()
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))


class Bench:
    """The measurements on one device.

    Args:
        root: a folder for data and runs.
        device: ``cpu`` or ``cuda``.
        tiny: whether only to show that everything runs.
        llm: name of the language model, or ``none``.
    """

    def __init__(self, root: str, device: str, tiny: bool, llm: str) -> None:
        self.device, self.tiny, self.llm = training_device(device).type, tiny, llm
        self.words = (f"paths.root={root}", "train.progress=false")
        self.begin = time.perf_counter()

    def run(self) -> Row:
        """All parts: facts about the machine, and a list of rows for each part."""
        users, length, items = (40, 12, 50) if self.tiny else (6_000, 166, 3_400)
        prepare(self.words[0], "small", *((30, 10, 40) if self.tiny else (500, 60, 1_000)))
        prepare(self.words[0], "large", users, length, items)
        small = self._fit("small", "cpu", "train.max_epochs=2", *SAME)
        deshi.label(self.words[0], run=small, store="small", k=20)
        on_gpu = self.device == "cuda"
        name = torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
        return {
            "device": name, "torch": torch.__version__, "tiny": self.tiny,
            "parity": self._parity(small), **self._speed_and_labels(small),
            "seconds": round(time.perf_counter() - self.begin),
        }  # fmt: skip

    def _fit(self, data: str, device: str, *words: str) -> Run:
        return deshi.fit(*self.words, f"data.name={data}", f"train.accelerator={device}", *words)

    def _distill(self, data: str, device: str, *words: str) -> Run:
        store = f"soft_labels=[{data}]"
        return deshi.distill(*self.words, f"data.name={data}", f"train.accelerator={device}", store, *words)

    def _parity(self, fitted: Run) -> list[Row]:
        rows = []
        for stage, train in (("fit", self._fit), ("distill", self._distill)):
            here = fitted if stage == "fit" else train("small", "cpu", "train.max_epochs=2", *SAME)
            there = train("small", self.device, "train.max_epochs=2", *SAME)
            for epoch, (left, right) in enumerate(zip(losses(here), losses(there), strict=True), 1):
                difference = abs(right / left - 1)
                rows.append({"stage": stage, "epoch": epoch, "cpu": left, "device": right, "difference": difference})
        return rows

    def _speed_and_labels(self, small: Run) -> dict[str, list[Row]]:
        dims, formats, sizes = ((16,), ("fp32",), (400,)) if self.tiny else ((64, 128), ("fp32", "bf16"), (3200, 25600))
        teacher = self._fit("large", self.device, "train.max_epochs=1", f"student.dim={dims[0]}")
        labels: list[Row] = []
        self._add(labels, {"teacher": "sasrec"}, lambda: self._rows_per_second(teacher, "large"))
        if self.llm != "none":
            self._add(labels, {"teacher": f"ilora over {Path(self.llm).name}"}, lambda: self._language_model(small))
        rows: list[Row] = []
        for stage, train in (("fit", self._fit), ("distill", self._distill)):
            for dim in dims:
                for size in sizes:
                    for precision in formats:
                        what: Row = {"stage": stage, "dim": dim, "batch": size, "precision": precision}
                        self._add(rows, what, partial(self._positions, train, what))
        return {"speed": rows, "labels": labels}

    def _positions(self, train: Callable[..., Run], what: Row) -> Row:
        run = train(
            "large", self.device, f"student.dim={what['dim']}", f"train.batch_positions={what['batch']}",
            "train.max_batch_size=4096", f"train.precision={what['precision']}", "train.max_epochs=4",
            "train.validate_every=4",
        )  # fmt: skip
        epochs = pl.read_csv(run.folder / "epochs.csv")[1:-1]
        positions, seconds = (float(sum(epochs[name].to_list())) for name in ("train/positions", "seconds"))
        return {"positions_per_second": round(positions / seconds)}

    def _language_model(self, student: Run) -> Row:
        try:
            run = deshi.teach(
                *self.words, "data.name=small", f"train.accelerator={self.device}", "teacher=ilora",
                f"teacher.student={student.folder}", f"teacher.llm.name={self.llm}", "teacher.max_length=50",
                "train.max_epochs=1", "train.max_minutes=1", "train.batch_positions=1600",
            )  # fmt: skip
        except DeshiError as error:
            return {"left_out": str(error)}
        return self._rows_per_second(run, "ilora")

    def _rows_per_second(self, run: Run, store: str) -> Row:
        begin = time.perf_counter()
        run.scorer(str(training_device("auto")))
        loaded = time.perf_counter()
        result = deshi.label(self.words[0], run=run, store=store, k=100, positions="train")
        loading, whole = loaded - begin, time.perf_counter() - loaded
        rows = int(result.soft_labels.covered.sum())
        speed = round(rows / max(whole - loading, 1e-3))
        return {"rows": rows, "rows_per_second": speed, "seconds_to_load": round(loading, 1)}

    def _add(self, rows: list[Row], what: Row, measure: Callable[[], Row]) -> None:
        """Add a row, or the reason why it isn't measured."""
        late = time.perf_counter() - self.begin > LAST_START
        rows.append(what | ({"left_out": "no time left"} if late else measure()))
        print(json.dumps(rows[-1]), flush=True)


SAME = ("student.dim=32", "student.dropout=0.0", "train.precision=fp32")


def prepare(root: str, name: str, users: int, length: int, items: int) -> None:
    """Events of which every other one follows from the one before it, so that there is something to learn."""
    draw = np.random.default_rng(0)
    values = (draw.random((users, length)) ** 3 * items).astype(np.int64)
    for column in range(1, length, 2):
        values[:, column] = (values[:, column - 1] * 7 + 3) % items
    events = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), length), "item_id": values.ravel(),
            "timestamp": np.tile(np.arange(length), users),
        }
    )  # fmt: skip
    deshi.prepare(deshi.Dataset.from_frames(events, name=name, time_unit="position"), root)


def losses(run: Run) -> list[float]:
    """The mean loss of each epoch."""
    return [float(value) for value in pl.read_csv(run.folder / "epochs.csv")["train/loss_epoch"]]


def markdown(result: Row) -> str:
    """The tables."""
    lines = [f"{result['device']}, PyTorch {result['torch']}, {result['seconds']} s in all", ""]
    agree = all(row["difference"] <= AGREES for row in result["parity"])
    lines += [f"Losses {'agree' if agree else 'DO NOT AGREE'} to {AGREES:g}.", ""]
    for part in ("parity", "speed", "labels"):
        names = list(dict.fromkeys(name for row in result[part] for name in row))
        lines += ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "| --- " * len(names) + "|"]
        lines += ["| " + " | ".join(_shown(row.get(name, "")) for name in names) + " |" for row in result[part]]
        lines.append("")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
