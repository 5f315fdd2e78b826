"""ONNX graphs of students, with dynamic batch and length."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.configuration.needs import EXPORTER
from deshi.models.base import SequentialRecommender
from deshi.models.caser import Caser
from deshi.models.item_table import ItemEmbedding, ItemTable
from deshi.serving.onnx_network import INPUTS, OUTPUT, VECTORS
from deshi.types import PAD, DeshiError

OPSET = 23
"""Of the graph: the first one that has attention as one operator, which is faster than the ten that it replaces."""


class LastHidden(nn.Module):
    """The computation of the graph: the hidden state ``(B, dim)`` in fp32 after each history's last item.

    Args:
        student: traceable, see :func:`traceable`.
    """

    def __init__(self, student: SequentialRecommender) -> None:
        super().__init__()
        self.student = student

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """``items (B, L)`` padded on the right with ``-1``, ``L <= max_length``, and ``lengths (B,)``."""
        return self.student.encode_last(items, lengths).float()


class LastHiddenOfVectors(nn.Module):
    """The same computation with the items' vectors as an input, so that the graph holds no item table.

    Args:
        student: traceable, with :class:`_GivenVectors` as its item table.
    """

    def __init__(self, student: SequentialRecommender) -> None:
        super().__init__()
        self.student = student

    def forward(self, items: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
        """``items (B, L)`` are rows of ``vectors (R, dim)`` less one, ``-1`` padding; ``vectors[0]`` is zero."""
        self.student.items.vectors = vectors
        return self.student.encode_last(items, lengths).float()


def write_graph(student: SequentialRecommender, path: Path, with_table: bool = True) -> None:
    """Write the graph of ``student.encode_last``: inputs ``items`` and ``lengths``, output ``hidden``.

    It is traced by ``torch.export`` with dynamic batch and length, the latter up to the student's ``max_length``.

    Args:
        student: whose graph it is.
        path: the ``.onnx`` file.
        with_table: whether the graph holds the item table; without, the vectors of a batch's items are a third input,
            and ``items`` are their numbers, see :class:`LastHiddenOfVectors`.

    Raises:
        DeshiError: if a package is missing, or the student does what ONNX can't express.
    """
    _check_packages()
    batch = torch.export.Dim("batch", min=1)
    width = min(3, student.max_length)
    length: Any = torch.export.Dim("length", min=1, max=student.max_length) if width > 1 else None
    example = [torch.tensor([[0] * width, [0] + [PAD] * (width - 1)]), torch.tensor([width, 1])]
    shapes: dict[str, Any] = {"items": {0: batch, 1: length}, "lengths": {0: batch}}
    network: nn.Module = (
        LastHidden(traceable(student)) if with_table else LastHiddenOfVectors(_followed(_copy_without_table(student)))
    )
    inputs = list(INPUTS)
    if not with_table:
        example.append(torch.zeros(4, student.dim))
        shapes[VECTORS] = {0: torch.export.Dim("rows", min=2), 1: None}
        inputs.append(VECTORS)
    try:
        with _quiet(), torch.no_grad():
            # Strict: the bytecode is traced, so that `len(tensor)` in a student stays symbolic.
            traced = torch.export.export(network.eval(), tuple(example), dynamic_shapes=shapes, strict=True)
            program = torch.onnx.export(
                traced, dynamo=True, input_names=inputs, output_names=[OUTPUT], verbose=False, opset_version=OPSET
            )
    except Exception as error:  # tracing runs the student's own code, which may raise anything
        raise DeshiError(
            f"{type(student).__name__} can't be exported to ONNX: {str(error).strip().splitlines()[0]} "
            "Expected tensor operations whose shapes don't depend on the data: see docs/export.md."
        ) from error
    assert program is not None
    _strip(program.model)
    program.save(str(path))


def _strip(model: Any) -> None:
    """Remove the exporter's notes: source lines and paths of this machine, a quarter of a small graph's size."""
    for part in (model, model.graph, *model.graph, *model.graph.initializers.values(), *model.functions.values()):
        part.metadata_props.clear()
        part.doc_string = None


def traceable(student: SequentialRecommender) -> SequentialRecommender:
    """A copy in evaluation whose item table is plain numbers and whose parts torch.export can follow.

    It computes the same. Recurrent layers become ONNX's own, since tracing would unroll them to a fixed length, and
    Caser's pooling takes the form that keeps the length dynamic.

    Raises:
        DeshiError: for a recurrent layer of a kind that no student here has.
    """
    return _followed(merged(student))


class _GivenVectors(ItemTable):
    """An item table whose rows are an input of the graph."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vectors = torch.zeros(2, dim)

    def forward(self, items: Tensor) -> Tensor:
        """See :class:`~deshi.models.item_table.ItemTable`."""
        return F.embedding(items + 1, self.vectors)

    def table(self) -> Tensor:
        """The given rows without the padding's."""
        return self.vectors[1:]


