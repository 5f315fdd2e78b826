"""A further rank of a training: ``python -m deshi.training STAGE DEVICES NODES ACCELERATOR``, for Lightning."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from deshi.configuration.schemas import DistillConfig, FitConfig, TeachConfig, TrainConfig
from deshi.hardware import limit_kernel_cache
from deshi.training import distill, fit, teach
from deshi.training._ranks import FirstRankFailed, connected
from deshi.types import DeshiError

TRAININGS: dict[str, tuple[Any, Any]] = {
    "fit": (FitConfig, fit.train_run),
    "teach": (TeachConfig, teach.train_run),
    "distill": (DistillConfig, distill.train_run),
}


def main(words: Sequence[str]) -> int:
    """Take part in a training of which the first rank says all but the number of processes; returns an exit code."""
    stage, devices, nodes, accelerator = words
    schema, train = TRAININGS[stage]
    limit_kernel_cache()
    try:
        with connected(stage, TrainConfig(devices=int(devices), nodes=int(nodes), accelerator=accelerator)) as ranks:
            fit.join(schema, train, ranks)
    except FirstRankFailed:
        return 2
    except KeyboardInterrupt:
        return 130
    except (DeshiError, RuntimeError) as error:
        if os.environ.get("DESHI_TRACEBACK") == "1":
            raise
        print(f"error of a further process of the training: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
