"""Candidate remedies tried: every one on every development set and on every length bin."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from sklearn.base import clone

from lab import models, spaces
from lab.collapse.candidates import BASELINE, Candidate, fit_by_length
from lab.collapse.cutting import token_lengths
from lab.collapse.overlap import check_disjoint, check_fit_texts, check_learned_on
from lab.data import Dataset
from lab.grid import Cell
from lab.models import EmbeddingModel
from lab.models.architecture import depth
from lab.spaces import Space

NO_CHANGE = (("temperature", 1.0), ("temperature", None))


@dataclass(frozen=True)
class Trial:
    """One candidate's score on one data set.

    Attributes:
        candidate: what was tried.
        dataset: the name that the data set was given under: of a test set its length bin.
        judged: whether it is a test set; else it is there to choose on.
        cell: score and settings, for ``lab.grid.tabulate``; the bin is among the settings.
    """

    candidate: Candidate
    dataset: str
    judged: bool
    cell: Cell


@dataclass(frozen=True)
class _Fit:
    """What repairs are fitted on."""

    texts: Sequence[str]
    split: str
    least: int


def evaluate(
    model: EmbeddingModel,
    remedies: Sequence[Candidate],
    *,
    fit_texts: Sequence[str],
    dev: Mapping[str, Dataset],
    test: Mapping[str, Dataset],
    seed: int,
    fit_split: str = "train",
    least: int = 20,
    learned_on: Mapping[str, Dataset] | None = None,
    progress: bool = True,
    **options: Any,
) -> list[Trial]:
    """Every candidate on every data set, in the order of the candidates.

    Candidates of the same settings share one pass, in which each text is embedded once.

    Args:
        model: a lab model; candidates change its settings and read it out their own way.
        remedies: candidates of different labels, one of them the baseline.
        fit_texts: what repairs are fitted on.
        dev: the data sets to choose on, by name.
        test: one data set in length bins, by bin and the shortest first, as
            :func:`lab.collapse.bins.split_by_length` gives them.
        seed: of the probes.
        fit_split: which split the fit texts are: "train" or "dev".
        least: fit texts that a length bin must have for a repair of its own.
        learned_on: what settings of candidates were learned on, by name: the data sets of
            :func:`lab.collapse.learning.learn_temperatures`.
        progress: show a bar after two seconds.
        **options: of the probe, such as ``size`` of clustering.

    Raises:
        ValueError: no baseline or a label twice; no dev or test set; sets that overlap, or fit
            texts that are judged (:mod:`lab.collapse.overlap`); whatever a setting, a repair or a
            probe refuses.
        LookupError: an unknown setting, pooling or kind of data set.

    Warns:
        TruncationWarning: texts that are longer than the model, once a pass.
    """
    _check_labels(remedies)
    if not dev or not test:
        raise ValueError(f"a dev set and a test set wanted; got {len(dev)} and {len(test)}")
    check_disjoint(dev, test)
    check_learned_on(learned_on or {}, test)
    check_fit_texts(fit_texts, test)
    sets = [(name, one, False) for name, one in dev.items()]
    sets += [(name, one, True) for name, one in test.items()]
    texts = [*fit_texts, *chain.from_iterable(one.texts for _, one, _ in sets)]
    fit = _Fit(fit_texts, fit_split, least)
    trials = []
    for some in _passes(remedies):
        changed = models.variant(model, **some[0].settings)
        for candidate, space in _spaces(changed, some, texts, fit, progress):
            for name, dataset, judged in sets:
                cell = spaces.score(space, dataset, seed=seed, **options)
                about = {"repair": candidate.repair_name, "bin": name if judged else None}
                cell = replace(cell, settings={**cell.settings, **candidate.settings, **about})
                trials.append(Trial(candidate, name, judged, cell))
    order = {one.label: place for place, one in enumerate(remedies)}
    return sorted(trials, key=lambda trial: order[trial.candidate.label])


def _check_labels(remedies: Sequence[Candidate]) -> None:
    labels = [one.label for one in remedies]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{labels.count(label)} candidates are labelled {label!r}; rename one")
    baselines = sum(one.family == BASELINE for one in remedies)
    if baselines != 1 or BASELINE not in labels:
        raise ValueError(
            f"one candidate is the baseline, Candidate({BASELINE!r}, {BASELINE!r}); got {baselines}"
            f" of that family among {len(labels)}"
        )


def _passes(remedies: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates of the same settings together; a temperature of 1 is none."""

    def acting(one: Candidate) -> dict[str, Any]:
        return {key: value for key, value in one.settings.items() if (key, value) not in NO_CHANGE}

    passes: list[list[Candidate]] = []
    for one in remedies:
        same = [some for some in passes if acting(some[0]) == acting(one)]
        if same:
            same[0].append(one)
        else:
            passes.append([one])
    return passes


def _spaces(
    model: EmbeddingModel,
    some: Sequence[Candidate],
    texts: Sequence[str],
    fit: _Fit,
    progress: bool,
) -> Iterator[tuple[Candidate, Space]]:
    """What each candidate makes of the texts, from one pass of a model with their settings."""
    count = depth(model.encoder.model)
    poolings = list(dict.fromkeys(one.pooling for one in some))
    layers = list(dict.fromkeys(one.layer for one in some))
    lengths: dict[str, int] = {}
    if any(one.edges for one in some):
        unique = list(dict.fromkeys(texts))
        lengths = dict(zip(unique, token_lengths(model, unique), strict=True))
    for space in spaces.embed(model, texts, poolings=poolings, layers=layers, progress=progress):
        for one in some:
            place = {"pooling": one.pooling, "layer": model.encoder.layer_index(one.layer, count)}
            if place.items() <= space.settings.items():
                yield one, _repaired(space, one, fit, lengths)


def _repaired(space: Space, candidate: Candidate, fit: _Fit, lengths: Mapping[str, int]) -> Space:
    """The space after the candidate's repair, fitted on the fit texts."""
    if candidate.repair is None:
        return space
    rows = space.rows(fit.texts)
    if candidate.edges is None:
        repair = clone(candidate.repair).fit(rows, split=fit.split)
        return replace(space, embeddings=repair.transform(space.embeddings))
    of_fit, of_all = (np.array([lengths[one] for one in ts]) for ts in (fit.texts, space.texts))
    by_length = fit_by_length(
        candidate.repair, rows, of_fit, candidate.edges, split=fit.split, least=fit.least
    )
    return replace(space, embeddings=by_length.transform(space.embeddings, of_all))
