"""Instance-wise LoRA: peft's LoRA where there is nothing to mix, the paper's formula where there is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_llm import WIDTH, checkpoint, tiny_model
from torch.nn import functional as F

from deshi.models.layers import Dropout
from deshi.teachers.instance_lora import GatedExperts, InstanceLora, inject, is_adapter, lora_layers
from deshi.types import DeshiError

TARGETS = ("q_proj", "v_proj", "down_proj")


def adapted(lora: InstanceLora, seed: int = 1, **options: Any) -> tuple[Any, GatedExperts]:
    """A tiny model with experts whose updates aren't 0."""
    model = tiny_model(**options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        experts = inject(model, lora)
        for layer in lora_layers(model):
            torch.nn.init.normal_(layer.lora_B["instance"].weight, std=0.2)
    return model, experts


def read(model: Any, experts: GatedExperts, x: torch.Tensor, gates: torch.Tensor | None) -> torch.Tensor:
    with experts.use(gates):
        return model.base_model(inputs_embeds=x).last_hidden_state


def prompts(batch: int = 2, length: int = 5) -> torch.Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(2))


def mixture(batch: int = 2, length: int = 5, experts: int = 4, seed: int = 4) -> torch.Tensor:
    return torch.randn(batch, length, experts, generator=torch.Generator().manual_seed(seed)).softmax(-1)


@pytest.mark.parametrize(("experts", "gates"), [(1, None), (1, torch.ones(2, 5, 1)), (4, torch.full((2, 5, 4), 0.25))])
def test_nothing_to_mix_is_plain_lora(experts: int, gates: torch.Tensor | None) -> None:
    """One expert, or an even mixture of several, must be LoRA as peft itself computes it: nothing else is claimed."""
    import peft

    model, holder = adapted(InstanceLora(experts=experts, rank=8, alpha=12, targets=TARGETS))
    plain = tiny_model()
    config = peft.LoraConfig(r=8, lora_alpha=12, target_modules=list(TARGETS))
    peft.inject_adapter_in_model(config, plain, "instance")
    ours = {name: tensor for name, tensor in model.state_dict().items() if is_adapter(name)}
    assert not plain.load_state_dict(ours, strict=False).unexpected_keys
    expected = plain.base_model(inputs_embeds=prompts()).last_hidden_state
    torch.testing.assert_close(read(model, holder, prompts(), gates), expected, atol=1e-5, rtol=1e-5)
    untouched = tiny_model().base_model(inputs_embeds=prompts()).last_hidden_state
    assert not torch.allclose(expected, untouched, atol=1e-2), (
        "the adapters must do something for this to mean anything"
    )


