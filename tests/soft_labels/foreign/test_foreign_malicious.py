"""Files that try to run code, to write into foreign memory or to fill it: each is refused."""

from __future__ import annotations

import builtins
import importlib
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deshi.soft_labels.foreign._pickled_frames import read_pickled_frame
from deshi.soft_labels.foreign._tensors import read_tensor
from deshi.types import DeshiError


class Call:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def op(text: str) -> bytes:
    """A text as protocol 4 writes it."""
    return b"\x8c" + bytes([len(text)]) + text.encode()


def named(module: str, name: str) -> bytes:
    """``STACK_GLOBAL`` of a name."""
    return op(module) + op(name) + b"\x93"


def objects(value: Any) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """The file that an attack would make; it must not exist when the test ends."""
    return tmp_path / "owned"


ATTACKS: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda command: pickle.dumps(Call(os.system, command)),
    "protocol 0": lambda command: pickle.dumps(Call(os.system, command), protocol=0),
    "eval": lambda command: pickle.dumps(Call(builtins.eval, f"__import__('os').system({command!r})")),
    "exec": lambda command: pickle.dumps(Call(builtins.exec, f"import os; os.system({command!r})")),
    "getattr chain": lambda command: pickle.dumps(
        Call(getattr, Call(importlib.import_module, "os"), "system"), protocol=2
    ),
    "partial": lambda command: pickle.dumps(partial(os.system, command)),
    "inside a dict": lambda command: pickle.dumps({"a": [1, (2, Call(os.system, command))]}),
    "inside an object array": lambda command: pickle.dumps(objects(Call(os.system, command))),
    "inside nested object arrays": lambda command: pickle.dumps(objects(objects([Call(os.system, command)]))),
    "pickle in a pickle": lambda command: pickle.dumps(Call(pickle.loads, pickle.dumps(Call(os.system, command)))),
    "numpy's loader": lambda command: pickle.dumps(Call(np.load, command)),
    "torch's loader": lambda command: pickle.dumps(Call(torch.load, command)),
    "a tensor": lambda command: pickle.dumps(torch.zeros(2)),
    "a whole model": lambda command: pickle.dumps(torch.nn.Linear(2, 2)),
    "copyreg._reconstructor": lambda command: b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    "INST": lambda command: b"(S'" + command.encode() + b"'\nios\nsystem\n.",
    "OBJ": lambda command: b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
    "STACK_GLOBAL with a dotted name": lambda command: b"\x80\x04" + named("numpy", "ndarray.__reduce__") + b".",
    "STACK_GLOBAL through numpy": lambda command: b"\x80\x04" + named("numpy", "os.system") + b".",
    "STACK_GLOBAL from the memo": lambda command: (
        b"\x80\x04" + op("os") + b"\x94" + op("system") + b"\x940h\x00h\x01\x93" + op(command) + b"\x85R."
    ),
    "STACK_GLOBAL of numbers": lambda command: b"\x80\x04K\x01K\x02\x93.",
    "an extension code": lambda command: b"\x80\x02\x82\x01.",
    "a persistent id": lambda command: b"\x80\x02" + b"U\x02idQ.",
    "a persistent id in text": lambda command: b"Pid\n.",
    "an out-of-band buffer": lambda command: b"\x80\x05\x97.",
    "calling a call's result": lambda command: b"\x80\x04" + named("collections", "OrderedDict") + b")R)R.",
    "calling text": lambda command: b"\x80\x04" + op("system") + op(command) + b"\x85R.",
    "state on a class": lambda command: b"\x80\x04" + named("numpy", "ndarray") + b"}" + op("x") + b"K\x01sb.",
    "state on a list": lambda command: b"\x80\x04]}b.",
    "a class itself": lambda command: b"\x80\x04" + named("numpy", "ndarray") + b".",
    "an ndarray of another class": lambda command: (
        b"\x80\x04" + named("numpy.core.multiarray", "_reconstruct") + named("collections", "OrderedDict")
        + b"K\x00\x85C\x01b\x87R."
    ),
    "a structured dtype": lambda command: pickle.dumps(np.zeros(1, dtype=[("a", "O")])),
    "an object in a scalar": lambda command: (
        b"\x80\x04" + named("numpy.core.multiarray", "scalar") + named("numpy", "dtype") + op("O8")
        + b"\x89\x88\x87R" + pickle.dumps(Call(os.system, command), protocol=4)[2:-1] + b"\x86R."
    ),
    "_codecs with another codec": lambda command: (
        b"\x80\x04" + named("_codecs", "encode") + op("x") + op("zip") + b"\x86R."
    ),
    "slice misused": lambda command: b"\x80\x04" + named("builtins", "slice") + op("x") + b"\x85R.",
    "items set on a class": lambda command: b"\x80\x04" + named("numpy", "dtype") + op("x") + op("y") + b"s.",
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_executed(name: str, tmp_path: Path, sentinel: Path) -> None:
    """Whatever a pickle asks for, only data come out of it, or a refusal that names the file."""
    file = tmp_path / "evil.pkl"
    file.write_bytes(ATTACKS[name](f"touch {sentinel}"))
    with pytest.raises(DeshiError, match="evil.pkl"):
        read_pickled_frame(file)
    assert not sentinel.exists()


