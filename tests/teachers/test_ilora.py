"""The iLoRA teacher as a network: what moves and what doesn't, and the same answer in both modes of prompts."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llm import DIM, MAX_LENGTH, N_ITEMS, Gate, ItemForm, Mode, TinyLLM, tiny_sasrec, tiny_teacher
from torch.nn import functional as F

from deshi.configuration.targets import build
from deshi.data.sequences import Augmentation, TrainingBatches
from deshi.losses.softmax import Softmax
from deshi.models.layers import reseed_dropout
from deshi.stages import compose
from deshi.teachers.ilora import TOKENS, ILoRA, _chunks
from deshi.teachers.instance_lora import InstanceLora, is_adapter
from deshi.teachers.llm import LLM
from deshi.teachers.prompts import Prompt
from deshi.teachers.text import TextTable
from deshi.types import PAD, Batch, DeshiError

MODES = [("embedding", "causal"), ("hybrid", "causal"), ("title", "per_prefix"), ("hybrid", "per_prefix")]


def histories(lengths: list[int], seed: int = 1, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(lengths)
    width = width or max(lengths)
    items = torch.randint(N_ITEMS, (len(lengths), width), generator=generator)
    return items.masked_fill(torch.arange(width) >= sizes[:, None], PAD), sizes


def training_batch(lengths: list[int], seed: int = 3) -> Batch:
    items, sizes = histories(lengths, seed)
    targets = F.pad(items[:, 1:], (0, 1), value=PAD)
    rows = torch.where(items >= 0, torch.arange(items.numel()).view(items.shape), PAD)
    return Batch(torch.arange(len(items)), items, sizes, targets, rows)


def train(teacher: ILoRA, batch: Batch, steps: int, rate: float = 0.01) -> float:
    optimizer = torch.optim.Adam([p for p in teacher.parameters() if p.requires_grad], lr=rate)
    loss = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = teacher.train().training_loss(batch, Softmax())
        loss.backward()
        optimizer.step()
    teacher.eval()
    return float(loss.detach())


@pytest.mark.parametrize(("item", "mode"), MODES)
@pytest.mark.parametrize("head", ["table", "projected"])
def test_shapes_and_gradients(item: ItemForm, mode: Mode, head: str, tmp_path: Path) -> None:
    """Everything that is to be trained must get a gradient from the dense loss, and nothing else may."""
    teacher = tiny_teacher(tmp_path, Prompt(item=item, mode=mode), head=head)
    assert teacher(*histories([4, 1])).shape == (2, 4, DIM)
    assert teacher.last_hidden(*histories([9, 1])).shape == (2, DIM)
    assert teacher.item_table().shape == (N_ITEMS, DIM)
    assert teacher.next_scores(*histories([4, 1])).shape == (2, N_ITEMS)
    teacher.training_loss(training_batch([5, 6, 3]), Softmax()).backward()
    unused = {"projector"} if item == "title" and head == "table" else set()
    for name, parameter in teacher.named_parameters():
        frozen = (".llm." in name and not is_adapter(name)) or ".student." in name
        assert parameter.requires_grad != frozen, name
        if not frozen and not any(part in name for part in unused):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("item", ["title", "embedding", "hybrid"])
@pytest.mark.parametrize("gate", ["prefix", "uniform"])
def test_causal_equals_per_prefix(item: ItemForm, gate: Gate, tmp_path: Path) -> None:
    """One pass over a history must say after every item what a prompt that ends there says: it is only faster."""
    lora = InstanceLora(gate=gate)
    causal, prefix = (tiny_teacher(tmp_path, Prompt(item=item, mode=mode), lora) for mode in get_args(Mode))
    items, lengths = histories([MAX_LENGTH, 3, 1])
    real = items >= 0
    torch.testing.assert_close(causal(items, lengths)[real], prefix(items, lengths)[real], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        causal.next_scores(items, lengths), prefix.next_scores(items, lengths), atol=1e-4, rtol=1e-4
    )


def test_the_papers_gate_differs_and_needs_its_own_prompts(tmp_path: Path) -> None:
    """One mixture for a whole prompt changes what early tokens say, so a causal pass can't have it."""
    history = InstanceLora(gate="history")
    paper = tiny_teacher(tmp_path, Prompt(mode="per_prefix"), history)
    ours = tiny_teacher(tmp_path, Prompt(mode="per_prefix"))
    items, lengths = histories([5])
    assert not torch.allclose(paper(items, lengths)[0, 2:], ours(items, lengths)[0, 2:], atol=1e-3)
    for length in range(1, 6):
        alone = paper(items[:, :length], torch.tensor([length]))
        torch.testing.assert_close(paper(items, lengths)[:, length - 1], alone[:, -1], atol=1e-5, rtol=1e-5)
    with pytest.raises(DeshiError, match="would tell early positions the future"):
        tiny_teacher(tmp_path, Prompt(mode="causal"), history)


