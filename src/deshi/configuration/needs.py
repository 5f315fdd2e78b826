"""Needs beyond a plain installation: packages of extras, files, pretrained models; checked before any work.

A class that a configuration names is a :class:`Component` if it needs something, and says what by its arguments.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deshi.configuration.targets import nodes_in, target_class
from deshi.types import DeshiError


class Need:
    """Something without which the work can't be done."""

    def problem(self, cache: Path) -> str | None:
        """What is missing and what to do; None if it is here, or may be fetched. Fetches nothing."""
        raise NotImplementedError

    def state(self, cache: Path) -> str:
        """Where it is, or from where it would be fetched, in a line."""
        raise NotImplementedError

    def disk(self, cache: Path) -> int:
        """Bytes that it takes in ``cache`` beside what is there; 0 if that isn't known."""
        return 0

    def obtain(self, cache: Path) -> None:
        """Fetch it into ``cache`` unless it is here.

        Raises:
            DeshiError: if it can't be had.
        """


@dataclass(frozen=True)
class Packages(Need):
    """Python packages outside of the plain installation.

    Attributes:
        purpose: what needs them, such as ``Language models need``.
        install: what pip is asked for, such as ``deshi[llm]``.
        modules: that are imported.
    """

    purpose: str
    install: str
    modules: tuple[str, ...]

    def load(self, module: str = "") -> Any:
        """Import one of the modules, by default the first.

        Raises:
            DeshiError: with the command that installs it.
        """
        name = module or self.modules[0]
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise DeshiError(f"{name} can't be imported ({error}). {self.advice}") from error

    @property
    def advice(self) -> str:
        """What needs them, and the command that installs them."""
        return f"{self.purpose}: {pip_command([self.install])}"

    def missing(self) -> list[str]:
        """The modules that aren't installed."""
        return [module for module in self.modules if not _is_installed(module)]

    def problem(self, cache: Path) -> str | None:
        """The modules that aren't installed, with the command that installs them."""
        missing = self.missing()
        return f"{self.purpose} {', '.join(missing)}, not installed here." if missing else None

    def state(self, cache: Path) -> str:
        """Whether they are installed."""
        return f"{', '.join(self.modules)}: {'not installed' if self.missing() else 'installed'}"


LLM = Packages("Language models and encoders of texts need", "deshi[llm]", ("transformers", "huggingface_hub"))
GGUF = Packages("A GGUF file needs", "deshi[llm]", ("gguf",))
PEFT = Packages("LoRA needs", "deshi[llm]", ("peft",))
TOKENIZERS = Packages("endpoint.tokenizer needs", "deshi[llm]", ("tokenizers",))
OPENAI = Packages("A chat model behind an endpoint needs", "deshi[api]", ("openai",))
FOUR_BIT = Packages("llm.four_bit needs", "bitsandbytes", ("bitsandbytes",))
POSTGRES = Packages("PostgreSQL needs", "deshi[sql]", ("psycopg",))
S3 = Packages("Objects on s3:// need", "deshi[s3]", ("s3fs",))
GCS = Packages("Objects on gs:// need", "gcsfs", ("gcsfs",))
RAY = Packages("engine=ray needs", "deshi[ray]", ("ray",))
OPTUNA = Packages("deshi tune needs", "deshi[tune]", ("optuna",))
RUNTIME = Packages("Export and serving need", "deshi[serve]", ("onnxruntime",))
EXPORTER = Packages("Export needs", "deshi[serve]", ("onnx", "onnxscript"))
SERVER = Packages("deshi serve needs", "deshi[serve]", ("fastapi", "uvicorn", "prometheus_client"))
MLFLOW = Packages("train.logger=mlflow needs", "deshi[mlflow]", ("mlflow",))
WANDB = Packages("train.logger=wandb needs", "deshi[wandb]", ("wandb",))
LOGGERS = {"mlflow": MLFLOW, "wandb": WANDB}
"""What the choices of ``train.logger`` need."""
FAISS = Packages("An index for approximate search needs", "deshi[ann]", ("faiss",))


@dataclass(frozen=True)
class LocalFile(Need):
    """A file or folder that a key names."""

    key: str
    path: Path

    def problem(self, cache: Path) -> str | None:
        """That nothing is there."""
        return None if self.path.exists() else f"{self.key}={self.path}: there is no such file. Check the path."

    def state(self, cache: Path) -> str:
        """The path."""
        return f"{self.path}: {'here' if self.path.exists() else 'not there'}"


class Component:
    """Base of classes that a configuration may name and that may need more than a plain installation has."""

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """What an object made with these arguments needs, beside what objects among the arguments need."""
        return []

    @classmethod
    def published(cls, arguments: Mapping[str, Any]) -> tuple[int, int, int] | None:
        """Users, items and interactions of a source whose publisher states them; None elsewhere."""
        return None


def needs_of(value: Any) -> Iterator[Need]:
    """The needs of all nodes in a configuration's plain value."""
    for node in nodes_in(value):
        if (target := target_class(node, Component)) is not None:
            yield from target.needs(node)


def pip_command(installs: Sequence[str]) -> str:
    """One command that installs all of them, extras of one package together."""
    extras = sorted({install[len("deshi[") : -1] for install in installs if install.startswith("deshi[")})
    others = sorted({install for install in installs if not install.startswith("deshi[")})
    words = [*([f"'deshi[{','.join(extras)}]'"] if extras else []), *others]
    return f"pip install {' '.join(words)}"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # blocked, or imported without a specification
        return False
