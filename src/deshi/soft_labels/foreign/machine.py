"""An interpreter of pickles that builds descriptions and calls nothing.

``pickle.load`` imports what a file names and calls it. This machine follows the same opcodes (read by the standard
library's ``pickletools``) but keeps an inert :class:`Record` wherever ``pickle`` would import, call or set state. Names
outside the caller's list are refused as soon as they appear. What a record means is decided afterwards by
:mod:`deshi.soft_labels.foreign.decoding`; there is no code that a file could reach.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deshi.types import DeshiError

Allowed = Mapping[tuple[str, str], str]
"""From ``(module, name)`` to the kind under which the decoder knows it."""

LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
COST = {"EMPTY_SET": 256, "EMPTY_DICT": 64, "EMPTY_LIST": 64, "MEMOIZE": 128, "REDUCE": 256, "NEWOBJ": 256}
"""Bytes of memory that an opcode may take; 64 for those that aren't listed."""

SAVE_AGAIN = (
    "Save it again with numpy.save, torch.save (tensors only), parquet, CSV or JSON in the program that wrote it."
)


class Mark:
    """Where a group of stack entries begins."""


class Named:
    """A class or function that a file names: its kind and its name, never the thing itself."""

    __slots__ = ("kind", "name")

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name


class Record:
    """What ``pickle`` would have made by a call: the kind, the arguments, and what was set on the result."""

    __slots__ = ("args", "kind", "name", "pairs", "states")

    def __init__(self, kind: str, name: str, args: tuple[Any, ...]) -> None:
        self.kind, self.name, self.args = kind, name, args
        self.states: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []


class Machine:
    """One run over one pickle.

    Args:
        file: named in errors.
        allowed: the names that may appear.
        limit: bytes of memory that the result may take, by a rough account of the opcodes.
        persistent: the kind of records for persistent ids (torch's storages); None refuses them.
    """

    def __init__(self, file: Path, allowed: Allowed, limit: int, persistent: str | None = None) -> None:
        self.file, self.allowed, self.limit, self.persistent = file, allowed, limit, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Interpret a pickle's bytes.

        Returns:
            plain values, lists, dicts, tuples and sets with :class:`Record` and :class:`Named` in them.

        Raises:
            DeshiError: for a name that isn't allowed, an opcode that only code needs, damage, or too large a result.
        """
        try:
            return self._run(data)
        except DeshiError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise self.error(f"it is damaged or cut off ({type(error).__name__}: {error})") from error

    def error(self, what: str, advice: str = SAVE_AGAIN) -> DeshiError:
        """The refusal of this file."""
        return DeshiError(f"{self.file} is refused: {what}. Nothing of it was executed. {advice}")

    def _run(self, data: bytes) -> Any:
        spent, steps = len(data), STEPS
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            spent += COST.get(name, 64)
            if spent > self.limit:
                raise self.error(
                    f"it would take more than {self.limit:,} bytes of memory", "Raise limit if you trust it."
                )
            if name in LITERALS:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in steps:
                steps[name](self, argument)
            elif name == "STOP":
                break
            else:
                raise self.error(f"it uses the opcode {name}, which data don't need")
        return self._result()

    def _result(self) -> Any:
        if len(self.stack) != 1 or isinstance(self.stack[0], Mark):
            raise self.error(f"it is damaged: {len(self.stack)} values at its end, expected 1")
        return self.stack.pop()

    def _group(self) -> list[Any]:
        """Everything above the last mark, which goes too."""
        place = len(self.stack) - 1
        while not isinstance(self.stack[place], Mark):
            place -= 1
            if place < 0:
                raise self.error("it is damaged: a group without a beginning")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def _pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, Mark):
            raise self.error("it is damaged: a value was expected where a group begins")
        return value

    def _name(self, module: Any, name: Any) -> Named:
        kind = self.allowed.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if kind is None:
            raise self.error(
                f"it names {printable(f'{module}.{name}')}, expected plain data of numpy, pandas or Python"
            )
        return Named(kind, f"{module}.{name}")

    def _call(self, target: Any, args: Any) -> Record:
        if not isinstance(target, Named) or not isinstance(args, tuple):
            raise self.error(f"it calls a {type(target).__name__} with a {type(args).__name__}")
        return Record(target.kind, target.name, args)

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise self.error(f"it appends to a {_what(self.stack[-1])}")
        self.stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        pairs = list(zip(values[::2], values[1::2], strict=True))
        target = self.stack[-1]
        if isinstance(target, Record):
            target.pairs.extend(pairs)
        elif isinstance(target, dict):
            target.update((self._key(key), value) for key, value in pairs)
        else:
            raise self.error(f"it sets items of a {_what(target)}")

    def _key(self, value: Any) -> Any:
        """A value that may be hashed: hashing a tuple nested a million times would overflow the interpreter's stack."""
        flat = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(part, (str, int, float, bytes, type(None), Record)) for part in flat):
            raise self.error(f"it has a {_what(value)} as a key, expected text, a number or a flat tuple of them")
        return value

    def do_build(self, _: Any) -> None:
        """Set state: kept beside the record."""
        state = self._pop()
        if not isinstance(self.stack[-1], Record):
            raise self.error(f"it sets the state of a {_what(self.stack[-1])}")
        self.stack[-1].states.append(state)

    def do_reduce(self, _: Any) -> None:
        """A call, and a class's ``__new__``: a record of it."""
        args = self._pop()
        self.stack.append(self._call(self._pop(), args))

    def do_global(self, argument: str) -> None:
        """A name in the old spelling, ``module name`` in one line."""
        module, _, name = argument.partition(" ")
        self.stack.append(self._name(module, name))

    def do_stack_global(self, _: Any) -> None:
        """A name whose parts lie on the stack, wherever they came from."""
        name = self._pop()
        self.stack.append(self._name(self._pop(), name))

    def do_persistent(self, _: Any) -> None:
        """A reference to data outside the pickle, as torch files have for their storages."""
        if self.persistent is None:
            raise self.error("it refers to data outside itself, as files of torch.save do")
        self.stack.append(Record(self.persistent, "a storage", (self._pop(),)))

    def do_put(self, argument: int) -> None:
        """Remember the top under a number."""
        self.memo[argument] = self.stack[-1]

    def do_additems(self, _: Any) -> None:
        """Add a group to a set."""
        values = self._group()
        if not isinstance(self.stack[-1], set):
            raise self.error(f"it adds items to a {_what(self.stack[-1])}")
        self.stack[-1].update(self._key(value) for value in values)

    def do_dict(self, _: Any) -> None:
        """A dict of a group, in the oldest protocol."""
        values = self._group()
        self.stack.append({})
        self._set(values)

    def do_tuple(self, length: int) -> None:
        """A tuple of the topmost values."""
        values = tuple(self._pop() for _ in range(length))
        self.stack.append(values[::-1])