def test_the_attacks_work_where_they_are_let(tmp_path: Path, sentinel: Path) -> None:
    """A sentinel that would never be made proves nothing: Python's own unpickler makes it."""
    for name in ("os.system", "inside nested object arrays", "STACK_GLOBAL from the memo", "INST"):
        pickle.loads(ATTACKS[name](f"touch {sentinel}"))
        assert sentinel.exists(), name
        sentinel.unlink()


def test_a_refusal_names_what_it_refuses(tmp_path: Path) -> None:
    """The reader must learn which name it was and what to do about it."""
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(Call(os.system, "true")))
    with pytest.raises(DeshiError, match=r"f\.pkl.*(posix|nt)\.system.*Nothing of it was executed.*to_parquet"):
        read_pickled_frame(tmp_path / "f.pkl")


BOMBS: dict[str, bytes] = {
    "bytes that aren't there": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "a range of rows": b"\x80\x04" + named("pandas.core.indexes.base", "_new_Index")
    + named("pandas", "RangeIndex") + b"}(" + op("start") + b"K\x00" + op("stop") + b"\x8a\x08" + b"\xff" * 7 + b"\x7f"
    + op("step") + b"K\x00u\x86R.",
    "an array without its content": b"\x80\x04" + named("numpy.core.numeric", "_frombuffer") + b"(C\x01x"
    + named("numpy", "dtype") + op("i8") + b"\x89\x88\x87RJ\xff\xff\xff\x7f\x85" + op("C") + b"tR.",
    "an array of nothings": b"\x80\x04" + named("numpy.core.numeric", "_frombuffer") + b"(C\x00"
    + named("numpy", "dtype") + op("U0") + b"\x89\x88\x87RJ\xff\xff\xff\x7f\x85" + op("C") + b"tR.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dict in itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "a record in its own arguments": b"\x80\x04" + named("collections", "OrderedDict") + b")R\x94K\x01h\x00s.",
    "lists nested 100,000 deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "a key that can't be hashed": b"\x80\x02}]K\x01s.",
    "an empty file": b"",
    "only a mark": b"\x80\x02(.",
    "a group without a beginning": b"\x80\x02]e.",
    "no end": b"\x80\x02K\x01",
    "two values": b"\x80\x02K\x01K\x02.",
    "no pickle": b"hello, world",
}  # fmt: skip


def array(dtype: bytes, content: bytes, shape: bytes = b"K\x01\x85") -> bytes:
    """``_frombuffer`` of a one-dimensional array."""
    return named("numpy._core.numeric", "_frombuffer") + b"(" + content + dtype + shape + op("C") + b"tR"


