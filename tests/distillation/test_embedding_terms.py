"""Terms over hidden states and item vectors: hand values, padding, what learns and what doesn't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from deshi.distillation.de import DE
from deshi.distillation.embedding import EmbeddingMatch
from deshi.distillation.soft_label_batches import SoftLabelBatch
from deshi.distillation.term import Context, HiddenTerm
from deshi.testing.terms import DIM, ITEMS, WIDTH, context, lists, prepared, seeded
from deshi.types import PAD, DeshiError

TERMS: dict[str, Callable[[], HiddenTerm]] = {
    f"{loss}-{of}": lambda loss=loss, of=of: EmbeddingMatch(loss, of, top_k=4)
    for loss in ("mse", "cosine", "infonce")
    for of in ("items", "hidden")
} | {"de": DE, "de-one": lambda: DE(experts=1)}
LENGTHS = [8, 1, 3, 2, 5]
HIDDEN = torch.randn(len(LENGTHS), DIM, generator=seeded(1))
TABLE = torch.randn(ITEMS, DIM, generator=seeded(2))


def _aims() -> torch.Tensor:
    vectors = context().item_embeddings
    assert vectors is not None
    centred = vectors - vectors.mean(0)
    return centred / centred.square().mean().sqrt()


@pytest.mark.parametrize("name", TERMS)
def test_teaches_the_student_through_parameters(name: str) -> None:
    """Gradients reach the student and the projection, never the teacher; values are one a position."""
    term = prepared(TERMS[name]())
    hidden, table = HIDDEN.clone().requires_grad_(), TABLE.clone().requires_grad_()
    value = term(hidden, table, lists(LENGTHS, 8))
    assert value.shape == (len(LENGTHS),) and value.isfinite().all() and (value >= 0).all()
    value.sum().backward()
    student = hidden if name.endswith("hidden") else table
    assert student.grad is not None and bool(student.grad.any())
    idle = [n for n, p in term.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert idle == (["select.weight", "select.bias"] if name == "de-one" else []), "one expert leaves no choice"
    assert not term.vectors.requires_grad and "vectors" not in term.state_dict()


@pytest.mark.parametrize("name", TERMS)
def test_padding_changes_nothing(name: str) -> None:
    """SoftLabelLists of a wider store end later, and say the same."""
    signal = lists(LENGTHS, 8)
    wide = SoftLabelBatch(F.pad(signal.items, (0, 3), value=PAD), F.pad(signal.scores, (0, 3)))
    values = [prepared(TERMS[name]())(HIDDEN, TABLE, given) for given in (signal, wide)]
    torch.testing.assert_close(*values)
    table = TABLE.clone().requires_grad_()
    prepared(TERMS[name]())(HIDDEN, table, signal).sum().backward()
    unlisted = sorted(set(range(ITEMS)) - set(signal.items.flatten().tolist()))
    # item 0 stands in for padding where rows are gathered
    assert table.grad is None or "infonce" in name or not table.grad[unlisted].any()


@pytest.mark.parametrize("name", TERMS)
def test_mixed_precision(name: str) -> None:
    """A run in bf16 projects in bf16."""
    term = prepared(TERMS[name]())
    with torch.autocast("cpu", torch.bfloat16):
        assert term(HIDDEN.bfloat16(), TABLE, lists(LENGTHS, 8)).isfinite().all()


def test_mean_square_by_hand() -> None:
    """The mean over a list of the mean over dimensions, of items, and of the hidden state against the list's mean."""
    signal, aims = lists(LENGTHS, 8), _aims()
    of_items, of_hidden = (prepared(EmbeddingMatch("mse", of, top_k=4)) for of in ("items", "hidden"))
    found, states = of_items(HIDDEN, TABLE, signal), of_hidden(HIDDEN, TABLE, signal)
    for row, items in enumerate(signal.items[:, :4].tolist()):
        listed = [item for item in items if item != PAD]
        errors = [(of_items.projection(TABLE[item]) - aims[item]).square().mean() for item in listed]
        torch.testing.assert_close(found[row], torch.stack(errors).mean())
        torch.testing.assert_close(
            states[row], (of_hidden.projection(HIDDEN[row]) - aims[listed].mean(0)).square().mean()
        )


