"""BIGRec learns answers and nothing else, and what it writes is grounded to the right item."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
import torch
from byte_llm import ByteLLM
from torch import Tensor, nn

from deshi.losses.base import Loss
from deshi.models.base import HistoryError
from deshi.runs import load_weights, save_weights
from deshi.teachers._grounding import embed_texts, l2_distances, quoted
from deshi.teachers.base import Resources
from deshi.teachers.bigrec import BigRec, Lora
from deshi.teachers.llm import LLM
from deshi.types import PAD, Batch, DeshiError
from tiny_bundles import tiny_bundle

TITLES = ["Heat", "Alien", "Solaris", "Alien", "Ran", "Brazil"]
"""Items 1 and 3 share a title."""

NO_LOSS = cast(Loss, nn.Identity())


def make_resources(folder: Path) -> Resources:
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(6)], "title": TITLES})
    folder.mkdir(exist_ok=True)
    bundle = tiny_bundle(folder, [[0, 1, 2, 3], [4, 5, 0], [2, 4, 1]], n_items=6, items=items)

    def none(name: str) -> Any:
        raise AssertionError("BIGRec needs no student")

    return Resources(bundle, folder / "cache", none, torch.device("cpu"))


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    return make_resources(tmp_path)


def test_a_catalogue_without_titles_is_refused_before_the_llm_is_loaded(tmp_path: Path) -> None:
    """It would write ids, after minutes of loading."""
    untitled = replace(make_resources(tmp_path / "titled"), bundle=tiny_bundle(tmp_path, [[0, 1, 2, 3, 4, 5]]))

    class Unloaded(ByteLLM):
        def load(self, *_: Any) -> Any:
            pytest.fail("the language model was loaded")

    with pytest.raises(DeshiError, match="None of the 6 items has a title"):
        teacher(untitled, Unloaded())


def teacher(resources: Resources, llm: ByteLLM | None = None, seed: int = 0, **options: Any) -> BigRec:
    given: dict[str, Any] = {"lora": Lora(4), "history": 2, "max_new_tokens": 14, "max_length": 5} | options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BigRec(6, resources, cast(LLM, llm or ByteLLM()), **given)


def batch(*rows: list[int]) -> Batch:
    """Histories whose every next item is a target, as training has them."""
    width = max(len(row) for row in rows) - 1
    items, targets = torch.full((len(rows), width), PAD), torch.full((len(rows), width), PAD)
    for number, row in enumerate(rows):
        items[number, : len(row) - 1], targets[number, : len(row) - 1] = torch.tensor(row[:-1]), torch.tensor(row[1:])
    lengths = torch.tensor([len(row) - 1 for row in rows])
    return Batch(torch.arange(len(rows)), items, lengths, targets, torch.where(items == PAD, PAD, 0))


def histories(*rows: list[int], width: int = 0) -> tuple[Tensor, Tensor]:
    width = max(width, *(len(row) for row in rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows]), torch.tensor([len(row) for row in rows])


def learn_by_heart(model: BigRec, lesson: Batch, steps: int, rate: float) -> BigRec:
    model.train()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        value = model.training_loss(lesson, NO_LOSS)
        value.backward()
        optimizer.step()
        if value < 0.01:
            break
    return model.eval()


def nudge(model: BigRec) -> None:
    """Give the adapters an effect: their second factor starts at zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