@pytest.mark.parametrize(("item", "mode"), MODES)
def test_padding_changes_nothing_and_the_future_is_unseen(item: ItemForm, mode: Mode, tmp_path: Path) -> None:
    """Neighbours in a batch and later items must not matter, or training at every position leaks its targets."""
    teacher = tiny_teacher(tmp_path, Prompt(item=item, mode=mode)).eval()
    items, lengths = histories([5, 3, 1], width=MAX_LENGTH)
    together = teacher(items, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = teacher(items[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)
    items, lengths = histories([MAX_LENGTH, MAX_LENGTH])
    before = teacher(items, lengths)
    changed = items.clone()
    changed[:, 3:] = (changed[:, 3:] + 7) % N_ITEMS
    after = teacher(changed, lengths)
    torch.testing.assert_close(after[:, :3], before[:, :3], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after[:, 3], before[:, 3], atol=1e-3)


def test_parts_are_even_and_small_enough() -> None:
    """Prompts of all lengths in one part would be padding for the most part; parts of one prompt would be slow."""
    sizes = [*range(10, 110), 20_000]
    parts = list(_chunks(torch.arange(101), sizes))
    assert torch.equal(torch.cat(parts), torch.arange(101))
    lengths = [[sizes[number] for number in part.tolist()] for part in parts]
    assert all(len(part) * part[-1] <= TOKENS for part in lengths[:-1]) and lengths[-1] == [20_000]
    padded, real = sum(len(part) * part[-1] for part in lengths), sum(sizes)
    assert padded < 1.2 * real and len(parts) < 12


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many tokens fit into memory at once must not be visible in the result."""
    items, lengths = histories([6, 4, 1, 5])
    teachers = [tiny_teacher(tmp_path, Prompt(item="hybrid", mode=mode)) for mode in ("causal", "per_prefix")]
    whole = [teacher(items, lengths) for teacher in teachers]
    monkeypatch.setattr("deshi.teachers.ilora.TOKENS", 100)
    for teacher, expected in zip(teachers, whole, strict=True):
        torch.testing.assert_close(teacher(items, lengths), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["causal", "per_prefix"])
def test_the_fused_attention_changes_nothing(mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short prompts on a CPU are read without it, long ones with it: that is speed alone."""
    items, lengths = histories([6, 4, 1, 5])
    plain = tiny_teacher(tmp_path, Prompt(item="hybrid", mode=mode))
    monkeypatch.setattr("deshi.teachers.ilora.EAGER", 0)
    fused = tiny_teacher(tmp_path, Prompt(item="hybrid", mode=mode))
    models: list[Any] = [plain.network.llm, fused.network.llm]
    kinds = [model.config._attn_implementation for model in models]
    assert kinds == ["eager", "sdpa"]
    torch.testing.assert_close(plain(items, lengths), fused(items, lengths), atol=1e-5, rtol=1e-5)


def test_two_users_get_two_adapters(tmp_path: Path) -> None:
    """That is the paper's point: the student's view of a history decides how the experts are mixed."""
    gates = tiny_teacher(tmp_path).network.gates(*histories([6, 6]))
    assert gates is not None and gates.shape == (2, 7, 4)
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 7))
    assert not torch.allclose(gates[0, 1:], gates[1, 1:], atol=1e-2)
    assert torch.equal(gates[:, 0], torch.full((2, 4), 0.25)), "before the first item there is no user to know"


def test_training_moves_the_gate_but_neither_model_nor_student(tmp_path: Path) -> None:
    """A frozen weight that drifts makes a checkpoint without it worthless."""
    teacher = tiny_teacher(tmp_path, stirred=False)
    before = {name: parameter.detach().clone() for name, parameter in teacher.named_parameters()}
    train(teacher, training_batch([6, 5, 4]), steps=3)
    for name, parameter in teacher.named_parameters():
        moved = not torch.equal(parameter, before[name])
        frozen = (".llm." in name and not is_adapter(name)) or ".student." in name
        assert moved != frozen, name