def test_profiles_by_hand() -> None:
    """States against their users' vectors; users without one teach nothing and don't move the others' mean."""
    profiles = torch.randn(4, WIDTH, generator=seeded(5))
    profiles[2] = 0.0
    term, known = EmbeddingMatch("mse", "users"), context()
    with torch.random.fork_rng(devices=[]):
        term.prepare(Context(ITEMS, DIM, known.score_kind, known.k, known.counts, user_embeddings=profiles))
    users = torch.tensor([3, 2, 0, 0, 1])
    found = term(HIDDEN, TABLE, replace(lists(LENGTHS, 8), users=users))
    centred = profiles - profiles[[0, 1, 3]].mean(0)
    aims = centred / centred[[0, 1, 3]].square().mean().sqrt()
    expected = (term.projection(HIDDEN) - aims[users]).square().mean(1)
    expected[1] = 0.0
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert term.projection.weight.grad is not None and bool(term.projection.weight.grad.any())
    with pytest.raises(DeshiError, match="no soft-label store here holds user_embeddings"):
        EmbeddingMatch(of="users").prepare(known)


def test_contrast_by_hand() -> None:
    """Each vector against its own aim among those of its group, and groups cover everything."""
    signal, aims = lists([1] * 5, 1), _aims()
    term = prepared(EmbeddingMatch("infonce", "hidden", temperature=0.5, contrast=3))
    found = term(HIDDEN, TABLE, signal)
    projected = F.normalize(term.projection(HIDDEN), dim=1)
    wanted = F.normalize(aims[signal.items[:, 0]], dim=1)
    for group in ([0, 2, 4], [1, 3]):
        for row in group:
            logits = torch.stack([projected[row] @ wanted[other] / 0.5 for other in group])
            torch.testing.assert_close(found[row], logits.logsumexp(0) - logits[group.index(row)])


def test_one_expert_by_hand() -> None:
    """One expert is a network of two layers; several are chosen by weights that sum to one."""
    term = prepared(DE(experts=1))
    signal = lists([1] * 4, 1)
    items = signal.items[:, 0]
    expected = (term.outside(torch.relu(term.inside(TABLE[items]))) + term.bias - _aims()[items]).square().mean(1)
    torch.testing.assert_close(term(HIDDEN[:4], TABLE, signal), expected)
    many = prepared(DE(experts=5))
    torch.testing.assert_close(many._selection(_aims()).sum(1), torch.ones(ITEMS))


def test_experts_noise_follows_its_seed() -> None:
    """Noise from the global generator would make a resumed run another one."""
    term, signal = prepared(DE()), lists(LENGTHS, 8)
    values: list[torch.Tensor] = []
    for seed in ([1], [1], [2]):
        term.random.reseed(seed)
        torch.manual_seed(len(values))
        values.append(term(HIDDEN, TABLE, signal))
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


@pytest.mark.parametrize("name", ["mse-items", "de"])
def test_fitting_works(name: str) -> None:
    """Trained alone, the term brings the student's rows to the teacher's vectors: the gradient has the right sign."""
    term = prepared(TERMS[name]())
    table = torch.nn.Parameter(TABLE.clone())
    optimizer = torch.optim.Adam([table, *term.parameters()], lr=0.05)
    signal = lists([8] * 8, 8)
    values: list[torch.Tensor] = []
    for _ in range(60):
        value = term(HIDDEN[:1].expand(8, -1), table, signal).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.2 * values[0]


@pytest.mark.parametrize("term", [EmbeddingMatch, DE])
def test_vectors_are_needed(term: type) -> None:
    """Without vectors there is nothing to learn: said before training, with what to do."""
    known = context()
    with pytest.raises(DeshiError, match="holds item_embeddings"):
        term().prepare(Context(known.n_items, DIM, known.score_kind, known.k, known.counts))
    with pytest.raises(DeshiError, match="top_k=0"):
        term(top_k=0)
    assert prepared(term()).vectors.shape == (ITEMS, WIDTH)
