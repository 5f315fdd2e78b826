"""How long does the audit of a run take? Asked of MovieLens 1M: below 60 s on 2 cores.

With ``--shared FOLDER`` (holding data/shared-ml-1m) a student is trained for one epoch and evaluated in a folder of its
own first; with ``--run FOLDER`` a finished run is audited as it stands. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import deshi


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--run", help="a finished run of deshi fit")
    group.add_argument("--shared", help="a folder whose data/shared-ml-1m is MovieLens 1M")
    parser.add_argument("--dim", type=int, default=64, help="width of the student, with --shared")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    return parser.parse_args()


def trained(shared: Path, root: Path, dim: int) -> str:
    """Train for one epoch on the shared bundle, evaluate both parts, and return the run's folder."""
    (root / "data").symlink_to((shared / "data").resolve())
    place = [f"paths.root={root}", "data=ml-1m", "data.name=shared-ml-1m"]
    small = [f"student.dim={dim}", "train.max_epochs=1", "train.progress=false"]
    folder = str(deshi.fit(*place, *small).folder)
    deshi.evaluate(f"paths.root={root}", run=folder, part="both")
    return folder


def measure(run: str, root: Path) -> dict[str, Any]:
    """Audit once, with the seconds of each part."""
    begin = time.perf_counter()
    result = deshi.audit(f"paths.root={root}", run=run)
    seconds = time.perf_counter() - begin
    return {
        "subject": result.subject,
        "seconds": round(seconds, 1),
        "parts": {one.what: round(one.seconds, 1) for one in result.checked},
        "findings": [f"{one.severity}: {one.name}" for one in result.findings],
        "cores": os.cpu_count(),
        "platform": platform.platform(),
    }


def main() -> None:
    """Measure and print."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = arguments.run or trained(Path(arguments.shared), root, arguments.dim)
        found = measure(run, root)
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