@pytest.mark.parametrize("objective", ["both", "dense"])
@pytest.mark.parametrize("mode", ["causal", "per_prefix"])
def test_reads_the_trainers_own_batches(mode: Mode, objective: str, tmp_path: Path) -> None:
    """The trainer's batches come straight from the mapped arrays, as int32."""
    items = np.arange(20, dtype=np.int32)
    ranges = np.array([0, 8]), np.array([8, 13])
    batches = TrainingBatches(items, *ranges, MAX_LENGTH, 100, 10, "all", Augmentation(item_drop=0.2), 0, 0)
    teacher = tiny_teacher(tmp_path, Prompt(mode=mode, candidates=4), objective=objective).train()
    for batch in batches:
        assert torch.isfinite(teacher.training_loss(batch, Softmax()))


def test_frozen_parts_stay_in_evaluation_mode(tmp_path: Path) -> None:
    """The student's dropout would make a user's gate and embeddings differ from step to step."""
    teacher = tiny_teacher(tmp_path, lora=InstanceLora(dropout=0.5)).train()
    modules = dict(teacher.network.student.named_modules())
    assert not any(module.training for module in modules.values())
    training = [name for name, module in teacher.network.llm.named_modules() if module.training]
    assert training and all("lora_dropout" in name for name in training)
    assert teacher.head.training and not teacher.eval().head.training


def test_training_noise_follows_its_seed(tmp_path: Path) -> None:
    """Masks and drawn prefixes and candidates come from the trainer's streams, so that a resumed run repeats them."""
    teacher = tiny_teacher(
        tmp_path, Prompt(mode="per_prefix", candidates=4), InstanceLora(dropout=0.3), dropout=0.3, objective="both"
    ).train()
    batch, losses = training_batch([6, 5, 6]), []
    for seed in (1, 2, 1):
        reseed_dropout(teacher, [seed])
        losses.append(float(teacher.training_loss(batch, Softmax()).detach()))
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("head", ["table", "projected"])
def test_overfits_a_tiny_batch(head: str, tmp_path: Path) -> None:
    """A teacher that can't learn three histories by heart can't teach."""
    teacher = tiny_teacher(tmp_path, head=head, stirred=False)
    batch = training_batch([6, 5, 3])
    assert train(teacher, batch, steps=120) < 0.1
    real = batch.targets != PAD
    scores = teacher(batch.items, batch.lengths)[real] @ teacher.item_table().T
    assert torch.equal(scores.argmax(1), batch.targets[real])


def test_a_checkpoint_holds_what_was_trained_and_nothing_of_the_llm(tmp_path: Path) -> None:
    """Saved weights are small, give the same bits back in a new teacher, and real gaps are still refused."""
    teacher, other = tiny_teacher(tmp_path), tiny_teacher(tmp_path, seed=9)
    inputs = histories([5, 3])
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    state = load_file(tmp_path / "teacher.safetensors")
    assert not torch.equal(teacher(*inputs), other(*inputs))
    other.load_state_dict(state)
    assert torch.equal(teacher(*inputs), other(*inputs))
    assert {name.split(".")[1] for name in state if name.startswith("network.")} == {
        "llm", "student", "projector", "gate", "mark",
    }  # fmt: skip
    assert all(is_adapter(name) for name in state if name.startswith("network.llm."))
    adapter = next(name for name in state if is_adapter(name))
    for lost in (adapter, "network.gate.weight", "network.student.items.weight", "head.linear.weight"):
        with pytest.raises(RuntimeError, match="Missing key"):
            other.load_state_dict({name: tensor for name, tensor in state.items() if name != lost})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(state | {"network.llm.nothing": torch.zeros(1)})


def test_a_checkpoint_knows_its_language_model(tmp_path: Path) -> None:
    """Another model of the same shape would take the adapters and answer nonsense; another number format may."""
    state = tiny_teacher(tmp_path).state_dict()
    with pytest.raises(DeshiError, match="another language model"):
        tiny_teacher(tmp_path, llm=TinyLLM(seed=5)).load_state_dict(state)
    tiny_teacher(tmp_path, llm=TinyLLM(dtype=torch.bfloat16)).load_state_dict(state)


