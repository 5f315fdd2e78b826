"""What a teacher is built from, and what every teacher can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deshi.data.bundle import Bundle
from deshi.students.base import Student


@dataclass(frozen=True, eq=False)
class Resources:
    """What a teacher may draw on when it is built.

    Attributes:
        bundle: the data: item texts, ids, fingerprint.
        cache: folder of downloads and of computed embeddings.
        load_student: from the name of a finished run of ``deshi fit`` (folder, folder's name or ``latest``) to its
            student in evaluation mode and its record ``run.json``; refuses runs on other data.
        device: where frozen models are to be computed.
    """

    bundle: Bundle
    cache: Path
    load_student: Callable[[str], tuple[Student, dict[str, Any]]]
    device: torch.device
