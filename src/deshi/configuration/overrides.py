"""``key=value`` arguments: read, checked and explained before Hydra sees them; and made from Python values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException

from deshi.configuration.groups import choices, stage_groups
from deshi.configuration.targets import ConfigError, Problem, suggestion
from deshi.types import as_list

PLAIN = re.compile(r"^[A-Za-z_./~][A-Za-z0-9_./~@%-]*$")
SPECIAL_WORDS = {"null", "true", "false", "nan", "inf", "yes", "no", "on", "off"}


@dataclass(frozen=True)
class Override:
    """One ``key=value`` argument.

    Attributes:
        text: as it was given.
        key: the dotted key, or the name of a group.
        value: what it sets; for a group, the choice.
        is_group: whether it chooses a group's file.
    """

    text: str
    key: str
    value: Any
    is_group: bool

    @property
    def for_hydra(self) -> str:
        """The form in which Hydra leaves the question whether the key exists to the schema."""
        if self.is_group:
            return self.text if self.value is not None else f"~{self.key}"
        return f"++{self.text}"


def parse(stage: str, texts: Iterable[str], config_dir: Path | None = None) -> list[Override]:
    """Read a stage's ``key=value`` arguments.

    Raises:
        ConfigError: naming every argument that isn't ``key=value`` or chooses what doesn't exist.
    """
    overrides: list[Override] = []
    problems: list[Problem] = []
    for text in texts:
        result = _parse_one(stage, text, config_dir)
        if isinstance(result, Problem):
            problems.append(result)
        else:
            overrides.append(result)
    if problems:
        raise ConfigError(problems)
    return overrides


def _parse_one(stage: str, argument: str, config_dir: Path | None) -> Override | Problem:
    text = argument.lstrip("+")
    key = text.partition("=")[0]
    if "=" not in text:
        return Problem(argument, "got no '=', expected key=value, e.g. train.max_epochs=3.")
    if text.startswith("~"):
        return Problem(argument, "'~' isn't supported: set the key to null instead.")
    try:
        parsed, text = _read(text)
    except HydraException as error:
        return Problem(argument, f"can't be read ({str(error).partition(chr(10))[0]}). Check its brackets and quotes.")
    if parsed.is_sweep_override():
        return Problem(argument, f"is a sweep, expected one value. A list is written in brackets: {key}=[1,2].")
    value = parsed.value()
    groups = stage_groups(stage)
    if parsed.key_or_group not in groups and choices(parsed.key_or_group, config_dir):
        expected = (
            f"expected one of {', '.join(groups)} or a key. A command on a run takes this from the run: leave it out"
        )
        return Problem(argument, f"deshi {stage} has no choice of {parsed.key_or_group}; {expected}.")
    is_group = parsed.key_or_group in groups and not isinstance(value, dict)
    if not is_group or value is None:
        return Override(text, parsed.key_or_group, value, is_group)
    valid = choices(parsed.key_or_group, config_dir)
    if str(value) not in valid:
        return Problem(argument, f"there is no {key} {str(value)!r}. {suggestion(str(value), valid, 'choices')}")
    return Override(text, parsed.key_or_group, str(value), is_group)


def _read(text: str) -> tuple[HydraOverride, str]:
    """Parse by Hydra's grammar; a value that is no literal of it, such as a path with spaces, is a string."""
    parser = OverridesParser.create()
    key, _, value = text.partition("=")
    quoted = f"{key}={_quoted(value)}"
    try:
        parsed = parser.parse_override(text)
    except HydraException:
        if value[:1] in ("'", '"', "[", "{"):
            raise
        return parser.parse_override(quoted), quoted
    # Prose or SQL with commas is no sweep, and a search space is deshi's own.
    if parsed.is_sweep_override() and (" " in value or key.startswith("space.")):
        return parser.parse_override(quoted), quoted
    return parsed, text


def from_python(values: Mapping[str, Any]) -> list[str]:
    """Keyword arguments as ``key=value`` texts; nested dicts become dotted keys.

    ``from_python({"student": "gru4rec", "train": {"max_epochs": 3}})`` is
    ``["student=gru4rec", "train.max_epochs=3"]``.
    """
    texts = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            texts += [f"{key}.{text}" for text in from_python(value)]
        else:
            texts.append(f"{key}={_literal(value)}")
    return texts


def _literal(value: Any) -> str:
    value = as_list(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ",".join(_literal(entry) for entry in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_literal(key)}:{_literal(entry)}" for key, entry in value.items()) + "}"
    text = str(value)
    if PLAIN.match(text) and text.lower() not in SPECIAL_WORDS:
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text) + "'"
