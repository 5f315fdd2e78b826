"""Files as DLLM2Rec, BIGRec, LLaRA and iLoRA have them, written from a bundle; item numbers are its item indices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.types import TITLE

WINDOW = 10


def sequences(bundle: Bundle, rows: np.ndarray) -> pl.DataFrame:
    """``seq`` (padded on the right with the number of items), ``len_seq`` and ``next`` of rows with a next event."""
    starts = np.repeat(bundle.offsets[:-1], np.diff(bundle.offsets))
    histories = [bundle.items[max(starts[row], row - WINDOW + 1) : row + 1].tolist() for row in rows]
    return pl.DataFrame(
        {
            "seq": [history + [bundle.n_items] * (WINDOW - len(history)) for history in histories],
            "len_seq": [len(history) for history in histories],
            "next": bundle.items[rows + 1].astype(np.int64),
        }
    )


def write_dllm2rec(
    folder: Path, bundle: Bundle, rows: np.ndarray, items: np.ndarray, scores: np.ndarray, vectors: Tensor | None = None
) -> tuple[Path, Path]:
    """``data`` and ``tocf`` in a folder; the distances are the negative scores."""
    data, tocf = folder / "data", folder / "tocf"
    for path in (data, tocf):
        path.mkdir(parents=True, exist_ok=True)
    sequences(bundle, rows).write_parquet(data / "train_data.parquet")
    pl.DataFrame({"seq_size": [WINDOW], "item_num": [bundle.n_items]}).write_parquet(data / "data_statis.parquet")
    np.savetxt(tocf / "myrank_train.txt", items, fmt="%d")
    np.savetxt(tocf / "confidence_train.txt", -np.asarray(scores, dtype=np.float32), fmt="%.9g")
    if vectors is not None:
        torch.save(vectors, tocf / "all_embeddings.pt")
    return data, tocf


def write_bigrec(
    folder: Path, bundle: Bundle, rows: np.ndarray, items: np.ndarray, vectors: Tensor | None = None
) -> tuple[Path, Path]:
    """The examples and ``id2name.txt``; the items' titles are what was generated."""
    titles = bundle.item_table()[TITLE].to_list()
    examples = [
        {
            "input": "The user has used the following items before:"
            + ", ".join(f'"{titles[item]}"' for item in history[:length])
            + "\n ",
            "output": f'"{titles[following]}"',
            "predict": [f'"{titles[item]}"' for item in listed],
        }
        for (history, length, following), listed in zip(sequences(bundle, rows).iter_rows(), items, strict=True)
    ]
    (folder / "train.json").write_text(json.dumps(examples))
    names = "".join(f"{title}\t{number}\n" for number, title in enumerate(titles))
    (folder / "id2name.txt").write_text(names, encoding="utf-8")
    if vectors is not None:
        torch.save(vectors, folder / "item_embedding.pt")
    return folder / "train.json", folder / "id2name.txt"


def write_llara(folder: Path, bundle: Bundle, rows: np.ndarray) -> tuple[Path, Path]:
    """The frame and ``id2name.txt``."""
    sequences(bundle, rows).write_parquet(folder / "Test_data.parquet")
    titles = bundle.item_table()[TITLE].to_list()
    names = "".join(f"{number}::{title}\n" for number, title in enumerate(titles))
    (folder / "id2name.txt").write_text(names, encoding="utf-8")
    return folder / "Test_data.parquet", folder / "id2name.txt"


def write_answers(path: Path, bundle: Bundle, rows: np.ndarray, answers: np.ndarray, candidates: np.ndarray) -> Path:
    """LLaRA's ``test.csv``: the answered item, the true next item and the candidates, by their titles."""
    titles = np.array(bundle.item_table()[TITLE].to_list(), dtype=object)
    pl.DataFrame(
        {
            "generate": titles[answers].tolist(),
            "real": titles[bundle.items[rows + 1]].tolist(),
            "cans": [str(titles[row].tolist()) for row in candidates],
        }
    ).write_csv(path)
    return path