def _copy_without_table(student: SequentialRecommender) -> SequentialRecommender:
    """A copy in evaluation, in fp32 on the CPU, of all but the item table."""
    return copy.deepcopy(student, {id(student.items): _GivenVectors(student.dim)}).cpu().float().eval()


def _followed(plain: SequentialRecommender) -> SequentialRecommender:
    """The same student with the parts exchanged that torch.export can't follow."""
    if isinstance(plain, Caser):
        plain.__class__ = _TraceableCaser
    for name, module in list(plain.named_modules()):
        if isinstance(module, nn.GRU):
            parent, _, attribute = name.rpartition(".")
            setattr(plain.get_submodule(parent), attribute, _OnnxGRU(module))
    return plain


def merged(student: SequentialRecommender) -> SequentialRecommender:
    """A copy in evaluation whose input embedding is one table of numbers, whatever it was computed from."""
    with torch.no_grad():
        if type(student.items) is ItemEmbedding:  # not copied: a large table is most of the memory
            plain, rows = _copy_without_table(student), student.items.weight.detach().cpu().float()
        else:
            plain = copy.deepcopy(student).cpu().float().eval()
            rows = plain.items(torch.arange(PAD, plain.n_items))  # the padding's vector first, as an embedding holds it
    with torch.device("meta"):
        items = ItemEmbedding(plain.n_items, rows.shape[1])
    items.weight = nn.Parameter(rows, requires_grad=False)
    plain.items = items
    return plain


def rounded(student: SequentialRecommender) -> SequentialRecommender:
    """A copy of a merged student whose item table is rounded to fp16, in fp32."""
    plain = _copy_without_table(student)
    with torch.device("meta"):
        items = ItemEmbedding(student.n_items, student.dim)
    weight = cast(Tensor, student.items.weight)
    items.weight = nn.Parameter(weight.detach().half().float(), requires_grad=False)
    plain.items = items
    return plain


class _OnnxGRU(nn.Module):
    """A GRU layer as ONNX's operator, whose gates come in the order update, reset, candidate."""

    def __init__(self, layer: nn.GRU) -> None:
        super().__init__()
        if not layer.batch_first or layer.num_layers != 1 or layer.bidirectional or not layer.bias:
            raise DeshiError(f"{layer} can't be exported, expected batch_first, one layer, one direction and a bias.")
        self.hidden = layer.hidden_size
        weights = {name: _reordered(value.detach()) for name, value in layer.named_parameters()}
        self.register_buffer("inputs", weights["weight_ih_l0"][None])
        self.register_buffer("recurrent", weights["weight_hh_l0"][None])
        self.register_buffer("bias", torch.cat([weights["bias_ih_l0"], weights["bias_hh_l0"]])[None])
        self._operator = torch.compiler.allow_in_graph(_gru)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """``(B, L, width)`` -> ``(B, L, hidden)``, as the first of the layer's results."""
        # ONNX's layer takes (L, B, width) and gives (L, directions, B, hidden).
        states = self._operator(x.transpose(0, 1), self.inputs, self.recurrent, self.bias, self.hidden)
        return states.squeeze(1).transpose(0, 1), None


def _gru(x: Tensor, inputs: Tensor, recurrent: Tensor, bias: Tensor, hidden: int) -> Tensor:
    """ONNX's GRU operator in a traced graph: ``(L, B, width)`` -> ``(L, 1, B, hidden)``."""
    settings: dict[str, Any] = {"hidden_size": hidden, "linear_before_reset": 1}
    shape = (x.shape[0], 1, x.shape[1], hidden)
    return torch.onnx.ops.symbolic("GRU", (x, inputs, recurrent, bias), settings, dtype=x.dtype, shape=shape)


def _reordered(weight: Tensor) -> Tensor:
    """PyTorch's order of the gates (reset, update, candidate) as ONNX's."""
    reset, update, candidate = weight.chunk(3)
    return torch.cat([update, reset, candidate])


class _TraceableCaser(Caser):
    """Caser with ``max_pool2d`` in the place of ``max_pool1d``, for which tracing fixes the length."""

    def _horizontal(self, x: Tensor) -> list[Tensor]:
        pooled = []
        for height, convolution in enumerate(self.horizontal, start=1):
            activations = F.relu(convolution(x))[:, :, None]  # a height of 1, for the pooling over two dimensions
            best = F.max_pool2d(activations, (1, self.window - height + 1), stride=1)
            pooled.append(best[:, :, 0].transpose(1, 2))
        return pooled


def _check_packages() -> None:
    onnx, _ = (EXPORTER.load(module) for module in EXPORTER.modules)
    if not hasattr(torch.onnx, "ops"):
        raise DeshiError(f"Export needs PyTorch 2.8 or newer, but {torch.__version__} is installed (onnx {onnx}).")


@contextmanager
def _quiet() -> Iterator[None]:
    """No messages of the exporter about itself and about optional packages."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._dynamo", "onnxscript")]
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    levels = [(logger, logger.level) for logger in (*loggers, registration)]
    try:
        for logger, _ in levels:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
