"""iLoRA's answers in words: what is written, which candidate it names, and how likely each title is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_ilora import histories, train, training_batch
from tiny_llm import MAX_LENGTH, N_ITEMS, Gate, ItemForm, Mode, tiny_teacher

from deshi.losses.softmax import Softmax
from deshi.teachers._ilora_answers import INVALID, draw_candidates, match_answer
from deshi.teachers.ilora import ILoRA
from deshi.teachers.instance_lora import InstanceLora
from deshi.teachers.prompts import Prompt
from deshi.types import PAD, DeshiError

CANDIDATES = torch.tensor([[3, 9, 14, 1], [20, 2, PAD, PAD], [5, 6, 7, PAD]])


def asked(item: ItemForm, tmp_path: Path, gate: Gate = "prefix", mode: Mode = "causal") -> ILoRA:
    return tiny_teacher(tmp_path, Prompt(item=item, mode=mode, candidates=4), InstanceLora(gate=gate)).eval()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heat", 0),
        ("  hEAT. ", 0),
        ("I would say: Heat!", 0),
        ("ＨＥＡＴ", 0),
        ("Alien", 1),
        ("Aliens", 2),
        ("'Aliens'", 2),
        ("It is Alien, surely", 1),
        ("the Aliens film", INVALID),
        ("Heat or Alien", INVALID),
        ("Casablanca", INVALID),
        ("", INVALID),
        ("Twin", INVALID),
    ],
)
def test_an_answer_names_one_candidate_or_none(text: str, expected: int) -> None:
    """An answer that could mean two items must count as no answer, and spelling must not decide."""
    assert match_answer(text, ["Heat", "Alien", "Aliens", "Twin", "twin"]) == expected


def test_candidates_hold_the_target_once_and_nothing_known() -> None:
    """A candidate from the history is no distractor, and without the target no answer is right."""
    generator, history = np.random.default_rng(0), np.array([0, 1, 2, PAD])
    for _ in range(20):
        drawn = draw_candidates(history, 5, 10, 4, generator)
        assert len(set(drawn.tolist())) == 4 and 5 in drawn and not set(drawn.tolist()) & {0, 1, 2}
    assert sorted(draw_candidates(history, 5, 10, 20, generator).tolist()) == [3, 4, 5, 6, 7, 8, 9]
    places = [draw_candidates(history, 5, 10, 4, generator).tolist().index(5) for _ in range(200)]
    assert set(places) == {0, 1, 2, 3}, "the target's place must not give it away"


@pytest.mark.parametrize("item", ["title", "embedding", "hybrid"])
@pytest.mark.parametrize(("gate", "mode"), [("prefix", "causal"), ("history", "per_prefix"), ("uniform", "causal")])
def test_likelihood_equals_one_prompt_for_each_candidate(
    item: ItemForm, gate: Gate, mode: Mode, tmp_path: Path
) -> None:
    """Reading the prompt once for all candidates is a shortcut, padded and cached: it must change nothing."""
    teacher = asked(item, tmp_path, gate, mode)
    items, lengths = histories([6, 2, 4])
    found = teacher.candidate_log_likelihood(items, lengths, CANDIDATES)
    network, tokens = teacher.network, teacher.network.tokens
    for row, candidates in enumerate(CANDIDATES):
        history, length = items[row : row + 1, : lengths[row]], lengths[row : row + 1]
        for place, item_index in enumerate(candidates.tolist()):
            if item_index == PAD:
                assert found[row, place] == -torch.inf
                continue
            segments = tokens.questions(history, candidates[None], torch.tensor([item_index]))
            prompted = network.prompt(segments, history, length)
            width = prompted.layout.tokens.shape[1]
            states = network.states(prompted.embedded, prompted.mixtures(slice(None), width))
            told = network.vocabulary_logits(states[:, :-1]).log_softmax(-1)
            answer = prompted.layout.segments[:, 1:] == prompted.layout.segments.max()
            expected = told.gather(-1, prompted.layout.tokens[:, 1:, None])[..., 0][answer].sum()
            torch.testing.assert_close(found[row, place], expected, atol=1e-3, rtol=1e-4)


def test_writing_follows_the_likeliest_tokens(tmp_path: Path) -> None:
    """Prompts of different lengths are padded and continued together; each must be written as if it were alone."""
    teacher = asked("hybrid", tmp_path)
    items, lengths = histories([6, 2, 4])
    together = teacher.answer_candidates(items, lengths, CANDIDATES)
    assert together.chosen.shape == (3,) and len(together.texts) == 3
    assert together.invalid == int((together.chosen == INVALID).sum())
    network, tokens = teacher.network, teacher.network.tokens
    for row, text in enumerate(together.texts):
        history, length = items[row : row + 1, : lengths[row]], lengths[row : row + 1]
        prompted = network.prompt(tokens.questions(history, CANDIDATES[row : row + 1]), history, length)
        embedded, written = prompted.embedded, list[int]()
        gates = prompted.mixtures(slice(None), embedded.shape[1])
        assert gates is not None
        for _ in range(8):
            state = network.states(embedded, gates)[:, -1]
            written.append(int(network.vocabulary_logits(state).argmax()))
            if written[-1] == tokens.stop:
                break
            embedded = torch.cat([embedded, network.token_embedding(torch.tensor([written[-1:]]))], dim=1)
            gates = torch.cat([gates, gates[:, -1:]], dim=1)
        kept = [token for token in written if token != tokens.stop]
        assert text == network.tokenizer.decode(kept, skip_special_tokens=True).strip().partition("\n")[0].strip()


def test_learns_to_write_the_next_title(tmp_path: Path) -> None:
    """The paper's objective: the gradient of the title's tokens trains experts, gate and projector alone."""
    prompt = Prompt(candidates=3, query="?", cue="!")
    teacher = tiny_teacher(tmp_path, prompt, InstanceLora(rank=32, experts=2), objective="generate", stirred=False)
    batch = training_batch([2, 2, 2])
    before = {name: p.detach().clone() for name, p in teacher.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("head", "items")) for name in before), "nothing would train the dense head"
    first = train(teacher, batch, steps=1)
    assert train(teacher, batch, steps=150, rate=0.02) < 0.3 * first
    assert all(not torch.equal(teacher.get_parameter(name), old) for name, old in before.items())


def test_both_objectives_add_up(tmp_path: Path) -> None:
    """The sum is what it says: one term must not shadow the other."""
    batch, losses = training_batch([6, 5]), {}
    for objective in ("dense", "generate", "both"):
        teacher = tiny_teacher(tmp_path, Prompt(candidates=4), objective=objective).train()
        losses[objective] = float(teacher.training_loss(batch, Softmax()).detach())
    assert losses["both"] == pytest.approx(losses["dense"] + losses["generate"], rel=1e-5)


def test_long_histories_are_cut_before_they_are_asked(tmp_path: Path) -> None:
    """Evaluation hands over whole histories; the answer follows from the latest items, as in the dense ranking."""
    teacher = asked("embedding", tmp_path)
    items, lengths = histories([3 * MAX_LENGTH])
    cut = items[:, -MAX_LENGTH:]
    found = teacher.candidate_log_likelihood(items, lengths, CANDIDATES[:1])
    expected = teacher.candidate_log_likelihood(cut, torch.tensor([MAX_LENGTH]), CANDIDATES[:1])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("bad", [[[1, N_ITEMS]], [[PAD, 1]], [[1, 2], [3, 4]], [1]])
def test_candidates_that_are_none_are_refused(bad: list[object], tmp_path: Path) -> None:
    """A wrong index would offer another item's title."""
    with pytest.raises(DeshiError, match="Candidates have shape"):
        asked("title", tmp_path).answer_candidates(*histories([2]), torch.tensor(bad))
