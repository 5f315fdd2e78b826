"""Encoders and the embedding of a catalogue: pooling, padding, cache, resumption; the real MiniLM and SmolLM2."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tiny_models import write_tiny_bert, write_tiny_llama

from deshi.configuration.needs import needs_of
from deshi.configuration.targets import build, complete
from deshi.teachers import _embedding as embedding
from deshi.teachers._embedding import embed, length_batches
from deshi.teachers._item_text import FALLBACK
from deshi.teachers.encoders import (
    CausalEncoder,
    NeuralEncoder,
    SentenceEncoder,
    WordEncoder,
    _unspaced,
    last_real,
    mean_of_real,
)
from deshi.teachers.llm import LLM
from deshi.types import DeshiError
from tiny_bundles import tiny_bundle

CPU = torch.device("cpu")
TEXTS = ["star wars", "heat", "the film of the robot war", "star trek", "heat", "toy story"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models: ``bert`` and ``llama``."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_bert(folder / "bert")
    write_tiny_llama(folder / "llama")
    return folder


def encoders(folder: Path) -> list[NeuralEncoder]:
    """Every kind of encoder on the tiny models."""
    bert, llama = str(folder / "bert"), LLM(str(folder / "llama"), dtype="fp32")
    return [
        SentenceEncoder(bert),
        SentenceEncoder(bert, pooling="cls", normalize=False),
        CausalEncoder(llama),
        CausalEncoder(llama, pooling="last"),
    ]


@pytest.fixture(params=range(4), ids=["mean", "cls", "causal-mean", "causal-last"])
def encoder(request: pytest.FixtureRequest, folder: Path) -> NeuralEncoder:
    """Each kind of encoder in turn."""
    return encoders(folder)[request.param]


def test_pooling_by_hand() -> None:
    """Padding counts for nothing, in the mean and in the last."""
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 6.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert mean_of_real(states, mask).tolist() == [[2.0, 3.0], [5.0, 6.0]]
    assert last_real(states, mask).tolist() == [[3.0, 4.0], [5.0, 6.0]]


def test_vectors_do_not_depend_on_the_company(encoder: NeuralEncoder, tmp_path: Path) -> None:
    """Batching and padding must not reach a vector; order is the texts' own; equal texts are equal."""
    together = embed(TEXTS, encoder, tmp_path)
    assert together.dtype == torch.float32 and together.shape[0] == len(TEXTS)
    for place, text in enumerate(TEXTS):
        torch.testing.assert_close(embed([text], encoder, tmp_path)[0], together[place], atol=1e-5, rtol=1e-4)
    assert torch.equal(together[1], together[4]) and not torch.allclose(together[0], together[3])


def test_mean_pooling_is_that_of_the_model(folder: Path, tmp_path: Path) -> None:
    """Checked against transformers used directly: the mean of the last states, scaled to length one."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder / "bert").eval()
    tokens = AutoTokenizer.from_pretrained(folder / "bert")("star wars", return_tensors="pt")
    with torch.no_grad():
        mean = model(tokens.input_ids).last_hidden_state[0].mean(dim=0)
    got = embed(["star wars"], SentenceEncoder(str(folder / "bert")), tmp_path)[0]
    torch.testing.assert_close(got, mean / mean.norm())


def test_the_cache_serves_without_loading(
    encoder: NeuralEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call needs neither model nor time, and gives the same bits."""
    first = embed(TEXTS, encoder, tmp_path)
    monkeypatch.setattr(type(encoder), "load", lambda *arguments: pytest.fail("loaded again"))
    assert torch.equal(embed(TEXTS, encoder, tmp_path), first)
    files = [path for path in (tmp_path / "embeddings").iterdir() if not path.name.startswith(".")]
    assert [path.suffix for path in files] == [".safetensors"]


def test_the_machine_does_not_choose_the_format_of_the_vectors() -> None:
    """``auto`` times two formats: a teacher over whitened vectors came out differently on another processor."""
    assert CausalEncoder().llm.dtype == "fp32"


