"""The spaces of a model: one pass over all texts, then measured, repaired and scored at will.

A *space* is what one (layer, pooling) makes of a list of texts. The texts of all data sets and
those that repairs are fitted on go through the model together, each once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lab import anisotropy, readout, results
from lab.anisotropy.stream import GROUPS
from lab.data import Dataset
from lab.grid import Cell
from lab.models import EmbeddingModel, settings
from lab.models.texts import check_texts
from lab.pooling import POOLINGS, needs_frequency
from lab.probes import PROBES
from lab.repairs import Repair


@dataclass(frozen=True)
class Space:
    """The embeddings of some texts under one design.

    Attributes:
        settings: columns of the tidy table that say which design.
        texts: what was embedded, each text once.
        embeddings: (texts, dim).
        cut: (texts,) tokens that each text lost at the model's length.
        last: the number of the model's last layer.
    """

    settings: Mapping[str, Any]
    texts: Sequence[str] = field(repr=False)
    embeddings: np.ndarray = field(repr=False)
    cut: np.ndarray = field(repr=False)
    last: int

    def rows(self, texts: Iterable[str]) -> np.ndarray:
        """The embeddings (n, dim) of these texts, in their order.

        Raises:
            LookupError: a text that was not embedded.
        """
        return self.embeddings[self._where(texts)]

    def truncated(self, texts: Iterable[str]) -> int:
        """How many of these texts were cut at the model's length."""
        return int((self.cut[self._where(texts)] > 0).sum())

    def _where(self, texts: Iterable[str]) -> list[int]:
        place = {text: row for row, text in enumerate(self.texts)}
        try:
            return [place[text] for text in texts]
        except KeyError as missing:
            raise LookupError(
                f"{missing.args[0][:40]!r} is not among the {len(self.texts)} texts of this space; "
                "give all data sets to embed() together"
            ) from None


def embed(
    model: EmbeddingModel,
    texts: Iterable[str],
    *,
    poolings: Sequence[str] = ("mean",),
    layers: Sequence[int] | None = (-1,),
    progress: bool = True,
) -> Iterator[Space]:
    """Every (layer, pooling) of one model on these texts, from one pass, one in memory at a time.

    The pass, and with it every error, comes when the first space is asked for.

    Args:
        model: a lab model; its own layers and pooling, and a repair attached to it, play no part.
        texts: in any order, repetitions dropped; chain those of several data sets.
        poolings: names in ``POOLINGS``.
        layers: hidden states, negative from the end; None for all.
        progress: show a bar after two seconds.

    Raises:
        TypeError, ValueError, LookupError, FloatingPointError, OSError: as
            :func:`lab.readout.read_out`; a bad text is named by its row.

    Warns:
        TruncationWarning: texts that are longer than the model.
    """
    listed = texts if isinstance(texts, str) else list(texts)
    check_texts(listed)
    unique = list(dict.fromkeys(listed))
    found = readout.read_out(model, unique, poolings=poolings, layers=layers, progress=progress)
    for (layer, pooling), embeddings in found.items():
        place = {"layer": layer, "layer_mix": None, "pooling": pooling, "repair": None}
        yield Space({**settings(model), **place}, unique, embeddings, found.cut, found.states - 1)


def shape(
    space: Space,
    measures: Sequence[str],
    *,
    notebook: str,
    seed: int,
    texts: Sequence[str] | None = None,
    form: str = "raw",
    repair: Repair | None = None,
    groups: int = GROUPS,
    **about: Any,
) -> pd.DataFrame:
    """The tidy table of measures of a space: value, interval, N and d.

    ``texts``: only these, default all; ``repair``: a fitted one, applied first; ``groups`` of
    the jackknife: half as many take half the time; ``about``: further columns, such as dataset.

    Raises:
        LookupError: an unknown measure or form, a text that was not embedded.
        ValueError: no measure, and whatever a measure refuses.

    Warns:
        SampleSizeWarning: no more texts than dimensions, for measures that depend on that.
    """
    if not measures:
        raise ValueError("no measure to take: name some of lab.anisotropy.MEASURES")
    kept = list(space.texts if texts is None else texts)
    found = anisotropy.measure(
        _repaired(space.rows(kept), repair), measures, form=form, seed=seed, groups=groups
    )
    rows = found.drop(columns=["isotropic", "groups"]).rename(columns={"measure": "metric"})
    about = {"notebook": notebook, "seed": seed, "truncated": space.truncated(kept), **about}
    named = {**space.settings, "repair": repair.label if repair else None, "probe": "anisotropy"}
    return results.table({**named, **about, **one} for one in rows.to_dict("records"))


def score(
    space: Space,
    dataset: Dataset,
    *,
    seed: int,
    repair: Repair | None = None,
    columns: Mapping[str, Any] | None = None,
    **options: Any,
) -> Cell:
    """The probe's score of a space on a data set whose texts it holds, after a fitted repair.

    ``columns`` are further ones of the tidy table, such as the length bin that the data set is.
    ``options`` go to the probe, such as ``size`` of clustering.

    Raises:
        LookupError: a text that was not embedded.
        ValueError: whatever the probe or the repair refuses.
    """
    embeddings = _repaired(space.rows(dataset.texts), repair)
    about = {
        "repair": repair.label if repair else None,
        "dataset": dataset.name,
        "split": dataset.split,
        "truncated": space.truncated(dataset.texts),
        "seed": seed,
    }
    found = PROBES[dataset.kind](dataset, embeddings, seed=seed, **options)
    return Cell({**space.settings, **about, **(columns or {})}, found, space.last)


def _repaired(embeddings: np.ndarray, repair: Repair | None) -> np.ndarray:
    return embeddings if repair is None else repair.transform(embeddings)


def token_table(model: EmbeddingModel) -> tuple[np.ndarray, np.ndarray]:
    """The input embeddings (vocabulary, dim) and how frequent each token is in our reference texts.

    Frequencies (vocabulary,) are those of the frequency-weighted poolings: tokens counted in the
    descriptions that ship in ``data/``. A token that does not occur there has frequency 0.
    """
    encoder = model.encoder
    encoder.count_frequencies([name for name in POOLINGS if needs_frequency(name)])
    table: Any = encoder.model.get_input_embeddings()
    assert encoder.frequency is not None  # counted just now
    return table.weight.detach().float().cpu().numpy(), encoder.frequency.numpy()


def pieces(texts: Sequence[str], *, shortest: int, longest: int, seed: int) -> list[str]:
    """The beginning of every text, cut to a random number of words: length without topic.

    Raises:
        ValueError: no word asked for, or a text that is shorter than the longest piece.
    """
    if not 1 <= shortest <= longest:
        raise ValueError(f"pieces have 1 word or more; got {shortest} to {longest}")
    words = [text.split() for text in texts]
    least = min(map(len, words))
    if least < longest:
        row = next(row for row, one in enumerate(words) if len(one) == least)
        raise ValueError(
            f"pieces of up to {longest} words need texts as long; text {row} has {least}: "
            f"{texts[row][:40]!r}"
        )
    lengths = np.random.default_rng(seed).integers(shortest, longest + 1, len(texts))
    return [" ".join(one[:length]) for one, length in zip(words, lengths, strict=True)]


def rarest(model: EmbeddingModel, texts: Sequence[str]) -> list[float]:
    """Per text the log10 frequency of its rarest token, a token that never occurs counting once."""
    _, frequency = token_table(model)
    floor = frequency[frequency > 0].min()
    ids = model.encoder.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [float(np.log10(np.maximum(frequency[one], floor).min())) for one in ids]