def test_inside_another_module_the_checkpoint_is_small_too(tmp_path: Path) -> None:
    """The trainer saves the module around the teacher, where every name has a prefix."""
    outer = torch.nn.ModuleDict({"student": tiny_teacher(tmp_path)})
    state = outer.state_dict()
    assert all(is_adapter(name) for name in state if ".llm." in name)
    torch.nn.ModuleDict({"student": tiny_teacher(tmp_path, seed=9)}).load_state_dict(state)
    state.pop("student.head.linear.weight")
    with pytest.raises(RuntimeError, match=r"Missing key.*student\.head\.linear\.weight"):
        outer.load_state_dict(state)


def test_a_copy_shares_the_llm_and_nothing_else(tmp_path: Path) -> None:
    """Averaged weights need a copy of what is trained; a second copy of a large model would not fit."""
    teacher = tiny_teacher(tmp_path)
    copied = copy.deepcopy(teacher).requires_grad_(False)
    again = copy.deepcopy(copied)
    for name, parameter in teacher.named_parameters():
        shared = ".llm." in name and not is_adapter(name)
        for other in (copied, again):
            assert (other.get_parameter(name) is parameter) == shared, name
    inputs = histories([5, 3])
    before = copied(*inputs)
    assert torch.equal(before, teacher(*inputs)) and torch.equal(before, again(*inputs))
    train(teacher, training_batch([6, 5]), steps=1)
    assert torch.equal(copied(*inputs), before) and not torch.equal(teacher(*inputs), before)


def test_dense_answers_never_touch_the_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits over tens of thousands of tokens at every position would cost more than the model itself."""
    teacher = tiny_teacher(tmp_path)

    def refuse(*_: Any) -> None:
        raise AssertionError("the language model's head was called")

    model: Any = teacher.network.llm
    monkeypatch.setattr(model.get_output_embeddings(), "forward", refuse)
    teacher.next_scores(*histories([4]))
    teacher.train().training_loss(training_batch([4]), Softmax()).backward()
    with pytest.raises(AssertionError, match="head was called"):
        teacher.answer_candidates(*histories([4]), torch.tensor([[1, 2]]))


def test_works_in_bf16_and_with_checkpointing(tmp_path: Path) -> None:
    """The number format and the memory saved are the language model's affair; answers stay near and train."""
    inputs, batch = histories([6, 3]), training_batch([6, 4])
    exact = tiny_teacher(tmp_path)
    rough = tiny_teacher(tmp_path, llm=TinyLLM(dtype=torch.bfloat16))
    torch.testing.assert_close(rough(*inputs), exact(*inputs), atol=0.15, rtol=0.15)
    assert rough(*inputs).dtype == torch.float32
    saved = tiny_teacher(tmp_path, llm=TinyLLM(checkpointing=True))
    for teacher in (exact, rough, saved):
        teacher.train().training_loss(batch, Softmax()).backward()
    for name, parameter in exact.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(saved.get_parameter(name).grad, parameter.grad, atol=1e-5, rtol=1e-4)
            gradient = rough.get_parameter(name).grad
            assert gradient is not None and torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("prompt", "lora", "llm"),
    [
        (Prompt(), InstanceLora(rank=0), TinyLLM()),
        (Prompt(), InstanceLora(experts=1), TinyLLM()),
        (Prompt(), InstanceLora(gate="uniform"), TinyLLM()),
        (Prompt(), InstanceLora(), TinyLLM(seed=5)),
        (Prompt(item="hybrid", permute_titles=True), InstanceLora(), TinyLLM()),
    ],
    ids=["frozen", "plain", "uniform", "random", "permuted"],
)
def test_ablations_train(prompt: Prompt, lora: InstanceLora, llm: TinyLLM, tmp_path: Path) -> None:
    """Whether the language model, its adapters, the gate or the titles add anything is asked by leaving them out."""
    teacher = tiny_teacher(tmp_path, prompt, lora, llm, stirred=False)
    assert (teacher.network.gate is None) == (not lora.gated)
    batch = training_batch([5, 4])
    first = float(teacher.training_loss(batch, Softmax()).detach())
    assert train(teacher, batch, steps=10) < first


