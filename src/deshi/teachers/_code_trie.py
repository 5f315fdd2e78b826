"""The trie of semantic IDs: which codes may follow which, and likelihoods of items as sums over its levels.

The probability of an item is the product over the levels of its code's probability among the codes that follow the
same beginning: ``p(item) = p(c1) p(c2 | c1) p(c3 | c1, c2) ...``. A code without siblings has probability one. So a
level needs a row only for codes that have siblings: its *branches*, those of one beginning in a *group*.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from deshi.types import DeshiError


class TrieLevel(nn.Module):
    """One level of the trie: M branches in G groups, in the order of their codes.

    Attributes:
        paths: ``(M, l)`` the codes of each branch, from the first level to this one.
        groups: ``(M,)`` the group of each branch; a group's branches stand together.
        sizes: ``(G,)`` branches of each group.
        first: ``(G,)`` each group's first branch.
        branches: ``(n_items,)`` each item's branch; M for an item whose code has no sibling.
        heads: ``(B,)`` an item of each beginning of this length.
        beginnings: ``(n_items,)`` each item's beginning, an index into ``heads``.
        on_cpu: the same, where a training batch's siblings are looked up without waiting for a device.
    """

    paths: Tensor
    groups: Tensor
    sizes: Tensor
    first: Tensor
    branches: Tensor
    heads: Tensor
    beginnings: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        starts, beginnings = codes.unique(dim=0, return_inverse=True)  # lexicographic order
        before = nn.functional.pad(starts[:, :-1], (1, 0))  # the root is a beginning, too
        _, parents, sizes = before.unique(dim=0, return_inverse=True, return_counts=True)
        has_siblings = sizes[parents] > 1
        branch = torch.full((len(starts),), int(has_siblings.sum()))
        branch[has_siblings] = torch.arange(int(has_siblings.sum()))
        _, groups, counts = parents[has_siblings].unique(return_inverse=True, return_counts=True)
        heads = torch.empty(len(starts), dtype=torch.long)
        heads[beginnings] = torch.arange(len(codes))
        values = {
            "paths": starts[has_siblings], "groups": groups, "sizes": counts, "first": counts.cumsum(0) - counts,
            "branches": branch[beginnings], "heads": heads, "beginnings": beginnings,
        }  # fmt: skip
        for name, value in values.items():
            self.register_buffer(name, value, persistent=False)
        self.on_cpu = SimpleNamespace(**{name: value.cpu() for name, value in values.items()})


def trie_levels(codes: Tensor) -> nn.ModuleList:
    """The levels of the trie of ``codes`` ``(n_items, L)``.

    Raises:
        DeshiError: if two items share all their codes.
    """
    levels = nn.ModuleList(TrieLevel(codes[:, : level + 1]) for level in range(codes.shape[1]))
    distinct = len(cast(TrieLevel, levels[-1]).heads)
    if distinct != len(codes):
        raise DeshiError(f"{len(codes)} items have {distinct} semantic IDs, expected as many as items: add a code.")
    return levels


def log_softmax_of_groups(scores: Tensor, level: TrieLevel) -> Tensor:
    """Log-probabilities among siblings: ``(M, B)`` -> ``(M, B)``, each group of rows by itself."""
    shape = (len(level.sizes), scores.shape[1])
    rows = level.groups[:, None].expand_as(scores)
    largest = scores.new_full(shape, -torch.inf).scatter_reduce_(0, rows, scores, "amax")
    shifted = scores - largest[level.groups]
    sums = scores.new_zeros(shape).index_add_(0, level.groups, shifted.exp())
    return shifted - sums.log()[level.groups]


class Siblings:
    """The branches that the targets of a batch are compared with at one level: their own groups' alone.

    Args:
        level: of the trie.
        targets: ``(P,)`` items, on the CPU.
        device: to which the results go.

    Attributes:
        positions: ``(S,)`` the targets whose code has siblings, those of one group together.
        branches: ``(R,)`` branches of all groups that occur.
        columns: ``(S,)`` each target's column in its group.
        shapes: of each group, the numbers of its targets and of its branches.
    """

    def __init__(self, level: TrieLevel, targets: Tensor, device: torch.device | str = "cpu") -> None:
        trie = level.on_cpu
        branches = trie.branches[targets]
        inside = (branches < len(trie.paths)).nonzero()[:, 0]
        groups = trie.groups[branches[inside]]
        order = groups.argsort(stable=True)
        positions = inside[order]
        occurring, counts = groups[order].unique_consecutive(return_counts=True)
        sizes, first = trie.sizes[occurring], trie.first[occurring]
        begin = sizes.cumsum(0) - sizes
        steps = torch.arange(int(sizes.sum())) + (first - begin).repeat_interleave(sizes)
        columns = branches[positions] - first.repeat_interleave(counts)
        self.shapes = list(zip(counts.tolist(), sizes.tolist(), strict=True))
        self.positions, self.branches, self.columns = (
            tensor.to(device, non_blocking=True) for tensor in (positions, steps, columns)
        )


class GroupedCrossEntropy(torch.autograd.Function):
    """The sum of the targets' negative log-probabilities among their siblings, with its gradient in closed form.

    The groups are products of small matrices: all siblings of a beginning against all positions whose target has it.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, states: Tensor, siblings: Siblings) -> Tensor:
        """Of queries ``(S, D)`` and branch states ``(R, D)``, both fp32 and in the order of ``siblings``."""
        total, of_queries, of_states = queries.new_zeros(()), torch.empty_like(queries), torch.empty_like(states)
        row = branch = 0
        for rows, branches in siblings.shapes:
            here, there = slice(row, row + rows), slice(branch, branch + branches)
            log_p = (queries[here] @ states[there].T).log_softmax(1)
            columns = siblings.columns[here, None]
            total -= log_p.gather(1, columns).sum()
            # gradient of the logits: softmax minus the one-hot target
            grad = log_p.exp_().scatter_add_(1, columns, queries.new_full((rows, 1), -1.0))
            torch.mm(grad, states[there], out=of_queries[here])
            torch.mm(grad.T, queries[here], out=of_states[there])
            row, branch = row + rows, branch + branches
        ctx.save_for_backward(of_queries, of_states)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients that the forward pass left."""
        of_queries, of_states = ctx.saved_tensors
        return of_queries * grads[0], of_states * grads[0], None