class TestLoss:
    def test_it_is_the_cross_entropy_of_the_answer_alone(self, resources: Resources) -> None:
        """By hand, unpadded, one example after the other: no token of a prompt, an end token for every answer."""
        model = teacher(resources)
        nudge(model)
        prompts = [model.tokenizer("What next?")["input_ids"], model.tokenizer("And after that?")["input_ids"]]
        answers = [model._answer(0), model._answer(2)]
        assert answers[0][-1] == model.tokenizer.eos_token_id
        assert model.tokenizer.decode(answers[0][:-1]) == '"Heat"'
        losses = []
        for prompt, answer in zip(prompts, answers, strict=True):
            logits = model.llm(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            losses += nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none").tolist()
        found = model.answer_loss(prompts, answers)
        assert float(found.detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-5)

    def test_prompts_are_never_labels(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        """Were the prompt's tokens learned too, the model would be paid for knowing the instruction by heart."""
        model = teacher(resources)
        given: list[Tensor] = []
        original = nn.functional.cross_entropy

        def spied(logits: Tensor, labels: Tensor) -> Tensor:
            given.append(labels)
            return original(logits, labels)

        monkeypatch.setattr("deshi.teachers.bigrec.F.cross_entropy", spied)
        model.training_loss(batch([0, 2], [4, 0]), NO_LOSS)
        labels = given[0][given[0] != -100].tolist()
        assert sorted(labels) == sorted(model._answer(2) + model._answer(0))

    def test_prompts_hold_the_latest_titles_in_order(self, resources: Resources) -> None:
        """``history`` items up to the position, none after it: the next item in its own prompt would be a leak."""
        model = teacher(resources, history=2, things="films")
        (tokens,) = model._prompts(batch([0, 1, 2, 4, 5]).items, torch.tensor([0]), torch.tensor([3]))
        text = model.tokenizer.decode(tokens)
        assert '"Alien", "Solaris"\n' in text and "the films that" in text
        assert "Heat" not in text and "Ran" not in text

    def test_positions_are_drawn_by_the_content(self, resources: Resources) -> None:
        """The same batch gives the same bits; other batches of the epoch draw other positions of a history."""
        model = teacher(resources, targets_per_history=2)
        same = batch([0, 1, 2, 4, 5, 3], [1, 0])
        first, second = model._drawn(same), model._drawn(same)
        assert torch.equal(first[1], second[1])
        assert first[0].tolist() == [0, 0, 1] and len(set(first[1][:2].tolist())) == 2
        assert first[1][2] == 0, "a history with one target has but that"
        seen = {tuple(model._drawn(batch([0, 1, 2, 4, 5, 3], [other, 0]))[1].tolist()) for other in range(6)}
        assert len(seen) > 1
        assert torch.equal(model.training_loss(same, NO_LOSS), model.training_loss(same, NO_LOSS))

    def test_a_batch_without_targets_is_refused(self, resources: Resources) -> None:
        """The mean over nothing is NaN, which would end the training far away."""
        empty = batch([0, 1])
        nothing = Batch(empty.users, empty.items, empty.lengths, empty.targets * 0 + PAD, empty.rows)
        with pytest.raises(DeshiError, match="has no target"):
            teacher(resources).training_loss(nothing, NO_LOSS)

    def test_only_adapters_learn(self, resources: Resources) -> None:
        """The frozen model is the yardstick of the grounding: if it moved, every item's embedding would."""
        model = teacher(resources).train()
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=1.0)
        for _ in range(2):  # the first factor has no gradient while the second is zero
            optimizer.zero_grad()
            model.training_loss(batch([0, 1, 2], [4, 5, 0]), NO_LOSS).backward()
            optimizer.step()
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        adapters = {name for name in before if "lora_" in name}
        assert len(adapters) == 8 and moved == adapters | {"popularity"}


WIDE = Lora(16, 32.0, ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"))


@pytest.fixture(scope="module")
def _learned(tmp_path_factory: pytest.TempPathFactory) -> BigRec:
    model = teacher(make_resources(tmp_path_factory.mktemp("learned")), ByteLLM(width=64), lora=WIDE)
    return learn_by_heart(model, batch([0, 2], [4, 5], [5, 0]), steps=150, rate=1e-2)


@pytest.fixture
def learned(_learned: BigRec) -> BigRec:
    """A teacher that knows by heart what follows on three histories: one's own copy."""
    return copy.deepcopy(_learned)


class TestRanking:
    def test_it_learns_to_write_titles_and_ranks_their_items_first(self, learned: BigRec) -> None:
        """The whole way, both steps: an exact title has distance 0 to its item and more to all others."""
        asked = histories([0], [4], [5])
        assert learned.write(*asked) == ["Solaris", "Brazil", "Heat"]
        scores = learned.next_scores(*asked)
        assert scores.argmax(1).tolist() == [2, 5, 0]
        torch.testing.assert_close(scores.amax(1), torch.zeros(3), atol=1e-3, rtol=0)
        assert scores.dtype == torch.float32 and scores.shape == (3, 6)
        assert torch.equal(scores[:, 1], scores[:, 3]), "items of one title tie"

    def test_scores_do_not_depend_on_the_batch(self, learned: BigRec) -> None:
        """Neither neighbours, nor padding, nor what lies before the history that is read, changes an answer."""
        rows = [[0], [2, 0], [1, 5, 3, 4], [4, 5, 1, 3, 4]]
        together = learned.next_scores(*histories(*rows, width=9))
        for number, row in enumerate(rows):
            alone = learned.next_scores(*histories(row))
            torch.testing.assert_close(together[number], alone[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together[2], together[3], atol=1e-4, rtol=1e-4)

    def test_beams(self, learned: BigRec) -> None:
        """Beam search keeps what greedy search finds where the model is sure."""
        learned.beams = 3
        assert learned.write(*histories([0], [4], [5])) == ["Solaris", "Brazil", "Heat"]

    def test_distances_are_those_of_the_frozen_model(self, learned: BigRec, resources: Resources) -> None:
        """Adapters are off for both embeddings, as in the paper's program, and on again after it."""
        untrained = teacher(resources, ByteLLM(width=64))
        torch.testing.assert_close(learned.item_embeddings(), untrained.item_embeddings())
        assert learned.item_embeddings().shape == (6, 64)
        frozen = ByteLLM(width=64).load(Path())
        by_hand = embed_texts([quoted("Solaris")], frozen.backbone, frozen.tokenizer)
        torch.testing.assert_close(learned.item_embeddings()[2], by_hand[0])
        assert learned.write(*histories([0])) == ["Solaris"]
        assert all(parameter.requires_grad for name, parameter in learned.named_parameters() if "lora_" in name)

    def test_asking_leaves_the_mode_alone(self, learned: BigRec) -> None:
        """Validation inside training must not end it; an averaged copy must not become trainable."""
        learned.train()
        copied = copy.deepcopy(learned).requires_grad_(False)
        assert torch.equal(copied.next_scores(*histories([0])), learned.next_scores(*histories([0])))
        assert learned.training and learned.llm.training
        assert not any(parameter.requires_grad for parameter in copied.parameters())

    def test_popularity_pulls_items_up(self, resources: Resources) -> None:
        """Counted on training batches: the more often an item was seen there, the nearer it comes."""
        model = teacher(resources, popularity_gamma=5.0).train()
        for _ in range(3):
            model.training_loss(batch([0, 4], [2, 4]), NO_LOSS)
        assert model.popularity.tolist() == [3, 0, 3, 0, 6, 0]
        plain = teacher(resources).next_scores(*histories([1]))[0]
        scores = model.eval().next_scores(*histories([1]))[0]
        low, high = (-plain).min(), (-plain).max()
        expected = -((-plain - low) / (high - low)) / (1 + model.popularity / 6) ** 5
        torch.testing.assert_close(scores, expected)
        model.training_loss(batch([0, 4]), NO_LOSS)
        assert float(model.popularity.sum()) == 12, "nothing is counted in evaluation"

    def test_bad_histories_stop_at_the_door(self, resources: Resources) -> None:
        """An unknown item has no title; it must not read another's."""
        with pytest.raises(HistoryError, match="items holds 6"):
            teacher(resources).next_scores(*histories([6]))


class TestSaving:
    def test_only_what_was_trained_is_saved(self, learned: BigRec, resources: Resources, tmp_path: Path) -> None:
        """A checkpoint of adapters is a thousandth of the model, and it brings the same answers back."""
        names = set(learned.state_dict())
        assert names == {name for name, p in learned.named_parameters() if p.requires_grad} | {"popularity"}
        save_weights(learned, tmp_path / "teacher.safetensors")
        other = teacher(resources, ByteLLM(width=64), seed=5, lora=WIDE)
        load_weights(other, tmp_path / "teacher.safetensors")
        assert torch.equal(other.eval().next_scores(*histories([0], [1])), learned.next_scores(*histories([0], [1])))

    def test_inside_another_module(self, resources: Resources) -> None:
        """Lightning saves and loads the teacher under a prefix, strictly."""
        outer = nn.ModuleDict({"student": teacher(resources), "averaged": teacher(resources, seed=1)})
        state = outer.state_dict()
        assert all("lora_" in name or name.endswith(".popularity") for name in state)
        outer.load_state_dict(state)

    def test_a_missing_or_foreign_weight_is_an_error(self, resources: Resources) -> None:
        """Tolerance ends at the frozen model: half a teacher would answer like none."""
        model = teacher(resources)
        state = model.state_dict()
        lost = next(name for name in state if "lora_B" in name)
        with pytest.raises(RuntimeError, match="Missing key"):
            model.load_state_dict({name: value for name, value in state.items() if name != lost})
        with pytest.raises(RuntimeError, match="Unexpected key"):
            model.load_state_dict(state | {"stranger": torch.zeros(1)})
        with pytest.raises(RuntimeError, match="size mismatch"):
            teacher(resources, lora=Lora(2)).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"lora": Lora(targets=("attention",))},
            "targets=attention don't fit the LLM, whose linear layers are down_proj, gate",
        ),
        ({"history": 0}, "history is 0, expected at least 1"),
        ({"max_length": 1}, "max_length is 1, expected at least 2"),
        ({"max_new_tokens": 4}, "max_new_tokens is 4"),
        ({"popularity_gamma": -1.0}, "popularity_gamma is -1.0"),
        ({"llm": ByteLLM(window=200)}, "but the LLM reads 200"),
    ],
)
def test_settings_that_cannot_work(resources: Resources, options: dict[str, Any], message: str) -> None:
    """Said before the first batch, with what to change."""
    with pytest.raises(DeshiError, match=message):
        teacher(resources, **options)