def test_imitating_the_student_adds_the_distance_to_its_states(tmp_path: Path) -> None:
    """The term is the mean square over positions with a target, and training on it brings the states nearer."""
    batch = training_batch([5, 6, 3])
    where = batch.targets != PAD
    without, teacher = tiny_teacher(tmp_path), tiny_teacher(tmp_path, imitate=2.0)

    def distance() -> torch.Tensor:
        known = teacher.network.student.encode(batch.items, batch.lengths)
        return F.mse_loss(teacher.encode_at(batch.items, batch.lengths, where), known[where])

    before = distance().detach()
    ranked, both = (one.training_loss(batch, Softmax()).detach() for one in (without, teacher))
    torch.testing.assert_close(both, ranked + 2 * before)
    train(teacher, batch, steps=20)
    assert distance() < before / 2
    assert all(parameter.grad is None for parameter in teacher.network.student.parameters())


def test_items_may_be_made_of_texts(tmp_path: Path) -> None:
    """A text teacher in the student's place: its adapted vectors stand in the prompts and begin the scoring table."""
    student = tiny_sasrec()
    student.items = TextTable(torch.randn(N_ITEMS, 6, generator=torch.Generator().manual_seed(0)), DIM, 16, 0.3)
    teacher = tiny_teacher(tmp_path, student=student.eval())
    torch.testing.assert_close(teacher.item_table(), student.item_table())
    some = torch.tensor([[3, 0], [5, 3]])
    torch.testing.assert_close(
        teacher.network.project(some), teacher.network.projector(student.item_table()[some].detach())
    )
    batch = training_batch([5, 6, 3])
    first = float(teacher.training_loss(batch, Softmax()).detach())
    assert train(teacher, batch, steps=10) < first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imitate": -1.0}, "imitate is -1.0, expected a weight of at least 0"),
        ({"max_length": 7}, "reads 6 items"),
        ({"prompt": Prompt(item="title", instruction="x" * 600)}, "the language model reads 512"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The gate needs the student's state after every item, and no model reads more than it was made for."""
    with pytest.raises(DeshiError, match=message):
        tiny_teacher(tmp_path, **options)


def test_the_configuration_holds_the_defaults(config_dir: Path) -> None:
    """A saved run pins what the YAML file says; a default that differs in the code would be another teacher."""
    node = compose("teach", ["data=tiny", "teacher=ilora", "teacher.student=somewhere"], {}, config_dir).teacher
    wanted = inspect.signature(ILoRA).parameters
    for name in ("max_length", "head", "objective", "dropout", "imitate"):
        assert node[name] == wanted[name].default
    for name, default in (("prompt", Prompt()), ("lora", InstanceLora()), ("llm", LLM())):
        assert build(node[name]) == default


@pytest.mark.slow
def test_with_the_real_smollm2(model_cache: Path, tmp_path: Path) -> None:
    """What holds for a random Llama must hold for the model that users get: equality, learning, a small checkpoint."""
    llm = LLM(dtype="fp32")
    options: dict[str, Any] = {"llm": llm, "cache": model_cache, "stirred": False}
    teacher = tiny_teacher(tmp_path, Prompt(item="hybrid", candidates=4), objective="both", **options)
    before = {name: p.detach().clone() for name, p in teacher.named_parameters() if not p.requires_grad}
    first = train(teacher, training_batch([5, 4]), steps=1, rate=0.002)
    assert train(teacher, training_batch([5, 4]), steps=12, rate=0.002) < 0.8 * first
    assert all(torch.equal(teacher.get_parameter(name), old) for name, old in before.items())
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    assert (tmp_path / "teacher.safetensors").stat().st_size < 10e6

    items, lengths = histories([5, 2])
    prefix = tiny_teacher(tmp_path, Prompt(item="hybrid", mode="per_prefix"), **options).eval()
    prefix.load_state_dict(load_file(tmp_path / "teacher.safetensors"))
    real = items >= 0
    torch.testing.assert_close(prefix(items, lengths)[real], teacher(items, lengths)[real], atol=2e-3, rtol=2e-3)
    candidates = torch.tensor([[1, 2, 3], [4, 5, PAD]])
    answers = teacher.answer_candidates(items, lengths, candidates)
    assert all(answers.texts) and answers.chosen.shape == (2,)
    assert torch.isfinite(teacher.candidate_log_likelihood(items, lengths, candidates)[candidates >= 0]).all()
