"""The filter rate of attention maps against dense singular values; the analysis of a model.

    python benchmarks/filter_rate.py [--quick] [--out FILE] [--threads N]

How pairs are measured: side_by_side.py. Maps are MiniLM's own at 512 tokens, all layers and heads,
and those of Gaussian logits, whose spectrum has no gap when they are flat. ``--quick`` analyses 20
texts in place of 200. Exit code 1: a bound is missed.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from side_by_side import Ratio, in_child, interleaved, main, peak_above, ratio

TOKENS = 512
RATE, ERROR, SECONDS, GROWTH, HELD = 0.1, 1e-3, 120.0, 1.2, 0.1  # the bounds
TEXTS, QUICK, FEW, MANY = 200, 20, 8, 40
REPEATS = 3


@cache
def model() -> Any:
    """MiniLM at the length of its position table."""
    from lab import models

    return models.load("minilm-l6", max_length=TOKENS)


def texts(count: int) -> list[str]:
    """Running text, each piece longer than the model."""
    from lab import data

    words = " ".join(data.load("wordnet-definitions", "dev").texts).split()
    starts = [place * 431 % (len(words) - TOKENS) for place in range(count)]
    return [" ".join(words[start : start + TOKENS]) for start in starts]


def own_maps() -> torch.Tensor:
    """All maps (layer x head, n, n) of one text, which is what nothing else here keeps."""
    from lab.models.attention_maps import read_maps

    encoder, kept = model().encoder, []
    features = encoder.collate(encoder.tokenise(texts(1)))
    read_maps(model(), features, lambda layer, maps, values: kept.append(maps[0]))
    return torch.cat(kept)


def gaussian(spread: float) -> torch.Tensor:
    """24 maps of iid Gaussian logits."""
    drawn = torch.randn(24, TOKENS, TOKENS, generator=torch.Generator().manual_seed(0))
    return torch.softmax(spread * drawn, -1)


def ours(maps: torch.Tensor) -> torch.Tensor:
    """The filter rate of every map."""
    from lab.collapse.filter_rate import filter_rate

    return filter_rate(maps)


def dense(maps: torch.Tensor) -> torch.Tensor:
    """The same from all singular values of the centred maps."""
    return torch.linalg.svdvals(maps - maps.mean(-2, keepdim=True))[:, 0]


def analysis(count: int) -> None:
    """Every layer and head of a model on texts of 512 tokens."""
    from lab.collapse.mechanism import measure

    measure(model(), texts(count), progress=False)


def child(what: str, count: str) -> float:
    """MB that the analysis of some texts needs at its peak, above the loaded model."""
    analysis(2)  # lazy imports, wrapped backends
    return peak_above(lambda: analysis(int(count)))


def of_maps(threads: int) -> Iterator[Ratio]:
    """Speed and accuracy on one thread and on all."""
    cases = [("MiniLM", own_maps(), RATE)]
    cases += [(f"Gaussian {s}", gaussian(s), None) for s in (2.0, 1.0, 0.5)]
    for name, maps, bound in cases:
        expected = dense(maps)
        error = float(((ours(maps) - expected) / expected).abs().max())
        yield ratio("largest relative error / 1e-3", name, "", [(error, ERROR)], 1.0)
        for used in sorted({1, threads}):
            torch.set_num_threads(used)
            pairs = interleaved(lambda m=maps: ours(m), lambda m=maps: dense(m), REPEATS)
            for quantity in pairs:
                yield ratio(f"filter rate / svdvals, n = {TOKENS}, {used} thread(s)", name,
                            f"{quantity} s", pairs[quantity],
                            bound if quantity == "cpu" else None)  # fmt: skip


def of_a_model(count: int) -> Iterator[Ratio]:
    """Time and memory of the analysis of MiniLM."""
    analysis(2)
    start = time.perf_counter()
    analysis(count)
    seconds = time.perf_counter() - start
    yield ratio(f"analysis of {count} texts / {SECONDS:.0f} s", "MiniLM", "wall s",
                [(seconds, SECONDS * count / TEXTS)], 1.0)  # fmt: skip
    few, many = (in_child(__file__, "peak", str(number)) for number in (FEW, MANY))
    yield ratio(f"peak memory, {MANY} texts / {FEW}", "MiniLM", "MB", [(many, few)], GROWTH)
    maps = model().encoder.model.config.num_hidden_layers * 12 * TOKENS**2 * 4 * MANY / 1e6
    yield ratio(f"peak memory / all maps of {MANY} texts", "MiniLM", "MB", [(many, maps)], HELD)


def measure(options: argparse.Namespace) -> Iterator[Ratio]:
    """All ratios, as they come."""
    yield from of_maps(options.threads)
    torch.set_num_threads(options.threads)
    yield from of_a_model(QUICK if options.quick else TEXTS)


if __name__ == "__main__":
    sys.exit(main(__doc__, measure, child, {"quick": "20 texts in place of 200"}))
