"""What every student must keep on its way to ONNX: the same answers, at every batch size and length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from deshi.models.base import SequentialRecommender
from deshi.models.gru4rec import GRU4Rec
from deshi.models.sasrec import SASRec
from deshi.serving.graph import merged, traceable, write_graph
from deshi.serving.onnx_network import OnnxNetwork, pad
from deshi.serving.quantization import write_int8
from deshi.testing.students import DIM, MAX_LENGTH, N_ITEMS, histories, seeded
from deshi.types import DeshiError
from student_variants import STUDENTS

QUICK = ("sasrec_rotary", "gru4rec_projected")
"""Tracing takes seconds: the other students are traced by the slow tests."""

EXAMPLES = [
    pytest.param(build, id=name, marks=[] if name in QUICK else [pytest.mark.slow]) for name, build in STUDENTS.items()
]


def exported(student: SequentialRecommender, folder: Path) -> OnnxNetwork:
    write_graph(student, folder / "model.onnx")
    return OnnxNetwork(folder / "model.onnx")


@pytest.mark.parametrize("build", EXAMPLES)
def test_a_graph_answers_as_its_student(build: Callable[..., SequentialRecommender], tmp_path: Path) -> None:
    """Batches of one, histories of one item and of the greatest length must not be fixed by the tracing's example."""
    student = seeded(build, dropout=0.5).eval()
    network = exported(student, tmp_path)
    for lengths in ([1], [MAX_LENGTH], [1, 1], [3, MAX_LENGTH, 1, 5, 2]):
        for width in {max(lengths), MAX_LENGTH}:
            items, sizes = histories(lengths, seed=len(lengths), width=width)
            with torch.no_grad():
                expected = student.last_hidden(items, sizes)
            found = torch.from_numpy(network.hidden(items.numpy(), sizes.numpy()))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert all(module is not None for module in student.modules()) and type(student) is type(seeded(build))


@pytest.mark.parametrize("max_length", [1, 2])
@pytest.mark.slow
def test_students_that_read_one_or_two_items_export_too(max_length: int, tmp_path: Path) -> None:
    """A dynamic length needs two lengths at least; the shortest students have one."""
    student = seeded(SASRec, max_length=max_length).eval()
    items, lengths = histories([max_length, 1])
    with torch.no_grad():
        expected = student.last_hidden(items, lengths)
    found = torch.from_numpy(exported(student, tmp_path).hidden(items.numpy(), lengths.numpy()))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


class Computed(nn.Module):
    """An item table that is made from other vectors, by operations that ONNX needn't know."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(N_ITEMS, 3, generator=torch.Generator().manual_seed(0)))
        self.adapter = nn.Linear(3, DIM)

    def forward(self, items: Tensor) -> Tensor:
        known, places = items.clamp(min=0).unique(return_inverse=True)
        return self.adapter(self.vectors[known])[places].masked_fill((items < 0)[..., None], 0.0)

    def table(self) -> Tensor:
        return self.adapter(self.vectors)


def test_a_computed_item_table_is_merged() -> None:
    """Serving must need no language model's vectors: text teachers and distilled students make tables of them."""
    student = seeded(SASRec).eval()
    student.items = Computed()  # type: ignore[assignment]
    plain = merged(student)
    items, lengths = histories([4, 1])
    with torch.no_grad():
        torch.testing.assert_close(plain.last_hidden(items, lengths), student.last_hidden(items, lengths))
        torch.testing.assert_close(plain.item_table(), student.item_table())
    assert [name for name in plain.state_dict() if name.startswith("items.")] == ["items.weight"]
    assert isinstance(student.items, Computed), "the student itself must stay as it was"


def test_unusual_recurrent_layers_are_refused() -> None:
    """ONNX's GRU would silently compute something else than a layer without a bias."""
    student = seeded(GRU4Rec)
    student.layers[0] = nn.GRU(DIM, 128, bias=False, batch_first=True)
    with pytest.raises(DeshiError, match="expected batch_first, one layer"):
        traceable(student)


class DataDependent(SASRec):
    """A student that branches on what it reads."""

    def encode_last(self, items: Tensor, lengths: Tensor) -> Tensor:
        found = super().encode_last(items, lengths)
        return found if bool((lengths > 1).all()) else -found


def test_what_onnx_cannot_express_is_an_error_with_a_reason(tmp_path: Path) -> None:
    """A student of one's own may do anything; torch.export's page of advice must not be all that is said."""
    with pytest.raises(DeshiError, match="DataDependent can't be exported to ONNX"):
        write_graph(seeded(DataDependent), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_int8_is_close_and_smaller(tmp_path: Path) -> None:
    """Quantised weights may move scores a little; a graph that is far off would be useless, a larger one pointless."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = SASRec(400, 64, MAX_LENGTH, blocks=1).eval()
    network = exported(student, tmp_path)
    write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    items, lengths = histories([8, 3])
    full = network.hidden(items.numpy(), lengths.numpy())
    small = OnnxNetwork(tmp_path / "int8.onnx").hidden(items.numpy(), lengths.numpy())
    assert 0 < abs(full - small).max() < 0.3
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    ]
    assert sum(weight.size for weight in weights) > 400 * 64
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) <= 64  # two products fit into 16 bits
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "model.onnx").stat().st_size


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    """The library's own message names an error code, not what to do."""
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(DeshiError, match="Run deshi export again"):
        OnnxNetwork(tmp_path / "model.onnx")
    with pytest.raises(DeshiError, match="threads is 0"):
        OnnxNetwork(tmp_path / "model.onnx", threads=0)


def test_histories_are_padded_on_the_right() -> None:
    """The graph reads the last item's place from the length: padding on the left would be read as items."""
    items, lengths = pad([torch.tensor([5, 6, 7]).numpy(), torch.tensor([8]).numpy()])
    assert items.tolist() == [[5, 6, 7], [8, -1, -1]] and lengths.tolist() == [3, 1]
