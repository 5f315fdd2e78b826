"""A network's ONNX graph in onnxruntime: histories in, hidden states out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from deshi.configuration.needs import RUNTIME
from deshi.types import PAD, DeshiError

if TYPE_CHECKING:
    import onnxruntime

INPUTS = ("items", "lengths")
VECTORS = "vectors"
OUTPUT = "hidden"


class OnnxNetwork:
    """A graph that is ready to run; safe to be called from several threads at a time.

    Args:
        path: the ``.onnx`` file.
        threads: CPU threads of one call; of a small network, one is the fastest.
        table: ``(n_items, dim)`` the item table, for a graph that holds none: it gets the rows of a batch's items.

    Raises:
        DeshiError: if onnxruntime isn't installed, can't read the file, or the graph has other inputs and outputs.
    """

    def __init__(self, path: Path, threads: int = 1, table: NDArray[np.floating] | None = None) -> None:
        ort = RUNTIME.load()
        if threads < 1:
            raise DeshiError(f"threads is {threads}, expected at least 1.")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # its warnings are about optimisations
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise DeshiError(f"{path} can't be read by onnxruntime ({error}). Run deshi export again.") from error
        reads_vectors = _check_signature(path, self._session)
        if reads_vectors and table is None:
            raise DeshiError(f"{path} holds no item table: give the bundle's.")
        self._table = table if reads_vectors else None

    def hidden(self, items: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """The hidden states ``(B, dim)`` after each history.

        Args:
            items: ``(B, L)`` item indices, oldest first, ``-1`` on the right, ``L`` at most the network's longest.
            lengths: ``(B,)`` the real lengths, at least 1.
        """
        inputs: dict[str, NDArray[Any]] = {"items": items, "lengths": lengths}
        if self._table is not None:
            distinct = np.unique(items[items != PAD])
            numbers = np.where(items == PAD, PAD, np.searchsorted(distinct, items))
            padding = np.zeros((1, self._table.shape[1]), dtype=np.float32)
            vectors = np.concatenate([padding, self._table[distinct].astype(np.float32)])
            inputs = {"items": numbers, "lengths": lengths, VECTORS: vectors}
        outputs = self._session.run([OUTPUT], inputs)
        return cast("NDArray[np.float32]", outputs[0])


def pad(histories: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Histories of one item and more as ``items (B, L)`` with :data:`~deshi.types.PAD` on the right, and lengths."""
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    items = np.full((len(histories), int(lengths.max())), PAD, dtype=np.int64)
    items[np.arange(items.shape[1]) < lengths[:, None]] = np.concatenate(histories)
    return items, lengths


def _check_signature(path: Path, session: onnxruntime.InferenceSession) -> bool:
    """Whether the graph reads vectors beside items and lengths; another one is refused."""
    inputs, outputs = (tuple(node.name for node in nodes) for nodes in (session.get_inputs(), session.get_outputs()))
    if inputs[:2] != INPUTS or inputs[2:] not in ((), (VECTORS,)) or outputs != (OUTPUT,):
        raise DeshiError(
            f"{path} has the inputs {', '.join(inputs)} and outputs {', '.join(outputs)}, expected "
            f"{', '.join(INPUTS)} and {OUTPUT}. Run deshi export again."
        )
    return len(inputs) > len(INPUTS)
