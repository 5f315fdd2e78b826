"""Throughput arm: the SASRec network of RecTools' ``fast_transformers`` with full softmax. Run by throughput.py.

That package has the network and its sequences, but a trainer for UniSRec alone: the step here is the plainest one. Its
feed-forward layers are four times as wide as the others', which ``--feed-forward 4`` gives deshi's too.
"""

from __future__ import annotations

import itertools

import torch
from arm import Stopwatch, arguments, histories, report, settings_of
from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences
from torch.nn import functional as F
from torch.utils.data import DataLoader


def main() -> None:
    """Train until the clock is done and report."""
    args = arguments(__doc__, batch=128)
    torch.set_num_threads(args.threads)
    kept = [items[:-2] for items in histories(args.data).values()]  # leave-one-out trains on all but the last two
    codes = {item: code for code, item in enumerate(sorted({item for items in kept for item in items}))}
    rows = [(user, codes[item], place) for user, items in enumerate(kept) for place, item in enumerate(items)]
    inputs, targets, known, _ = build_sequences(*torch.tensor(rows).T, max_len=args.max_length)
    net = FlatSASRecNet(len(known), args.dim, args.blocks, args.heads, args.max_length, args.dropout)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    loader = DataLoader(SequenceBatchDataset(inputs, targets), batch_size=args.batch, shuffle=True)
    clock = Stopwatch(args.warmup_seconds, args.seconds)
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        clock.start()
        logits = net(batch)  # a column for each item 1, 2, ...
        loss = F.cross_entropy(logits.flatten(0, 1), batch["y"].flatten() - 1, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock.stop(int((batch["y"] != 0).sum()))
        if clock.done:
            break
    settings = settings_of(args, precision="fp32", batch_unit="users", feed_forward=4.0)
    report("rectools_fast", clock, settings, net, ["RecTools", "torch"])


if __name__ == "__main__":
    main()