def test_whatever_decides_the_vectors_is_in_the_key(folder: Path, tmp_path: Path) -> None:
    """A cache that overlooked an option, the order of the texts or other weights would serve wrong vectors."""
    nodes = encoders(folder)
    bert, llama = SentenceEncoder(str(folder / "bert")), LLM(str(folder / "llama"), dtype="fp32")
    nodes += [replace(bert, normalize=False), replace(bert, max_tokens=3), replace(bert, dtype="bf16")]
    nodes += [CausalEncoder(other) for other in (replace(llama, layers=1), replace(llama, random=True, seed=5))]
    results = [embed(TEXTS, node, tmp_path) for node in nodes]
    results.append(embed(TEXTS[::-1], bert, tmp_path))
    write_tiny_llama(tmp_path / "other", layers=2)
    results.append(embed(TEXTS, CausalEncoder(replace(llama, name=str(tmp_path / "other"))), tmp_path))
    for place, one in enumerate(results):
        assert not any(one.shape == other.shape and torch.allclose(one, other) for other in results[:place])
    torch.testing.assert_close(results[-2], results[0].flip(0))
    assert bert.identity(tmp_path, CPU) == replace(bert, batch_tokens=7).identity(tmp_path, CPU)


def test_a_killed_embedding_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Finished shards are not computed again, and the result is that of a call that nobody killed."""
    monkeypatch.setattr(embedding, "SHARD", 2)
    node = CausalEncoder(LLM(str(folder / "llama"), dtype="fp32"))
    whole = embed(TEXTS, node, tmp_path / "whole")
    real, calls = embedding.encode, []

    def killed(texts: list[str], *arguments: Any) -> Any:
        calls.append(list(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(texts, *arguments)

    monkeypatch.setattr(embedding, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        embed(TEXTS, node, tmp_path)
    assert list(tmp_path.glob("embeddings/*.safetensors")) == []
    with caplog.at_level(logging.INFO, "deshi"):
        resumed = embed(TEXTS, node, tmp_path)
    assert torch.equal(resumed, whole)
    assert len(calls) == 4 and calls[0] not in calls[1:] and calls[1] == calls[2]
    assert "embedded 5 of 5 distinct texts" in caplog.text and "tokens/s" in caplog.text
    assert list(tmp_path.glob("embeddings/*.shards")) == []


def test_a_damaged_cache_is_computed_anew(folder: Path, tmp_path: Path) -> None:
    """A disk's error costs time, not the result."""
    node = SentenceEncoder(str(folder / "bert"))
    first = embed(TEXTS, node, tmp_path)
    (path,) = tmp_path.glob("embeddings/*.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    assert torch.equal(embed(TEXTS, node, tmp_path), first)


def test_long_texts_are_cut(folder: Path, tmp_path: Path) -> None:
    """``max_tokens`` counts: what comes after is not seen, what comes before is."""
    node = SentenceEncoder(str(folder / "bert"), max_tokens=3)
    vectors = embed(["star wars heat crime", "star wars heat love", "star wars"], node, tmp_path)
    torch.testing.assert_close(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2])


def test_batches_are_full_and_sorted() -> None:
    """Padding is waste: similar lengths go together, within the budget; one long row goes alone, and none is lost."""
    batches = list(length_batches([1, 9, 2, 30, 2, 8, 1], 18))
    assert batches == [[3], [1, 5], [2, 4, 0, 6]]
    assert list(length_batches([], 10)) == []


def test_overflow_and_emptiness_are_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in a table of embeddings spoils everything after it."""
    node = SentenceEncoder(str(folder / "bert"))
    with pytest.raises(DeshiError, match="no texts"):
        embed([], node, tmp_path)
    monkeypatch.setattr("deshi.teachers.encoders.mean_of_real", lambda states, mask: states[:, 0] * torch.inf)
    with pytest.raises(DeshiError, match="not finite"):
        embed(TEXTS, node, tmp_path)
    assert list(tmp_path.glob("embeddings/*.safetensors")) == []


def test_items_by_node(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Template, encoder, transform and ablation by configuration: one row per item in index order."""
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(5)], "title": ["heat", "star wars", None, "toy", "crime"]})
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3, 4]], items=items)
    encoder = {"_target_": "deshi.teachers.encoders.SentenceEncoder", "name": str(folder / "bert")}
    node = {"_target_": "deshi.teachers.item_embeddings.ItemEmbeddings", "encoder": encoder}
    plain = build(node)(bundle, tmp_path)
    texts = ["heat", "star wars", FALLBACK, "toy", "crime"]
    assert torch.equal(plain, embed(texts, build(encoder), tmp_path)) and plain.shape == (5, 12)
    white = build(node | {"transform": "whiten", "dim": 3})(bundle, tmp_path)
    torch.testing.assert_close(white.T @ white / 5, torch.eye(3), atol=1e-4, rtol=0)
    dealt = build(node | {"permute": 1})(bundle, tmp_path)
    order = torch.cdist(dealt, plain).argmin(dim=1)
    assert torch.equal(dealt, plain[order]) and sorted(order.tolist()) == list(range(5)) != order.tolist()
    with caplog.at_level(logging.WARNING, "deshi"):
        assert build(node | {"transform": "pca", "dim": 8})(bundle, tmp_path).shape == (5, 8)
    assert "4 of 8 columns are zero" in caplog.text
    with pytest.raises(DeshiError, match="transform is none"):
        build(node | {"dim": 3})(bundle, tmp_path)


