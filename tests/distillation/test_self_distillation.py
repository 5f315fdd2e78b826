"""Born-again students: a store written by a student teaches another of the same kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from deshi.distillation.listwise import ListwiseKL
from deshi.distillation.objective import Distillation
from deshi.distillation.soft_label_batches import SoftLabelLists
from deshi.losses.softmax import Softmax
from deshi.soft_labels import Histories, Labeller, SoftLabels, write_soft_labels
from deshi.types import PAD, Batch
from hashed_scorer import META, sasrec, shop


def test_a_student_learns_from_its_like(tmp_path: Path) -> None:
    """No term is made for self-distillation: store and listwise term must carry it from one student to the next."""
    bundle = shop(tmp_path / "shop", users=8, items=20, longest=10)
    teacher, student = sasrec(20, 10, seed=1), sasrec(20, 10, seed=2).network
    rows = np.arange(len(bundle.items))
    write_soft_labels(
        Labeller(teacher, Histories.of(bundle), 20, filter_seen=False),
        rows,
        tmp_path / "store",
        teacher=META,
        positions="all",
    )
    store = SoftLabels.load(tmp_path / "store", bundle)
    loss = Distillation(Softmax(), {"kl": ListwiseKL()}, SoftLabelLists(len(rows), [store]), hard_loss_weight=0.0)
    batch = whole_histories(bundle.items, bundle.offsets)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        total, logs = loss(student, batch)
        total.backward()
        optimizer.step()
        values.append(logs["kl"])
    assert values[-1] < 0.05 * values[0]
    told = teacher.network.next_scores(batch.items, batch.lengths).argmax(1)
    learnt = student.next_scores(batch.items, batch.lengths).argmax(1)
    assert (told == learnt).float().mean() > 0.8


def whole_histories(items: np.ndarray, offsets: np.ndarray) -> Batch:
    """One batch of all histories, with rows and without targets."""
    lengths = np.diff(offsets)
    table, rows = (np.full((len(lengths), lengths.max()), PAD, dtype=np.int64) for _ in range(2))
    for user, (begin, length) in enumerate(zip(offsets[:-1], lengths, strict=True)):
        table[user, :length], rows[user, :length] = items[begin : begin + length], np.arange(begin, begin + length)
    tensors = (np.arange(len(lengths)), table, lengths.astype(np.int64), np.full_like(table, PAD), rows)
    return Batch(*(torch.from_numpy(one) for one in tensors))
