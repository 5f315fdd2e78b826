"""Write one artifact of each format into a folder: ``python tests/stored/write.py FOLDER``.

``tests/stored/format-2`` was written so by version 0.1. A later version must open it or refuse it with a sentence; when
a format changes, write a further folder and keep this one.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import deshi

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_movielens import write_tiny_movielens

SMALL = {"max_epochs": 2, "progress": False, "threads": 1, "precision": "fp32"}


def write(folder: Path) -> None:
    """A bundle, a run, its evaluation, its soft labels, a distilled run and its serving bundle, as small as can be."""
    with tempfile.TemporaryDirectory() as name:
        work, paths = Path(name), {"root": name}
        source = {"path": str(write_tiny_movielens(work / "files"))}
        deshi.prepare("ml-100k", paths=paths, data={"name": "tiny", "source": source})
        data = ("ml-100k", "data.name=tiny")
        network = {"dim": 8, "max_length": 10, "blocks": 1}
        run = deshi.fit(*data, paths=paths, student=network, train=SMALL, name="plain")
        evaluation = deshi.evaluate(run, part="both")
        deshi.label(run, store="lists", k=10)
        distilled = deshi.distill(
            *data, paths=paths, student=network, train=SMALL, soft_labels=["lists"], name="distilled"
        )
        deshi.export(distilled, output=work / "serving")
        left_out = shutil.ignore_patterns("checkpoints", "tensorboard", "*.txt", "*.png")
        for part in (
            "data/tiny",
            f"runs/fit/{run.name}",
            f"runs/evaluate/{evaluation.folder.name}",
            "soft_labels/lists",
        ):
            shutil.copytree(work / part, folder / part, ignore=left_out)
        shutil.copytree(work / "serving", folder / "serving")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