def test_templates_apart(folder: Path, tmp_path: Path) -> None:
    """Fields of their own: the vectors side by side, nothing in the place of a missing field, then the transform."""
    columns = {"title": ["heat", "star wars", "toy", "heat"], "kind": ["crime", None, "robot", "crime"]}
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(4)], **columns})
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3]], items=items)
    encoder = {"_target_": "deshi.teachers.encoders.SentenceEncoder", "name": str(folder / "bert")}
    node = {"_target_": "deshi.teachers.item_embeddings.ItemEmbeddings", "encoder": encoder}
    both = build(node | {"template": ["{title}", "film of {kind}"]})
    assert both.cached(bundle, tmp_path) is None
    vectors = both(bundle, tmp_path)
    assert torch.equal(vectors[:, :12], build(node)(bundle, tmp_path)) and torch.equal(
        both.cached(bundle, tmp_path), vectors
    )
    kinds = build(node | {"template": "film of {kind}"})(bundle, tmp_path)
    assert torch.equal(vectors[[0, 2, 3], 12:], kinds[[0, 2, 3]]) and not vectors[1, 12:].any() and kinds[1].any()
    assert build(node | {"template": ["{title}", "{kind}"], "transform": "whiten", "dim": 2})(
        bundle, tmp_path
    ).shape == (4, 2)
    with pytest.raises(DeshiError, match="empty list"):
        build(node | {"template": []})(bundle, tmp_path)


def test_words_alone(tmp_path: Path) -> None:
    """Texts with common terms are near each other, whatever their order; one without any has a vector of zeros."""
    texts = ["red nail polish", "blue nail polish", "argan oil shampoo", "shampoo with argan oil", "unrelated", "toy"]
    vectors = embed([*texts, texts[0]], WordEncoder(dim=4), tmp_path)
    assert vectors.shape == (7, 4) and torch.equal(vectors[0], vectors[6]) and not vectors[4:6].any()
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.9 and cosines[2, 3] > 0.9 and cosines[:2, 2:4].abs().max() < 0.1
    again = embed([*texts, texts[0]], WordEncoder(dim=4), tmp_path / "other")
    torch.testing.assert_close(again @ again.T, cosines)
    assert embed(texts, WordEncoder(dim=100), tmp_path).shape == (6, 5)  # as many columns as there can be
    assert embed(["toy car", "toy bus"], WordEncoder(), tmp_path).tolist() == [[1.0], [1.0]]  # one common term


def test_words_of_languages_without_spaces(tmp_path: Path) -> None:
    """A title without spaces is one word; parts of it are common. Nor need titles of one word each share any."""
    texts = ["宇宙戦争", "宇宙戦艦", "料理教室"]
    vectors = embed(texts, WordEncoder(), tmp_path)
    assert vectors[0] @ vectors[1] > 0.9 and not vectors[2].any()
    torch.testing.assert_close(vectors, embed(texts, WordEncoder(analyzer="char_wb"), tmp_path))
    single = embed(["toys", "toy", "heat"], WordEncoder(), tmp_path)
    assert single[0] @ single[1] > 0.9 and not single[2].any()
    for encoder, titles in ((WordEncoder(analyzer="word"), texts), (WordEncoder(), ["a", "b"])):
        with pytest.raises(DeshiError, match=r"different texts.*no term in common"):
            embed(titles, encoder, tmp_path)
    with pytest.raises(DeshiError, match="dim=0"):
        embed(texts, WordEncoder(dim=0), tmp_path)


def test_the_script_of_most_texts_decides() -> None:
    """One Japanese title among English ones doesn't cut their words into pieces."""
    assert not _unspaced(["star wars", "star trek", "the wrath of khan", "宇宙"])
    assert _unspaced(["DVD 宇宙戦争", "ドラえもん", "star wars"]) and not _unspaced(["별들의 전쟁", ""])


def test_words_as_an_items_node(tmp_path: Path) -> None:
    """By configuration, with templates, cache and record, and nothing to fetch."""
    items = pl.DataFrame({"item_id": ["i0", "i1", "i2"], "title": ["toy car", "toy bus", "big car"]})
    bundle = tiny_bundle(tmp_path, [[0, 1, 2]], items=items)
    encoder = {"_target_": "deshi.teachers.encoders.WordEncoder", "dim": 2}
    node = build({"_target_": "deshi.teachers.item_embeddings.ItemEmbeddings", "encoder": encoder})
    assert node.cached(bundle, tmp_path) is None
    vectors = node(bundle, tmp_path)
    assert torch.equal(node.cached(bundle, tmp_path), vectors) and vectors.shape == (3, 1)
    assert node.describe(tmp_path) == {"name": "words", "dim": 2, "analyzer": "auto", "origin": "the texts"}


