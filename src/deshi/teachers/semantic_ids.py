"""The semantic-ID teacher: a sequence model that reads and writes items as codes, with exact likelihoods of items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.configuration.needs import Need
from deshi.losses.base import Loss
from deshi.models.base import Recommender
from deshi.models.item_table import ItemTable
from deshi.models.layers import Dropout
from deshi.models.sasrec import SASRec
from deshi.teachers._code_trie import GroupedCrossEntropy, Siblings, TrieLevel, log_softmax_of_groups, trie_levels
from deshi.teachers.base import Resources
from deshi.teachers.item_embeddings import ItemEmbeddings, vectors_of_items
from deshi.teachers.residual_codes import ResidualCodes
from deshi.types import Batch, DeshiError, ScoreKind


class SemanticIds(Recommender):
    """A causal network over items that are known by their codes alone; it writes the next item code by code.

    The codes are TIGER's semantic IDs (Rajput et al., NeurIPS 2023, arXiv 2305.05065) with GRID's residual k-means
    (arXiv 2507.22224). Items of similar text share codes, and every item has its own ID.

    Deviations. An item of the history is one token, the sum of its codes' embeddings, not one token a code: a history
    is a quarter as long. The next item's codes are predicted level by level, each given those before it, by a
    bilinear form of the history's state and of the state of the beginning that the code would continue. Only codes that
    occur compete: training and ranking have one likelihood, which sums to one over the catalogue and is exact, where a
    beam search finds a few items.

    Args:
        n_items: number of items.
        resources: data and cache.
        embeddings: how the items' vectors are made; null is MiniLM over the titles.
        codes: how vectors become codes; null is three levels of 256.
        dim: width.
        max_length: number of latest items read.
        blocks: number of attention blocks.
        heads: attention heads.
        feed_forward: width of the feed-forward layer as a multiple of ``dim``.
        dropout: rate after the embedding and after each sub-layer.
        branch_dim: width of the states of beginnings.
        beams: rank only items that a beam search of this width reaches, as TIGER does; null ranks the catalogue.
    """

    score_kind = ScoreKind.LOG_PROBABILITY
    answers_positions = True
    codes: Tensor

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        embeddings: ItemEmbeddings | None = None,
        codes: ResidualCodes | None = None,
        dim: int = 128,
        max_length: int = 200,
        blocks: int = 2,
        heads: int = 2,
        feed_forward: float = 4.0,
        dropout: float = 0.2,
        branch_dim: int = 128,
        beams: int | None = None,
    ) -> None:
        super().__init__()
        if beams is not None and beams < 1:
            raise DeshiError(f"teacher.beams is {beams}, expected 1 or more, or null for the whole catalogue.")
        embeddings, codes = embeddings or ItemEmbeddings(), codes or ResidualCodes()
        vectors, encoder = vectors_of_items(embeddings, resources, n_items)
        item_codes = codes(vectors, resources.cache)
        self.n_items, self.max_length, self.beams = n_items, max_length, beams
        self.described = {"encoder": encoder, "codes": item_codes.record}
        self.dropout = Dropout(dropout)
        self.history = SASRec(n_items, dim, max_length, blocks, heads, feed_forward, dropout)
        self._set_codes(item_codes.codes, branch_dim)
        self.queries = nn.ModuleList(nn.Linear(dim, branch_dim) for _ in self.levels)

    def _set_codes(self, codes: Tensor, branch_dim: int) -> None:
        """Take up the items' codes: the trie, and the tables, whose sizes they decide."""
        self.register_buffer("codes", codes)
        self.levels = trie_levels(codes)
        sizes = [int(size) + 1 for size in codes.amax(0)]
        self.history.items = CodeTable(codes, CodeSum(sizes, self.history.dim, 0.02 / len(sizes) ** 0.5))
        self.states = nn.ModuleList(BranchStates(sizes[: n + 1], branch_dim) for n in range(len(sizes)))

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """Those of the default embeddings, if none are given."""
        return [] if arguments.get("embeddings") else ItemEmbeddings.needs({})

    def describe(self) -> dict[str, Any]:
        """The encoder and the codes, for the run's record."""
        return self.described

    def training_loss(self, batch: Batch, loss: Loss) -> Tensor:
        """The mean negative log-likelihood of the targets, in nats.

        Raises:
            DeshiError: for another loss than the softmax, which this likelihood stands for.
        """
        if not loss.is_full_softmax:
            raise DeshiError(
                f"loss is {type(loss).__name__}, but a semantic-ID teacher is trained on the likelihood of the items' "
                "codes among all that occur. Leave loss out (loss=softmax)."
            )
        hidden = self.history.hidden_states(batch).flatten(0, 1).index_select(0, batch.target_positions).float()
        targets = batch.on_cpu.targets.flatten()[batch.on_cpu.target_positions]
        with torch.autocast(hidden.device.type, enabled=False):
            total = hidden.new_zeros(())
            for level, query, states in self._parts():
                siblings = Siblings(level, targets, hidden.device)
                queries = query(hidden[siblings.positions])
                branches = self.dropout(states(level.paths[siblings.branches]))
                total = total + cast(Tensor, GroupedCrossEntropy.apply(queries, branches, siblings))
        return total / len(targets)

    def next_scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities ``(B, n_items)``; with ``beams``, minus infinity for items that no beam reached."""
        return self._log_probabilities(self.history.last_hidden(items, lengths))

    def position_scores(self, items: Tensor, lengths: Tensor, where: Tensor) -> Tensor:
        """As :meth:`next_scores`, ``(P, n_items)``, after the marked positions of ``where`` ``(B, L)``."""
        return self._log_probabilities(self.history(items, lengths)[where])

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        """Of all items after the states ``(B, dim)``: ``(B, n_items)``."""
        hidden = hidden.float()
        with torch.autocast(hidden.device.type, enabled=False):
            total = hidden.new_zeros(self.n_items, len(hidden))
            for level, query, states in self._parts():
                log_p = log_softmax_of_groups(states(level.paths) @ query(hidden).T, level)
                # an item whose code has no sibling gets the last row: probability one
                total = total + F.pad(log_p, (0, 0, 0, 1))[level.branches]
                if self.beams is not None:
                    total = keep_beams(total, level, self.beams)
        return total.T.contiguous()

    def _parts(self) -> Iterator[tuple[TrieLevel, nn.Module, nn.Module]]:
        """Of each level that has branches: the level, the map of histories' states, the states of branches."""
        for level, query, states in zip(self.levels, self.queries, self.states, strict=True):
            if len(cast(TrieLevel, level).paths):
                yield cast(TrieLevel, level), query, states

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Load weights together with the codes that they were trained on, if these are others than this machine's."""
        codes = state_dict.get(f"{prefix}codes")
        if codes is not None and not torch.equal(codes.cpu(), self.codes.cpu()):
            self._set_codes(codes.to(self.codes.device), cast(nn.Linear, self.queries[0]).out_features)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def keep_beams(total: Tensor, level: TrieLevel, beams: int) -> Tensor:
    """Log-probabilities ``(n_items, B)`` after a level, minus infinity for all but the ``beams`` best beginnings."""
    beginnings = total[level.heads]
    if len(beginnings) <= beams:
        return total
    best = beginnings.topk(beams, dim=0).indices
    kept = torch.zeros_like(beginnings, dtype=torch.bool).scatter_(0, best, True)
    return total.masked_fill(~kept[level.beginnings], -torch.inf)


