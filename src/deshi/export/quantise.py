"""An int8 graph: weights in eight bits, activations quantised as they come (onnxruntime's dynamic quantisation)."""

from __future__ import annotations

import logging
from pathlib import Path

from deshi.export.session import NEEDED
from deshi.types import DeshiError


def write_int8(graph: Path, path: Path) -> None:
    """Write the int8 form of an fp32 graph: matrix products and embeddings, with a scale for each matrix.

    Raises:
        DeshiError: if a package is missing.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise DeshiError(NEEDED) from error
    logger = logging.getLogger()  # onnxruntime recommends a preprocessing through the root logger
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        quantize_dynamic(str(graph), str(path), weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logger.setLevel(level)