def printable(text: str) -> str:
    """A name from a file as it may stand in a message: ASCII and short."""
    return text[:200].encode("ascii", "backslashreplace").decode()


def _what(value: Any) -> str:
    return printable(value.name) if isinstance(value, (Record, Named)) else type(value).__name__


STEPS: dict[str, Callable[[Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.stack.append(Mark()),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine._group(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "APPEND": lambda machine, _: machine._extend([machine._pop()]),
    "APPENDS": lambda machine, _: machine._extend(machine._group()),
    "SETITEM": lambda machine, _: machine._set([machine._pop(), machine._pop()][::-1]),
    "SETITEMS": lambda machine, _: machine._set(machine._group()),
    "ADDITEMS": Machine.do_additems,
    "LIST": lambda machine, _: machine.stack.append(machine._group()),
    "DICT": Machine.do_dict,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine._group())),
    "TUPLE1": lambda machine, _: machine.do_tuple(1),
    "TUPLE2": lambda machine, _: machine.do_tuple(2),
    "TUPLE3": lambda machine, _: machine.do_tuple(3),
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(map(machine._key, machine._group()))),
    "GET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "BINGET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "LONG_BINGET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "PUT": Machine.do_put,
    "BINPUT": Machine.do_put,
    "LONG_BINPUT": Machine.do_put,
    "MEMOIZE": lambda machine, _: machine.do_put(len(machine.memo)),
    "GLOBAL": Machine.do_global,
    "STACK_GLOBAL": Machine.do_stack_global,
    "REDUCE": Machine.do_reduce,
    "NEWOBJ": Machine.do_reduce,
    "BUILD": Machine.do_build,
    "BINPERSID": Machine.do_persistent,
}
"""What each opcode does; an opcode that isn't here (``INST``, ``OBJ``, extension codes, ...) is refused."""