def test_duplicates_are_exposed(resources: Resources) -> None:
    """A report must be able to say how many items no generated title can tell apart."""
    assert teacher(resources).duplicate_titles == 2
    assert teacher(resources).described["name"] == "bytes"


@pytest.mark.slow
def test_the_real_model_learns_and_grounds(tmp_path: Path, own_cache: Path) -> None:
    """A tiny random model hides what a real tokenizer and real weights can break: merged quotes, end token, bf16."""
    titles = ["Toy Story (1995)", "GoldenEye (1995)", "Four Rooms (1995)", "Get Shorty (1995)", "Copycat (1995)"]
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(5)], "title": titles})
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3], [4, 3, 0]], n_items=5, items=items)
    resources = Resources(bundle, own_cache, lambda name: pytest.fail("no student"), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BigRec(5, resources, LLM(), history=3, max_length=5)
    queries = model.embed(["Toy Story", "Golden Eye (1995)"])
    assert l2_distances(queries, model.item_embeddings()).argmin(1).tolist() == [0, 1], "near texts, near embeddings"
    lesson = batch([0, 2], [4, 3])
    before = float(model.training_loss(lesson, NO_LOSS).detach())
    learn_by_heart(model, lesson, steps=40, rate=3e-3)
    assert float(model.training_loss(lesson, NO_LOSS).detach()) < before / 10
    asked = histories([0], [4])
    assert model.write(*asked) == ["Four Rooms (1995)", "Get Shorty (1995)"]
    assert model.next_scores(*asked).argmax(1).tolist() == [2, 3]