def frame(block: bytes, place: bytes) -> bytes:
    """A data frame of one column and one row, with a block at any place."""
    index = named("pandas.core.indexes.base", "_new_Index") + named("pandas", "RangeIndex") + b"}("
    index += op("start") + b"K\x00" + op("stop") + b"K\x01" + op("step") + b"K\x01u\x86R"
    blocks = b"(" + named("pandas._libs.internals", "_unpickle_block") + block + place + b"K\x02\x87Rt"
    manager = named("pandas.core.internals.managers", "BlockManager") + blocks + b"](" + index * 2 + b"e\x86R"
    return b"\x80\x04" + named("pandas", "DataFrame") + b")\x81}" + op("_mgr") + manager + b"sb."


FLOATS = named("numpy", "dtype") + op("f8") + b"\x89\x88\x87R"
HIDDEN = (
    named("numpy", "dtype")
    + op("O8")
    + b"\x89\x88\x87R(K\x03"
    + op("|")
    + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
EIGHT = b"C\x08AAAAAAAA"


def placed(start: int, stop: int) -> bytes:
    """``slice(start, stop)``."""
    return named("builtins", "slice") + b"J" + struct.pack("<i", start) + b"J" + struct.pack("<i", stop) + b"\x86R"


def test_a_frame_by_hand_is_read(tmp_path: Path) -> None:
    """The attacks below differ from this file in one thing each."""
    (tmp_path / "f.pkl").write_bytes(frame(array(FLOATS, b"C\x08" + struct.pack("<d", 2.5)), placed(0, 1)))
    assert read_pickled_frame(tmp_path / "f.pkl").columns["0"].tolist() == [2.5]


@pytest.mark.parametrize(
    "content",
    [
        frame(array(HIDDEN, EIGHT), placed(0, 1)),
        frame(array(FLOATS, EIGHT), placed(2_000_000_000, 2_000_000_001)),
        frame(array(FLOATS, b"C\x00", b"K\x00\x85"), placed(0, 1)),
    ],
    ids=["objects hidden by a dtype's state", "a block outside the frame", "a short column"],
)
def test_what_numpy_and_pandas_would_trust_is_refused(tmp_path: Path, content: bytes) -> None:
    """To numpy the eight bytes would be an object's address, and pandas would write outside its table."""
    (tmp_path / "f.pkl").write_bytes(content)
    with pytest.raises(DeshiError, match=r"f\.pkl is refused"):
        read_pickled_frame(tmp_path / "f.pkl")


def test_numpy_does_trust_a_dtypes_state() -> None:
    """Why numpy's own constructors aren't called: its dtype forgets that it holds objects when a file says so."""
    dtype = pickle.loads(b"\x80\x04" + HIDDEN + b".")
    assert dtype == np.dtype(object) and not dtype.hasobject


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_damage_are_refused(name: str, tmp_path: Path) -> None:
    """A file of a few bytes must not take the memory or the interpreter with it."""
    (tmp_path / "f.pkl").write_bytes(BOMBS[name])
    with pytest.raises(DeshiError, match=r"f\.pkl"):
        read_pickled_frame(tmp_path / "f.pkl")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    """A download that broke off anywhere must be an error of deshi's, not of Python's."""
    whole = pickle.dumps({"a": np.arange(5), "b": [(1, "x")]}, protocol=4)
    for length in range(len(whole)):
        (tmp_path / "f.pkl").write_bytes(whole[:length])
        with pytest.raises(DeshiError):
            read_pickled_frame(tmp_path / "f.pkl")


def test_random_damage_never_leaves_deshis_errors(tmp_path: Path) -> None:
    """Bytes that nobody thought of: whatever they describe, it is data or a DeshiError."""
    whole = pickle.dumps({"a": np.arange(5), "b": [(1, "x")], "c": np.float32(1)}, protocol=4)
    random = np.random.default_rng(0)
    for _ in range(500):
        broken = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            broken[place] = random.integers(0, 256)
        (tmp_path / "f.pkl").write_bytes(broken)
        try:
            read_pickled_frame(tmp_path / "f.pkl")
        except DeshiError:
            continue


def torch_file(path: Path, content: bytes, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip file of the form that ``torch.save`` writes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in parts.items():
            archive.writestr(f"archive/{name}", data)
    return path


def rebuilt(storage: str, shape: bytes, strides: bytes, count: int = 4) -> bytes:
    """The pickle of one tensor."""
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n" + storage.encode()
        + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ" + struct.pack("<i", count) + b"tQK\x00" + shape + strides
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )  # fmt: skip


def test_a_torch_file_with_code_is_refused(tmp_path: Path, sentinel: Path) -> None:
    """torch.load without weights_only would run it."""
    evil = pickle.dumps(Call(os.system, f"touch {sentinel}"), protocol=2)
    file = torch_file(tmp_path / "evil.pt", evil, {"version": b"3\n"})
    torch.save(Call(os.system, f"touch {sentinel}"), tmp_path / "saved.pt")
    torch.save({"x": torch.zeros(1), "y": Call(os.system, "x")}, tmp_path / "mixed.pt")
    for path in (file, tmp_path / "saved.pt", tmp_path / "mixed.pt"):
        with pytest.raises(DeshiError, match=r"names \w+\.system.*Nothing of it was executed.*torch\.save"):
            read_tensor(path)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(DeshiError, match=r"names torch\.nn\.modules\.linear\.Linear"):
        read_tensor(tmp_path / "model.pt")
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("content", "parts", "says"),
    [
        (rebuilt("FloatStorage", b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"), {"data/0": b"\0" * 16}, "repeats"),
        (rebuilt("FloatStorage", b"K\x08\x85", b"K\x01\x85"), {"data/0": b"\0" * 16}, "resize"),
        (rebuilt("FloatStorage", b"K\x02\x85", b"K\x09\x85"), {"data/0": b"\0" * 16}, "resize"),
        (rebuilt("FloatStorage", b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), {"data/0": b"\0" * 16}, "overflow"),
        (rebuilt("FloatStorage", b"K\x04\x85", b"K\x01K\x01\x86"), {"data/0": b"\0" * 16}, "stride"),
        (rebuilt("FloatStorage", b"K\x04\x85", b"K\x01\x85"), {"data/0": b"\0" * 3}, r"3 bytes"),
        (rebuilt("FloatStorage", b"K\x04\x85", b"K\x01\x85"), {}, "not found"),
        (rebuilt("QInt8Storage", b"K\x04\x85", b"K\x01\x85"), {"data/0": b"\0" * 4}, "expected one tensor"),
        (b"\x80\x02]q\x00h\x00a.", {}, "list of 1 entries, expected one tensor"),
        (b"\x80\x02K\x05.", {}, "int, expected one tensor"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning")
def test_impossible_tensors_are_refused(tmp_path: Path, content: bytes, parts: dict[str, bytes], says: str) -> None:
    """A tensor that says it is larger than its data would fill the memory when it is copied."""
    parts = {"version": b"3\n", "byteorder": b"little"} | parts
    with pytest.raises(DeshiError, match=says):
        read_tensor(torch_file(tmp_path / "f.pt", content, parts))


def test_damaged_torch_files(tmp_path: Path) -> None:
    """A download that broke off, and a file that is something else."""
    torch.save(torch.zeros(200), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for content in (b"", whole[:4], whole[: len(whole) // 2], whole[:-5], b"hello"):
        (tmp_path / "cut.pt").write_bytes(content)
        with pytest.raises(DeshiError, match=r"cut\.pt"):
            read_tensor(tmp_path / "cut.pt")
    with pytest.raises(DeshiError, match="can't be read"):
        read_tensor(tmp_path / "none.pt")


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_come_back(tmp_path: Path, kind: torch.dtype) -> None:
    """Every type that embeddings come in, views and parameters included."""
    base = torch.arange(12).reshape(3, 4).to(kind)
    for tensor in (base, base.T, base[1:, ::2], base[:0], torch.nn.Parameter(base.float())):
        torch.save(tensor, tmp_path / "t.pt")
        vectors = read_tensor(tmp_path / "t.pt")
        assert torch.equal(vectors, tensor.detach()) and vectors.dtype == tensor.dtype
    torch.save({"weight": base}, tmp_path / "t.pt")
    assert torch.equal(read_tensor(tmp_path / "t.pt"), base)
