"""iLoRA's generated answers: candidates, greedy generation, matching of titles, and their log-likelihoods."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deshi.teachers._ilora_network import InstanceLLM, Prompted, mixtures
from deshi.types import PAD, DeshiError

INVALID = -1
"""The choice of an answer that names none of its candidates, or several."""


@dataclass(frozen=True)
class Answers:
    """Generated answers.

    Attributes:
        texts: as generated, for :func:`deshi.metrics.answer_metrics`.
        chosen: ``(B,)`` int64 columns of the candidates, :data:`INVALID` for answers that match no single one.
    """

    texts: list[str]
    chosen: Tensor

    @property
    def invalid(self) -> int:
        """Number of invalid answers."""
        return int((self.chosen == INVALID).sum())


def match_answer(text: str, titles: Sequence[str]) -> int:
    """The position of the title that an answer names.

    Upper and lower case, width and accents' encoding, spaces and punctuation at the ends don't matter. An answer that
    is a title names it, even if another title stands inside it ("Alien", "Aliens"); otherwise it names the only title
    that it contains. Two candidates of the same title can't be told apart.

    Returns:
        the title's position, or :data:`INVALID`.
    """
    answer, plain = _plain(text), [_plain(title) for title in titles]
    equal = [number for number, title in enumerate(plain) if title == answer]
    matches = equal or [number for number, title in enumerate(plain) if title and title in answer]
    return matches[0] if len(matches) == 1 else INVALID


def _plain(text: str) -> str:
    merged = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return merged.strip(" \"'`.,;:!?*_-")


def draw_candidates(
    history: NDArray[np.int64], target: int, n_items: int, size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The target and ``size - 1`` other items that aren't in the history, in random order; fewer if there are fewer."""
    free = np.ones(n_items, dtype=bool)
    free[history[history >= 0]] = False
    free[target] = False
    pool = np.flatnonzero(free)
    others = generator.choice(pool, min(size - 1, len(pool)), replace=False)
    return generator.permutation(np.append(others, target))


def check_candidates(candidates: Tensor, batch: int, n_items: int) -> None:
    """Refuse candidates that aren't ``(B, C)`` item indices with ``PAD`` on the right, at least one a row."""
    real = candidates >= 0 if candidates.dim() == 2 and len(candidates) == batch else None
    if real is None or not bool(real[:, :1].all()) or int(candidates.max()) >= n_items:
        raise DeshiError(
            f"Candidates have shape {tuple(candidates.shape)} and values up to {int(candidates.max())}, expected "
            f"({batch}, C) item indices 0..{n_items - 1}, {PAD} on the right, and at least one candidate a row."
        )


def answer_loss(network: InstanceLLM, prompted: Prompted) -> Tensor:
    """Mean cross-entropy of the tokens of the prompts' last segments, the answers, in nats."""
    layout = prompted.layout
    # the answer is each prompt's last segment; its tokens are predicted by the states one column before them
    answers = layout.segments.amax(1, keepdim=True)
    targets = (layout.segments == answers)[:, 1:]
    states = network.states(prompted.embedded, prompted.mixtures(slice(None), layout.tokens.shape[1]))
    return F.cross_entropy(network.vocabulary_logits(states[:, :-1][targets]), layout.tokens[:, 1:][targets])


