"""``_target_`` nodes: a class by its import path with its arguments, checked before any work and then built.

A node is a plain dict such as ``{"_target_": "deshi.models.sasrec.SASRec", "dim": 64}``. Adding a student, a loss
or a source is adding a class and a YAML file: no registry, no list of known names in the code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import json
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from deshi.types import DeshiError

TARGET = "_target_"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration: the dotted key, and what was got, expected and suggested."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message

    def under(self, prefix: str) -> Problem:
        """The same problem with ``prefix`` before its key."""
        return dataclasses.replace(self, key=".".join(part for part in (prefix, self.key) if part))


class Refusal(Problem):
    """What a class refuses when it is built: its arguments are right one by one."""


class ConfigError(DeshiError, ValueError):
    """A configuration that can't be used; ``problems`` lists everything that is wrong with it at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{count} in the configuration; nothing was started:\n{lines}")

    @property
    def keys_fit(self) -> bool:
        """Whether all keys and types are right, and only classes refuse what they are given."""
        return all(isinstance(problem, Refusal) for problem in self.problems)


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The ``choices`` most like ``name``, best first: by the whole dotted key or by its last part."""
    scored = []
    for choice in sorted(set(choices)):
        whole = difflib.SequenceMatcher(None, name.lower(), choice.lower()).ratio()
        last = difflib.SequenceMatcher(None, name.lower().split(".")[-1], choice.lower().split(".")[-1]).ratio()
        scored.append((max(whole, 0.95 * last) + 0.01 * whole, choice))
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return [choice for score, choice in scored[:count] if score >= 0.6]


def suggestion(name: str, choices: Iterable[str], kind: str = "names") -> str:
    """A sentence with the nearest valid names, or with all of them when none is near and they are few."""
    valid = sorted(set(choices))
    near = nearest(name, valid)
    if near:
        return f"Nearest valid {kind}: {', '.join(near)}."
    if valid and len(valid) <= 24:
        return f"Valid {kind}: {', '.join(valid)}."
    return "`--help` lists what is valid."


def show(value: Any) -> str:
    """How an error message quotes a value: its literal and, so that '3' and 3 differ, its type."""
    return "null" if value is None else f"{value!r} ({type(value).__name__})"


def check_node(node: Mapping[str, Any], runtime: Sequence[str] = ()) -> list[Problem]:
    """Everything that is wrong with a ``_target_`` node: the import, argument names and argument types, recursively.

    Args:
        node: the dict with ``_target_`` and arguments.
        runtime: names of arguments that deshi supplies when it builds the node (e.g. ``n_items``).
    """
    target = node.get(TARGET)
    if not isinstance(target, str):
        return [Problem(TARGET, f"got {show(target)}, expected the import path of a class, e.g. package.module.Class.")]
    try:
        called = import_target(target)
    except DeshiError as error:
        return [Problem(TARGET, str(error))]
    parameters = _parameters(called)
    hints = _hints(called)
    problems = []
    for name, value in node.items():
        if name == TARGET:
            continue
        if name in runtime:
            problems.append(Problem(str(name), f"is supplied by deshi at run time for {target}: leave it out."))
        elif name in parameters:
            problems += [p.under(name) for p in _check_value(value, hints.get(name, Any))]
        elif not _takes_any(called):
            valid = [parameter_name for parameter_name in parameters if parameter_name not in runtime]
            problems.append(
                Problem(str(name), f"unknown argument of {target}. {suggestion(str(name), valid, 'arguments')}")
            )
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in node and name not in runtime:
            problems.append(Problem(name, f"is missing: {target} needs it ({_type_name(hints.get(name, Any))})."))
    return problems


def refusals(node: Mapping[str, Any], runtime: Sequence[str] = ()) -> list[Problem]:
    """What the classes of a node that :func:`check_node` finds right refuse: numbers out of range, what doesn't fit.

    Each is built for a try, as far as that goes without what deshi supplies at run time. So a wrong argument of a long
    run's last step is told before its first one. A class that opens files asks for what deshi supplies before it does.

    Args:
        node: the dict with ``_target_`` and arguments.
        runtime: names of arguments that deshi supplies when it builds the node.
    """
    inner = [problem.under(str(name)) for name, value in node.items() for problem in _refusals_within(value)]
    if inner:
        return inner
    later = {name: 1 if name == "n_items" else _Later() for name in runtime}
    torch = sys.modules.get("torch")
    try:
        with torch.random.fork_rng(devices=[]) if torch else contextlib.nullcontext():
            build(node, **later)
    except DeshiError as error:
        return [Refusal("", str(error))]
    except Exception:  # it came to what isn't here yet
        pass
    return []


def _refusals_within(value: Any) -> list[Problem]:
    if isinstance(value, Mapping) and TARGET in value:
        return refusals(value)
    if isinstance(value, list):
        return [p.under(str(index)) for index, entry in enumerate(value) for p in _refusals_within(entry)]
    return []


class _Later:
    """In the place of an argument that deshi supplies at run time: it has nothing that a class could ask for."""


def arguments(node: Mapping[str, Any], runtime: Sequence[str] = ()) -> dict[str, Any]:
    """Names of the arguments that a node's target takes from the configuration, with default values.

    An argument that must be given maps to ``inspect.Parameter.empty``.
    """
    parameters = _parameters(import_target(str(node[TARGET])))
    return {name: parameter.default for name, parameter in parameters.items() if name not in runtime}


def complete(node: Mapping[str, Any], runtime: Sequence[str] = ()) -> dict[str, Any]:
    """The node, and those inside it, with the targets' default values written out: a saved configuration pins them."""
    node = {name: _completed(value) for name, value in node.items()}
    taken = arguments(node, runtime)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in taken.items()}
    defaults = {
        name: value for name, value in plain.items() if isinstance(value, bool | int | float | str | list | dict | None)
    }
    ordered = {name: node.get(name, defaults.get(name)) for name in taken if name in node or name in defaults}
    return {TARGET: node[TARGET], **ordered, **node}


