"""iLoRA: a language model that recommends, with LoRA experts mixed by a student's state of the user's history."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.configuration.needs import PEFT, Need
from deshi.losses.base import Loss
from deshi.models.base import SequentialRecommender, check_histories, keep_latest
from deshi.models.item_table import ItemEmbedding, ItemTable
from deshi.models.layers import Dropout
from deshi.teachers._ilora_answers import (
    Answers,
    answer_log_likelihood,
    answer_loss,
    check_candidates,
    draw_candidates,
    match_answer,
    write_answers,
)
from deshi.teachers._ilora_network import InstanceLLM, Prompted, mixtures
from deshi.teachers._item_text import item_names, require_texts
from deshi.teachers.base import Resources
from deshi.teachers.instance_lora import InstanceLora
from deshi.teachers.llm import LLM
from deshi.teachers.prompts import ItemTokens, Prompt
from deshi.types import PAD, Batch, DeshiError

TOKENS = 16_384
"""Tokens, padding included, that the language model reads at once."""

EAGER = 512
"""Prompts of at most so many tokens are read without the fused attention on a CPU."""

PREFIXES = 4
"""Beginnings of each history that a training step with ``prompt.mode=per_prefix`` takes, drawn anew at every step."""


class ILoRA(SequentialRecommender):
    """iLoRA (Kong et al., NeurIPS 2024, arXiv 2408.10159), https://github.com/AkaliKong/iLoRA.

    A frozen language model reads a history; the items' embeddings in the prompt and the gate over the LoRA experts come
    from a frozen, finished student. Trained are the experts, the gate, the projector and the head. Beside the paper's
    answer, a title among candidates, it has a dense one: the hidden state after an item ranks the whole catalogue.

    Deviations: by default the gate follows the history *token by token* (``lora.gate=prefix``): an item's tokens are
    mixed by the student's state after that item. The paper has one mixture for a prompt, that of the whole history;
    in a causal pass that would tell early positions the future, so ``lora.gate=history`` needs ``per_prefix``. The
    projector's output has the size of token embeddings. The paper's curriculum (titles first, embeddings later) and its
    separate learning rate for the gate are left out.

    Args:
        n_items: number of items.
        resources: data, cache and runs.
        llm: the language model.
        student: name of the finished run on the same data whose network stands for the histories: a student of
            ``deshi fit``, or a text teacher, whose items are made of their texts' vectors.
        prompt: how histories are written.
        lora: the experts and their gate.
        max_length: number of latest items read; at most the student's.
        head: the items' scoring vectors: a trainable ``table`` that begins as the student's, or ``projected``: the
            projected embeddings of the prompt, through one linear layer.
        objective: ``dense``: the loss over the catalogue; ``generate``: the title among candidates, token by token;
            ``both``: their sum. After ``generate`` alone the dense ranking is that of untrained weights.
        dropout: rate on projected embeddings and before the head.
        imitate: weight of the mean squared distance between the state after an item and the student's, which teaches
            the language model what the student knows of users (LLM-SRec, Kim et al., KDD 2025, arXiv 2502.13909; its
            projections and its term of uniformity are left out: states have a norm, and the loss ranks all items).
    """

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        llm: LLM,
        student: str,
        prompt: Prompt | None = None,
        lora: InstanceLora | None = None,
        max_length: int = 100,
        head: Literal["table", "projected"] = "table",
        objective: Literal["dense", "generate", "both"] = "dense",
        dropout: float = 0.1,
        imitate: float = 0.0,
    ) -> None:
        prompt, lora = prompt or Prompt(), lora or InstanceLora()
        if imitate < 0:
            raise DeshiError(f"teacher.imitate is {imitate}, expected a weight of at least 0; 0 leaves the term out.")
        trained, _ = resources.load_student(student)
        _check(n_items, trained, student, prompt, lora, max_length)
        super().__init__(n_items, trained.dim, max_length)
        items = resources.bundle.item_table()
        if prompt.item != "embedding" or objective != "dense":
            require_texts(items)
        loaded = llm.load(resources.cache, resources.device)
        tokens = ItemTokens(prompt, loaded.tokenizer, item_names(items))
        self.prompt, self.objective, self.described, self.imitate = prompt, objective, loaded.described, imitate
        self.network = InstanceLLM(loaded, trained, tokens, lora, dropout)
        if self._longest_prompt(loaded.model.config) <= EAGER and loaded.device.type == "cpu":
            # PyTorch's fused attention needs 40 ms for a layer's gradients (16 prompts of 111 tokens, bf16) and the
            # plain products 5 ms; with a thousand tokens the fused one is as fast and leaves the memory free.
            loaded.model.set_attn_implementation("eager")
        self.head = Head(self.network.width, trained.dim, dropout)
        self.align = nn.Linear(self.network.width, trained.dim) if head == "projected" else None
        if head == "projected":
            del self.items
        else:
            with torch.no_grad():
                cast(ItemEmbedding, self.items).weight[1:] = trained.item_table()
        if objective == "generate":
            for part in (self.head, *((self.align,) if self.align is not None else (self.items,))):
                part.requires_grad_(False)
        self.draws = Draws()

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """The package of the adapters; the language model has its own."""
        return [PEFT]

    def describe(self) -> dict[str, Any]:
        """The language model, for the run's record."""
        return {"llm": self.described}

    @property
    def titles(self) -> list[str]:
        """The items' titles as the prompts have them, in index order."""
        return self.network.tokens.titles

    @property
    def learnt_to_answer(self) -> bool:
        """Whether training taught it to answer in words."""
        return self.objective != "dense"

    def encode(self, items: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`SequentialRecommender.encode`."""
        inside = torch.arange(items.shape[1], device=items.device) < lengths[:, None]
        hidden = self.encode_at(items, lengths, inside)
        return hidden.new_zeros(*items.shape, self.dim).masked_scatter(inside[..., None], hidden)

    def encode_last(self, items: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`SequentialRecommender.encode_last`: one prompt a history, whatever the mode."""
        columns = torch.arange(items.shape[1], device=items.device)
        return self.encode_at(items, lengths, columns == (lengths - 1)[:, None])

    def encode_at(self, items: Tensor, lengths: Tensor, where: Tensor) -> Tensor:
        """Hidden states ``(P, dim)`` after the marked positions of ``where`` ``(B, L)``, in row-major order."""
        prompted = self.network.prompt(self.network.tokens.histories(items), items, lengths)
        states = self._causal(prompted, where) if self.prompt.mode == "causal" else self._prefixes(prompted, where)
        return cast(Tensor, self.head(states.float()))

    def item_table(self) -> Tensor:
        """See :meth:`SequentialRecommender.item_table`."""
        if self.align is None:
            return super().item_table()
        every = torch.arange(self.n_items, device=self.align.weight.device)
        return cast(Tensor, self.align(self.network.project(every)))

    def _with_items(self, change: Callable[[ItemTable], ItemTable]) -> ILoRA:
        """Itself: its item table is trained numbers, or comes from the language model."""
        return self

    def text_vectors(self) -> None:
        """None: the language model reads titles, no vectors."""

    def training_loss(self, batch: Batch, loss: Loss) -> Tensor:
        """The loss that ``objective`` names; with ``per_prefix`` over some of each history's positions."""
        terms = [] if self.objective == "generate" else [self._dense_loss(batch, loss)]
        if self.objective != "dense":
            terms.append(self._title_loss(batch))
        return torch.stack(terms).sum()

    def loss_positions(self, batch: Batch) -> int:
        """The positions of the dense loss, some of each history's with ``per_prefix``; answers, where it has none."""
        targets = (batch.targets != PAD).sum(1)
        if self.objective == "generate":
            return int(targets.clamp(max=1).sum())
        return int((targets.clamp(max=PREFIXES) if self.prompt.mode == "per_prefix" else targets).sum())

    def answer_candidates(self, items: Tensor, lengths: Tensor, candidates: Tensor) -> Answers:
        """Generate the title of one candidate for each history, greedily: the paper's protocol.

        Args:
            items: ``(B, L)`` histories, however long.
            lengths: ``(B,)``.
            candidates: ``(B, C)`` item indices, ``PAD`` on the right.
        """
        tokens, texts = self.network.tokens, list[str]()
        check_candidates(candidates, len(items), self.n_items)
        limit = int(tokens.size(tokens.answer(candidates[candidates >= 0])).max())
        # the titles of the history and of the candidates; the fixed texts are short beside them
        longest = self.max_length * tokens.longest + candidates.shape[1] * limit
        size = max(1, TOKENS // longest)
        for start in range(0, len(items), size):
            rows = slice(start, start + size)
            texts += write_answers(self.network, self._question(items[rows], lengths[rows], candidates[rows]), limit)
        named = [[tokens.titles[item] for item in row if item >= 0] for row in candidates.tolist()]
        chosen = [match_answer(text, titles) for text, titles in zip(texts, named, strict=True)]
        return Answers(texts, torch.tensor(chosen, dtype=torch.long))

    def candidate_log_likelihood(self, items: Tensor, lengths: Tensor, candidates: Tensor) -> Tensor:
        """The log-likelihood ``(B, C)`` of each candidate's title in nats: the best one is always a valid choice."""
        return answer_log_likelihood(self.network, self._question(items, lengths, candidates), candidates)

    def _question(self, items: Tensor, lengths: Tensor, candidates: Tensor) -> Prompted:
        check_histories(items, lengths, self.n_items)
        check_candidates(candidates, len(items), self.n_items)
        items, lengths = keep_latest(items, lengths, self.max_length)
        with torch.no_grad():
            return self.network.prompt(self.network.tokens.questions(items, candidates), items, lengths)

    def _dense_loss(self, batch: Batch, loss: Loss) -> Tensor:
        where = batch.targets != PAD
        if self.prompt.mode == "per_prefix":
            where = self.draws.some(where, PREFIXES)
        check_histories(batch.items, batch.lengths, self.n_items)
        hidden = self.encode_at(batch.items, batch.lengths, where)
        ranked = cast(Tensor, loss(hidden, self.item_table(), batch.targets[where]))
        if not self.imitate:
            return ranked
        with torch.no_grad():
            states = self.network.student.encode(batch.items, batch.lengths)[where]
        return ranked + self.imitate * F.mse_loss(hidden, states)

    def _title_loss(self, batch: Batch) -> Tensor:
        """One position of each history: the next item's title among candidates."""
        where = self.draws.some(batch.targets != PAD, 1)
        rows, columns = where.nonzero(as_tuple=True)
        targets, lengths = batch.targets[where], columns + 1
        inside = torch.arange(batch.items.shape[1], device=where.device) < lengths[:, None]
        items = batch.items[rows].masked_fill(~inside, PAD)
        # a set of candidates for each history, padded to one width
        sets = [
            draw_candidates(history, target, self.n_items, self.prompt.candidates, self.draws.generator)
            for history, target in zip(items.cpu().numpy(), targets.tolist(), strict=True)
        ]
        width = max(map(len, sets))
        padded = np.stack([np.pad(drawn, (0, width - len(drawn)), constant_values=PAD) for drawn in sets])
        segments = self.network.tokens.questions(items, torch.from_numpy(padded).to(items.device), targets)
        return answer_loss(self.network, self.network.prompt(segments, items, lengths))

    def _causal(self, prompted: Prompted, where: Tensor) -> Tensor:
        """One pass over each prompt; an item's state is that of its last token."""
        ends, width = prompted.layout.ends[:, 1:], prompted.layout.tokens.shape[1]
        size, hidden = max(1, TOKENS // width), []
        for start in range(0, len(ends), size):
            rows = slice(start, start + size)
            states = self.network.states(prompted.embedded[rows], prompted.mixtures(rows, width))
            row, column = where[rows].nonzero(as_tuple=True)
            hidden.append(states[row, ends[rows][row, column]])
        return torch.cat(hidden)

    def _prefixes(self, prompted: Prompted, where: Tensor) -> Tensor:
        """A prompt for every marked position, which ends with its item."""
        # segment 0 is the instruction, so the item in column c of a history is segment c + 1
        rows, columns = where.nonzero(as_tuple=True)
        ends = prompted.layout.ends[rows, columns + 1]
        # prompts of similar length are read together, cut after the longest of them
        order = ends.argsort()
        parts, hidden = list(_chunks(order, (ends[order] + 1).tolist())), []
        for part in parts:
            width = int(ends[part[-1]]) + 1
            if self.network.scope == "history":
                read = (columns[part] + 1)[:, None].expand(-1, width)
            else:
                read = prompted.read[rows[part], :width]
            mixed = None if prompted.gates is None else mixtures(prompted.gates[rows[part]], read)
            states = self.network.states(prompted.embedded[rows[part], :width], mixed)
            hidden.append(states[torch.arange(len(part), device=ends.device), ends[part]])
        # back into the order of the marked positions
        return torch.cat(hidden)[torch.cat(parts).argsort()]

    def _longest_prompt(self, config: object) -> int:
        """Tokens of the longest prompt of a history; refused if the language model wasn't made for so many."""
        context = getattr(config, "max_position_embeddings", None)
        tokens = self.network.tokens
        needed = self.max_length * tokens.longest + int(tokens.size(torch.tensor([tokens.instruction])))
        if context is not None and needed > context:
            raise DeshiError(
                f"{self.max_length} items of up to {tokens.longest} tokens make prompts of up to {needed} tokens, but "
                f"the language model reads {context}. Lower teacher.max_length or teacher.prompt.title_tokens."
            )
        return needed


class Head(nn.Module):
    """From a language model's hidden states ``(P, H)`` to scoring vectors ``(P, dim)``.

    It ends with a norm, as the students whose item table it meets do, so that the logits have their size at once.
    """

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(width, dim)
        self.after = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(P, H)`` -> ``(P, dim)``."""
        return cast(Tensor, self.after(self.linear(self.dropout(self.before(x)))))


class Draws(Dropout):
    """Random choices in training that begin anew with the masks: see :func:`deshi.models.layers.reseed_dropout`."""

    def __init__(self) -> None:
        super().__init__(0.0)

    @property
    def generator(self) -> np.random.Generator:
        """The generator of the draws."""
        return self._generator

    def some(self, where: Tensor, count: int) -> Tensor:
        """At most ``count`` of the marked columns of each row of ``where`` ``(B, L)``, at random."""
        noise = torch.from_numpy(self.generator.random(where.shape)).to(where.device).masked_fill(~where, 2.0)
        rank = noise.argsort(dim=1).argsort(dim=1)
        return where & (rank < count)


def _chunks(order: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """Cut ``order``, sorted by rising ``sizes``, into parts that are padded to their longest.

    A part has at most ``TOKENS``, and once it has some hundreds, its shortest has three quarters of its longest.
    """
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop < len(sizes):
            full = (stop + 1 - start) * sizes[stop] > TOKENS
            uneven = 4 * sizes[start] < 3 * sizes[stop] and (stop - start) * sizes[stop - 1] >= 512
            if not (full or uneven):
                continue
        yield order[start:stop]
        start = stop


def _check(
    n_items: int, student: SequentialRecommender, name: str, prompt: Prompt, lora: InstanceLora, max_length: int
) -> None:
    if student.n_items != n_items:
        raise DeshiError(
            f"The student {name} knows {student.n_items} items, but the data have {n_items}. Train it on these data."
        )
    if max_length > student.max_length:
        raise DeshiError(
            f"teacher.max_length is {max_length}, but the student {name} reads {student.max_length} items, and the "
            "gate needs its state after each. Lower it, or train the student with a larger student.max_length."
        )
    if lora.gate == "history" and prompt.mode == "causal":
        raise DeshiError(
            "teacher.lora.gate=history mixes the experts by the whole history, which in a causal pass would tell early "
            "positions the future. Use teacher.lora.gate=prefix, or teacher.prompt.mode=per_prefix."
        )
