"""An int8 graph: weights in eight bits, activations quantised as they come (onnxruntime's dynamic quantisation)."""

from __future__ import annotations

import logging
from pathlib import Path

from deshi.configuration.needs import RUNTIME


def write_int8(graph: Path, path: Path) -> None:
    """Write the int8 form of an fp32 graph: matrix products and embeddings, with a scale for each channel.

    Weights take seven of the eight bits: processors without VNNI add two products in 16 bits, which eight bits overflow
    without a word, and a graph must answer the same wherever it runs.

    Raises:
        DeshiError: if a package is missing.
    """
    quantization = RUNTIME.load("onnxruntime.quantization")
    operators = RUNTIME.load("onnxruntime.quantization.registry").IntegerOpsRegistry
    # Attention has no weights, and what the quantiser makes of ONNX's own operator isn't valid.
    logger = logging.getLogger()  # onnxruntime recommends a preprocessing through the root logger
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        quantization.quantize_dynamic(
            str(graph), str(path), weight_type=quantization.QuantType.QInt8, per_channel=True, reduce_range=True,
            op_types_to_quantize=[name for name in operators if name != "Attention"],
        )  # fmt: skip
    finally:
        logger.setLevel(level)
