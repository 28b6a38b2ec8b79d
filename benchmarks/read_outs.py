"""Read-outs against one plain forward pass, and one read-out against sentence-transformers.

    python benchmarks/read_outs.py [--quick] [--out FILE] [--threads N]

How pairs are measured: side_by_side.py. Memory is measured in a fresh process a side. Exit code 1:
a bound is missed.
"""

import argparse
import sys
from collections.abc import Iterator

import numpy as np
from side_by_side import Ratio, in_child, interleaved, main, peak_above, ratio

MEMORY_REPEATS = 3
TIMED = {"minilm-l6": 300, "smollm2-135m": 40}  # texts
ALL, ENCODE, MEMORY = 1.25, 1.0, 1.2  # the bounds


def mixed_texts(n: int, *, median: int = 25, seed: int = 0) -> list[str]:
    """``n`` pieces of shipped texts whose number of words is log-normal, 3 to 250 words."""
    from lab import data

    rng = np.random.default_rng(seed)
    sets = [data.load(name) for name in ("manpages", "debian-synopsis")]
    long = [
        words
        for each in sets
        for row in each.documents
        if len(words := each.texts[row].split()) >= 100
    ]
    texts = []
    for size in np.exp(rng.normal(np.log(median), 0.9, n)).clip(3, 250).astype(int):
        words = long[rng.integers(len(long))]
        start = rng.integers(max(1, len(words) - size))
        texts.append(" ".join(words[start : start + size]))
    return texts


# --- the sides ---------------------------------------------------------------------------------


def all_read_outs(model, texts: list[str]) -> None:  # noqa: ANN001
    """Every layer and every pooling; pays for tokens, batches, pooling, checks and the file."""
    from lab.readout import read_out

    read_out(model, texts, progress=False)


def one_read_out(model, texts: list[str]) -> None:  # noqa: ANN001
    """The mean of the last layer."""
    from lab.readout import read_out

    read_out(model, texts, layers=[-1], poolings=["mean"], progress=False)


def plain_forward(model, texts: list[str]) -> None:  # noqa: ANN001
    """Transformers alone over the batches that ``read_out`` makes: same rows, same padding."""
    import torch

    from lab.readout import batches_by_tokens

    encoder = model.encoder
    tokens = encoder.tokenise(texts)
    cache = {} if encoder.model.config.model_type == "bert" else {"use_cache": False}
    with torch.inference_mode():
        for rows in batches_by_tokens([len(text.ids) for text in tokens], 2048):
            batch = encoder.collate([tokens[row] for row in rows])
            encoder.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **cache
            )


def encode(model, texts: list[str]) -> None:  # noqa: ANN001
    """``encode`` of a model, stock or ours, batch size 32."""
    model.encode(texts, show_progress_bar=False)


def stock(name: str):  # noqa: ANN201
    """The same checkpoint in plain sentence-transformers, pooled by the mean."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from lab.models.checkpoints import CHECKPOINTS

    transformer = Transformer(str(CHECKPOINTS[name].folder()))
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    return SentenceTransformer(modules=[transformer, pooling], device="cpu")


# --- time --------------------------------------------------------------------------------------


def times(name: str, n: int, repeats: int) -> list[Ratio]:
    """All time ratios of one checkpoint."""
    from lab import models

    model, texts = models.load(name, pooling="mean", device="cpu"), mixed_texts(n)
    base = stock(name)
    cases = [
        ("all read-outs / plain forward", all_read_outs, model, plain_forward, model, ALL),
        ("one read-out / stock encode", one_read_out, model, encode, base, ENCODE),
        ("model.encode / stock encode", encode, model, encode, base, None),
    ]
    found = []
    for case, ours, our_model, theirs, their_model, bound in cases:
        pairs = interleaved(
            lambda f=ours, m=our_model: f(m, texts),
            lambda f=theirs, m=their_model: f(m, texts),
            repeats,
        )
        found += [
            ratio(
                case, name, f"{quantity} s", pairs[quantity], bound if quantity == "cpu" else None
            )
            for quantity in pairs
        ]
    return found


# --- memory ------------------------------------------------------------------------------------


def child(side: str, name: str, n: str, median: str) -> float:
    """Peak resident memory of one side above what the loaded model holds.

    Each side has done one short text before (lazy imports, token frequencies), and the weights
    have been read from their mapped file.
    """
    from lab import models

    model = models.load(name, device="cpu")
    texts = mixed_texts(int(n), median=int(median))
    run = {"all": all_read_outs, "plain": plain_forward}[side]
    run(model, ["A text."])
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return peak_above(lambda: run(model, texts))


def peak_of(side: str, name: str, n: int, median: int) -> float:
    """MB that one side needs above the loaded model, measured in a fresh process."""
    return in_child(__file__, side, name, str(n), str(median))


def memories(name: str, n: int, repeats: int) -> list[Ratio]:
    """Peak memory of all read-outs against the plain forward, on mixed and on short texts."""
    found = []
    for what, median in (("mixed", 25), ("short", 4)):
        pairs = [
            (peak_of("all", name, n, median), peak_of("plain", name, n, median))
            for _ in range(repeats)
        ]
        found.append(
            ratio(f"all read-outs / plain forward, {what} texts", name, "peak MB", pairs, MEMORY)
        )
    return found


def growth(name: str, repeats: int) -> Ratio:
    """Peak memory of all read-outs of 8000 short texts against 2000."""
    pairs = [(peak_of("all", name, 8000, 4), peak_of("all", name, 2000, 4)) for _ in range(repeats)]
    return ratio("all read-outs, 8000 / 2000 short texts", name, "peak MB", pairs, MEMORY)


def measure(options: argparse.Namespace) -> Iterator[Ratio]:
    """All ratios, as they come."""
    repeats, memory_repeats = (3, 1) if options.quick else (5, MEMORY_REPEATS)
    for name, n in list(TIMED.items())[: 1 if options.quick else None]:
        yield from times(name, n, repeats)
        yield from memories(name, n, memory_repeats)
    yield growth("minilm-l6", memory_repeats)


if __name__ == "__main__":
    sys.exit(main(__doc__, measure, child, {"quick": "minilm-l6 only, fewer repeats"}))
