"""The declaration of a stage: one command and one Python function."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deshi.configuration.needs import Need
from deshi.configuration.schemas import StageConfig
from deshi.types import DeshiError


@dataclass(frozen=True)
class Stage:
    """A command and Python function of deshi. Declaring it loads nothing heavy: the work is imported when it begins.

    Attributes:
        name: of its YAML file and its Python function.
        schema: of its configuration.
        work: ``package.module:function``, from a configuration to a result.
        subject: the key that words without ``=`` set, and the first argument of the Python function.
        summary: one line for the list of commands.
        purpose: what it reads and writes, for its own help.
        examples: commands with their meanings.
        needs: beyond a plain installation, whatever the configuration.
        needs_if: the same for one value of a key, by ``(key, value)``.
    """

    name: str
    schema: type[StageConfig]
    work: str
    subject: str
    summary: str
    purpose: str
    examples: Sequence[tuple[str, str]]
    needs: tuple[Need, ...] = ()
    needs_if: Mapping[tuple[str, Any], tuple[Need, ...]] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The words after ``deshi``, such as ``label inspect``."""
        return self.name.replace("_", " ")

    def with_subject(self, subjects: Sequence[Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """``values`` with the key that the stage works on set to what was given without a key.

        Raises:
            DeshiError: if it was given more than once.
        """
        if not subjects:
            return dict(values)
        if self.subject == "runs":
            runs = [run for each in subjects for run in (each if isinstance(each, list | tuple) else [each])]
            return {**values, "runs": runs}
        if len(subjects) > 1 or self.subject in values:
            number = len(subjects) + (self.subject in values)
            shown = ", ".join(map(str, subjects))
            raise DeshiError(f"deshi {self.command} works on one {self.subject}, but got {number}: {shown}.")
        return {**values, self.subject: subjects[0]}

    def needs_of(self, config: StageConfig) -> list[Need]:
        """What the command itself needs with this configuration, beside what its nodes need."""
        chosen = [needs for (key, value), needs in self.needs_if.items() if getattr(config, key) == value]
        return [*self.needs, *(need for needs in chosen for need in needs)]

    def run(self, config: Any) -> Any:
        """Do the work."""
        module, _, function = self.work.partition(":")
        return getattr(importlib.import_module(module), function)(config)