@torch.no_grad()
def write_answers(network: InstanceLLM, prompted: Prompted, limit: int) -> list[str]:
    """Greedy continuations of prompts: up to the first line's end, the token that ends answers, or ``limit`` tokens."""
    embedded, gates, mask, positions = _right_aligned(prompted)
    options = {"attention_mask": mask.long(), "position_ids": positions, "use_cache": True}
    output = network.run(embedded, gates, **options)
    # what is generated has the mixture of the prompt's end
    mixed = None if gates is None else gates[:, -1:]
    finished = torch.zeros(len(embedded), dtype=torch.bool, device=embedded.device)
    written: list[Tensor] = []
    for _ in range(limit):
        written.append(network.vocabulary_logits(output.last_hidden_state[:, -1]).argmax(-1))
        finished |= written[-1] == network.tokens.stop
        if bool(finished.all()):
            break
        # one more token for every prompt, on the keys and values of those before it
        mask, positions = F.pad(mask, (0, 1), value=True), positions[:, -1:] + 1
        options |= {"attention_mask": mask.long(), "position_ids": positions, "past_key_values": output.past_key_values}
        output = network.run(network.token_embedding(written[-1])[:, None], mixed, **options)
    return [_until(network, tokens) for tokens in torch.stack(written, dim=1).tolist()]


def _until(network: InstanceLLM, tokens: list[int]) -> str:
    stop = network.tokens.stop
    kept = tokens[: tokens.index(stop)] if stop in tokens else tokens
    text: str = network.tokenizer.decode(kept, skip_special_tokens=True)
    return text.strip().partition("\n")[0].strip()


@torch.no_grad()
def answer_log_likelihood(network: InstanceLLM, prompted: Prompted, candidates: Tensor) -> Tensor:
    """The log-likelihood of each candidate's title, with the token that ends it, as the prompts' continuation.

    The prompts are read once; the titles continue from their keys and values.

    Args:
        network: the language model with its experts.
        prompted: ``B`` prompts that end with the cue.
        candidates: ``(B, C)`` item indices, ``PAD`` on the right.

    Returns:
        ``(B, C)`` fp32, the sum of the tokens' log probabilities in nats, ``-inf`` for ``PAD``.
    """
    batch, width = candidates.shape
    # read each prompt once, then repeat its keys and values for every candidate
    embedded, gates, mask, positions = _right_aligned(prompted)
    prompt = {"attention_mask": mask.long(), "position_ids": positions, "use_cache": True}
    output = network.run(embedded, gates, **prompt)
    output.past_key_values.batch_repeat_interleave(width)
    # the titles, one a row of (B * C), continue from there
    titles = network.tokens.lay_out(network.tokens.answer(candidates.clamp(min=0)).reshape(-1, 1))
    real = titles.segments >= 0
    steps = torch.arange(titles.tokens.shape[1], device=mask.device)
    options = {
        "attention_mask": torch.cat([mask.repeat_interleave(width, 0), real], dim=1).long(),
        "position_ids": positions[:, -1:].repeat_interleave(width, 0) + 1 + steps,
        "past_key_values": output.past_key_values,
        "use_cache": True,
    }
    mixed = None if gates is None else gates[:, -1:].repeat_interleave(width, 0).expand(-1, len(steps), -1)
    after = network.run(network.token_embedding(titles.tokens), mixed, **options).last_hidden_state
    # a title's first token is predicted by the prompt's last state, the others by the states of those before them
    first = output.last_hidden_state[:, -1:].repeat_interleave(width, 0)
    states = torch.cat([first, after[:, :-1]], dim=1)[real]
    log_probs = -F.cross_entropy(network.vocabulary_logits(states), titles.tokens[real], reduction="none")
    sums = torch.zeros(real.shape, device=log_probs.device).masked_scatter(real, log_probs).sum(1).view(batch, width)
    return sums.masked_fill(candidates < 0, -torch.inf)


def _right_aligned(prompted: Prompted) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Prompts padded on the left, so that all go on from the last column: embeddings, mixtures, mask, positions."""
    real = prompted.layout.segments >= 0
    width = real.shape[1]
    # the column that each column's content comes from; before the first it is padding
    source = torch.arange(width, device=real.device) - (width - real.sum(1))[:, None]
    mask, source = source >= 0, source.clamp(min=0)
    embedded = prompted.embedded.gather(1, source[..., None].expand_as(prompted.embedded))
    gates = None if prompted.gates is None else mixtures(prompted.gates, prompted.read.gather(1, source))
    return embedded, gates, mask, source