def _completed(value: Any) -> Any:
    """A node, or the nodes of a list, with default values written out; anything else as it is."""
    if isinstance(value, list):
        return [_completed(entry) for entry in value]
    return complete(value) if isinstance(value, Mapping) and TARGET in value else value


def build(node: Mapping[str, Any], **runtime: Any) -> Any:
    """Call a node's target with its arguments and with those ``runtime`` values that it has a parameter for.

    Raises:
        ConfigError: for anything :func:`check_node` finds.
    """
    problems = check_node(node, tuple(runtime))
    if problems:
        raise ConfigError(problems)
    called = import_target(node[TARGET])
    hints = _hints(called)
    values = {name: _convert(value, hints.get(name, Any)) for name, value in node.items() if name != TARGET}
    taken = _parameters(called)
    return called(**values, **{name: value for name, value in runtime.items() if name in taken})


def import_target(path: str) -> Any:
    """The class or function at ``package.module.name``.

    Raises:
        DeshiError: naming what couldn't be imported and the names nearest to it.
    """
    module_path, _, name = path.rpartition(".")
    if not module_path:
        raise DeshiError(f"got {path!r}, expected an import path such as package.module.Class.")
    try:
        module = importlib.import_module(module_path)
    except ImportError as error:
        raise DeshiError(f"{path}: the module {module_path} can't be imported ({error}).") from error
    if not hasattr(module, name):
        classes = [name_of_class for name_of_class, value in vars(module).items() if inspect.isclass(value)]
        raise DeshiError(f"{path}: {module_path} has no {name!r}. {suggestion(name, classes)}")
    target = getattr(module, name)
    if not callable(target):
        raise DeshiError(f"{path} is a {type(target).__name__}, expected a class or a function.")
    return target


def target_class(node: Mapping[str, Any] | None, kind: type[Any]) -> Any:
    """The class that a node names if it is ``kind`` or derived from it; None otherwise, and of a node without one."""
    target = import_target(str(node[TARGET])) if node and TARGET in node else None
    return target if isinstance(target, type) and issubclass(target, kind) else None


def nodes_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """All nodes in a configuration's plain value, those inside a node after it."""
    if isinstance(value, Mapping) and TARGET in value:
        yield value
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from nodes_in(inner)


def _parameters(called: Any) -> dict[str, inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in inspect.signature(called).parameters.items() if p.kind in named}


def _takes_any(called: Any) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(called).parameters.values())


def _hints(called: Any) -> dict[str, Any]:
    function = called.__init__ if inspect.isclass(called) else called
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that exist for the type checker only
        return {}


def _check_value(value: Any, hint: Any) -> list[Problem]:
    if isinstance(value, Mapping) and TARGET in value:
        return check_node(value)
    if isinstance(value, list) and any(isinstance(entry, Mapping) and TARGET in entry for entry in value):
        return [p.under(str(index)) for index, entry in enumerate(value) for p in _check_value(entry, Any)]
    try:
        _validated(value, hint)
    except ValidationError as error:
        detail = error.errors()
        inside = ".".join(str(part) for part in detail[0]["loc"]) if len(detail) == 1 else ""
        got = detail[0]["input"] if len(detail) == 1 else value
        return [Problem(inside, f"got {show(got)}, expected {_type_name(hint)}.")]
    return []


def _convert(value: Any, hint: Any) -> Any:
    if isinstance(value, Mapping) and TARGET in value:
        return build(value)
    if isinstance(value, list) and any(isinstance(entry, Mapping) and TARGET in entry for entry in value):
        return [_convert(entry, Any) for entry in value]
    return _validated(value, hint)


def _validated(value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` by JSON's strict rules: a list may become a tuple, a string a path but never a number."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # dataclasses, typed dicts and models bring their own configuration
        adapter = TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return value
    return adapter.validate_json(json.dumps(value), strict=True)


def is_valid(value: Any, hint: Any) -> bool:
    """Whether a plain value is one of a type."""
    try:
        _validated(value, hint)
    except ValidationError:
        return False
    return True


def argument_hint(node: Mapping[str, Any], name: str) -> Any:
    """The type of an argument of a node's target; None if it has no such argument or no type."""
    return _hints(import_target(str(node[TARGET]))).get(name)


def _type_name(hint: Any) -> str:
    if hint is Any:
        return "any value"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(hint))
    name = hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint)
    return (
        name.replace("typing.", "").replace("pathlib.", "").replace("collections.abc.", "").replace("NoneType", "None")
    )