class CodeSum(nn.Module):
    """Sums of the embeddings of codes, each level's codes having their own.

    Args:
        sizes: codes of each level.
        dim: width.
        std: of the first values.
    """

    offsets: Tensor

    def __init__(self, sizes: list[int], dim: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(sum(sizes), dim) * std)
        offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """``(M, l)`` codes of the first levels -> ``(M, dim)``."""
        return F.embedding_bag(codes + self.offsets[: codes.shape[1]], self.weight, mode="sum")


class BranchStates(CodeSum):
    """States of beginnings ``(M, l)`` -> ``(M, dim)``: a non-linearity of the sum of their codes' embeddings.

    Without it the code that is predicted and those before it would not interact: the latter's part of a score is the
    same for all siblings.
    """

    def __init__(self, sizes: list[int], dim: int) -> None:
        super().__init__(sizes, dim, len(sizes) ** -0.5)
        self.scale = dim**-0.5

    def forward(self, codes: Tensor) -> Tensor:
        """See the class."""
        return F.gelu(super().forward(codes)) * self.scale


class CodeTable(ItemTable):
    """Items' vectors as the sums of their codes' embeddings.

    Args:
        codes: ``(n_items, L)``.
        sums: of embeddings.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, sums: CodeSum) -> None:
        super().__init__()
        self.register_buffer("codes", codes, persistent=False)
        self.sums = sums

    def forward(self, items: Tensor) -> Tensor:
        """See :class:`~deshi.models.item_table.ItemTable`."""
        vectors = self.sums(self.codes[items.clamp(min=0).flatten()]).view(*items.shape, -1)
        return vectors.masked_fill((items < 0)[..., None], 0.0)

    def table(self) -> Tensor:
        """``(n_items, dim)``."""
        return cast(Tensor, self.sums(self.codes))