def test_a_layer_equals_the_papers_sum_over_experts() -> None:
    """The scaled inner values stand for ``sum_e w_e B_e A_e x``; block by block it must come out the same."""
    model, holder = adapted(InstanceLora(experts=4, rank=8, alpha=12, targets=TARGETS))
    layer, x, gates = lora_layers(model)[0], prompts(), mixture()
    with holder.use(gates):
        found = layer(x)
    down, up = layer.lora_A["instance"].weight, layer.lora_B["instance"].weight
    expected = F.linear(x, layer.base_layer.weight)
    for expert in range(4):
        block = slice(2 * expert, 2 * expert + 2)
        update = x @ down[block].T @ up[:, block].T
        expected = expected + gates[..., expert, None] * update * 12 / 2  # alpha over one expert's rank, as released
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_each_row_has_its_own_adapter() -> None:
    """Instance-wise means: the same prompt with two mixtures gives two answers, whatever else is in the batch."""
    model, holder = adapted(InstanceLora(targets=TARGETS))
    x, gates = prompts(1).expand(2, -1, -1), mixture()
    together = read(model, holder, x, gates)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    for row in range(2):
        alone = read(model, holder, x[row : row + 1], gates[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


def test_only_experts_are_trainable_and_the_gates_learn() -> None:
    """The language model is frozen; if no gradient reached the gates, they would stay what chance made them."""
    model, holder = adapted(InstanceLora(targets=TARGETS))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, _ in model.named_parameters() if is_adapter(name)}
    gates = mixture().requires_grad_()
    read(model, holder, prompts(), gates).square().sum().backward()
    assert gates.grad is not None and (gates.grad.abs().sum(-1) > 0).all()


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    """A layer computed again in the backward pass must see its own gates, though other prompts were read since."""
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model()
        if checkpointing:
            checkpoint(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            holder = inject(model, InstanceLora(targets=TARGETS))
            for layer in lora_layers(model):
                torch.nn.init.normal_(layer.lora_B["instance"].weight, std=0.2)
        for module in model.modules():
            module.training = bool(getattr(module, "gradient_checkpointing", False))
        first, second = mixture().requires_grad_(), mixture(seed=5)
        total = read(model, holder, prompts(), first).square().sum() + read(model, holder, prompts(), second).sum()
        total.backward()
        gradients.append((first.grad, lora_layers(model)[0].lora_A["instance"].weight.grad))
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=1e-4, rtol=1e-4)


def test_a_copy_has_gates_of_its_own() -> None:
    """Averaged weights live in a copy of the model: gates set for one must not mix the other's experts."""
    model, holder = adapted(InstanceLora(targets=TARGETS))
    with holder.use(mixture().requires_grad_()):
        copied = copy.deepcopy(model)
        assert lora_layers(copied)[0].lora_variant["instance"].scales is None
    assert len({id(layer.lora_variant["instance"]) for layer in lora_layers(copied)}) == 1
    torch.testing.assert_close(read(copied, holder, prompts(), None), read(model, holder, prompts(), None))


def test_adapters_stay_in_fp32_in_a_bf16_model() -> None:
    """Steps of a small learning rate are lost in bf16's eight bits."""
    model = tiny_model().to(torch.bfloat16)
    inject(model, InstanceLora(targets=TARGETS))
    assert all((p.dtype == torch.float32) == is_adapter(name) for name, p in model.named_parameters())
    assert model.base_model(inputs_embeds=prompts().bfloat16()).last_hidden_state.dtype == torch.bfloat16


def test_dropout_before_the_adapters_can_be_reseeded() -> None:
    """All noise of training comes from streams that the trainer begins anew, or runs couldn't be repeated."""
    model, _ = adapted(InstanceLora(targets=TARGETS, dropout=0.5))
    assert all(isinstance(layer.lora_dropout["instance"], Dropout) for layer in lora_layers(model))


def test_experts_cant_be_merged() -> None:
    """A merged weight would silently be one user's, or nobody's."""
    model, _ = adapted(InstanceLora(targets=TARGETS))
    with pytest.raises(DeshiError, match="can't be merged"):
        lora_layers(model)[0].merge()
    with pytest.raises(DeshiError, match="can't be merged"):
        lora_layers(model)[0].merge(safe_merge=True)


def test_gates_of_other_prompts_are_refused() -> None:
    """Broadcasting would mix one user's experts for another."""
    model, holder = adapted(InstanceLora(targets=TARGETS))
    with pytest.raises(DeshiError, match="Adapt projections only"):
        read(model, holder, prompts(2), mixture(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 6}, "rank=6 and experts=4"),
        ({"experts": 0}, "experts=0"),
        ({"targets": ()}, "no targets"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    """A rank that the experts can't share must be named where it enters."""
    with pytest.raises(DeshiError, match=message):
        InstanceLora(**options)


def test_unknown_projections_are_refused() -> None:
    """Models name their projections differently; the message lists this model's."""
    with pytest.raises(DeshiError, match="c_attn, which LlamaForCausalLM hasn't got, expected names among q_proj"):
        inject(tiny_model(), InstanceLora(targets=("q_proj", "c_attn")))