def test_encoders_side_by_side(folder: Path, tmp_path: Path) -> None:
    """Several encoders weigh the same, whatever their vectors' lengths and means; needs and defaults are all theirs."""
    titles = ["star wars", "star trek", "trek of wars", "star heat"]
    bundle = tiny_bundle(
        tmp_path, [[0, 1, 2, 3]], items=pl.DataFrame({"item_id": [f"i{n}" for n in range(4)], "title": titles})
    )
    bert = {"_target_": "deshi.teachers.encoders.SentenceEncoder", "name": str(folder / "bert"), "normalize": False}
    words = {"_target_": "deshi.teachers.encoders.WordEncoder", "dim": 2}
    node = {"_target_": "deshi.teachers.item_embeddings.ItemEmbeddings", "encoder": [bert, words]}
    both = build(node)
    assert both.cached(bundle, tmp_path) is None
    vectors = both(bundle, tmp_path)
    assert torch.equal(both.cached(bundle, tmp_path), vectors) and vectors.shape == (4, 14)
    assert vectors.mean(dim=0).abs().max() < 1e-6
    for side in (vectors[:, :12], vectors[:, 12:]):
        assert side.pow(2).sum(dim=1).mean().item() == pytest.approx(1.0)
    alone = build(node | {"encoder": bert})(bundle, tmp_path)
    centred = alone - alone.mean(dim=0)
    torch.testing.assert_close(vectors[:, :12] / vectors[0, 0], centred / centred[0, 0])
    assert [about["name"] for about in both.describe(tmp_path)["encoders"]] == [str(folder / "bert"), "words"]
    assert complete(node)["encoder"][1]["analyzer"] == "auto"
    assert any("transformers" in need.state(tmp_path) for need in needs_of(node))
    with pytest.raises(DeshiError, match="empty list"):
        build(node | {"encoder": []})(bundle, tmp_path)


SHELVES = [
    ["OPI Nail Lacquer, Red", "Essie Nail Polish, Mint Blue", "Nail Art Brush Set for Manicure"],
    ["Moisturizing Shampoo for Dry Hair", "Argan Oil Hair Conditioner", "Hair Mask for Damaged Hair"],
    ["Star Wars: Return of the Jedi", "Star Trek: The Wrath of Khan", "Alien (1979)"],
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sentence", "mpnet", "causal"])
def test_similar_titles_are_closer(kind: str, model_cache: Path) -> None:
    """Right tokens, weights and pooling: things of one shelf are nearer to each other than to those of any other."""
    mpnet = SentenceEncoder("sentence-transformers/all-mpnet-base-v2", dtype="bf16")
    node = {"sentence": SentenceEncoder(), "mpnet": mpnet, "causal": CausalEncoder(LLM(dtype="fp32"))}[kind]
    vectors = embed([title for shelf in SHELVES for title in shelf], node, model_cache)
    vectors = vectors - vectors.mean(dim=0)  # a causal LM's vectors lie in a narrow cone
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    blocks = cosine.reshape(3, 3, 3, 3).permute(0, 2, 1, 3)
    own = (blocks.diagonal(dim1=0, dim2=1).sum(dim=(0, 1)) - 3) / 6  # without each title's cosine to itself
    others = blocks.mean(dim=(2, 3)).fill_diagonal_(-1).amax(dim=1)
    assert (own > others + 0.1).all(), (own, others)


def test_bf16_is_fp32_rounded(folder: Path, tmp_path: Path) -> None:
    """The faster format must be the same model: within the eight bits that it keeps, and pooled in fp32."""
    fp32 = SentenceEncoder(str(folder / "bert"))
    exact, rounded = (embed(TEXTS, encoder, tmp_path) for encoder in (fp32, replace(fp32, dtype="bf16")))
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0)
    torch.testing.assert_close(rounded.norm(dim=1), torch.ones(len(TEXTS)))


@pytest.mark.slow
def test_minilm_gives_its_published_vectors(model_cache: Path) -> None:
    """The model card's two sentences, with the cosines that sentence-transformers gives for such pairs."""
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    vectors = embed(texts, SentenceEncoder(), model_cache)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(vectors[0] @ vectors[1:].T, torch.tensor([0.695, 0.943, 0.257]), atol=2e-3, rtol=0)
