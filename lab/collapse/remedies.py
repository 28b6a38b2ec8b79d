"""Remedies against length collapse side by side: chosen on dev, judged on test per length bin.

::

    remedies = candidates(model, edges=edges)
    trials = evaluate(model, remedies, fit_texts=train.texts, dev={"dev": dev},
                      test=split_by_length(test, ...), seed=0)
    chosen = choose(trials)                       # per family, on dev alone
    judge(trials, chosen, ...)                    # per length bin, against the baseline
    growth(trials, chosen, ...)                   # is the gain larger for long texts?
    temperature_curve(trials, ...)                # every temperature, not the best one

Every trial is kept and can be tabulated: ``lab.grid.tabulate(trial.cell for trial in trials)``.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from lab import grid, results
from lab.collapse.candidates import BASELINE, Candidate, candidates
from lab.collapse.overlap import without
from lab.collapse.trials import Trial, evaluate
from lab.grid import Cell
from lab.stats import Score, compare_all, holm

__all__ = [
    "Candidate",
    "Trial",
    "candidates",
    "choose",
    "evaluate",
    "growth",
    "judge",
    "temperature_curve",
    "without",
]

Cells = dict[tuple[str, str], Cell]  # by candidate's label and length bin


def choose(trials: Iterable[Trial]) -> dict[str, Candidate]:
    """The best candidate of each family by its mean score over the dev sets; the first of equals.

    Test scores play no part. The baseline is no remedy and left out.

    Raises:
        ValueError: no trial on a dev set; a dev score that is not finite (of what, on which).
    """
    scores: dict[str, list[float]] = {}
    tried: dict[str, Candidate] = {}
    for trial in trials:
        label, value = trial.candidate.label, trial.cell.score.value
        if trial.judged or trial.candidate.family == BASELINE:
            continue
        if not np.isfinite(value):
            raise ValueError(
                f"{label!r} scores {value} on the dev set {trial.dataset!r}, so nothing can be "
                "chosen by it; leave the candidate out"
            )
        tried[label] = trial.candidate
        scores.setdefault(label, []).append(value)
    if not tried:
        raise ValueError("nothing to choose from: no remedy was tried on a dev set")
    best: dict[str, Candidate] = {}
    for label, candidate in tried.items():
        champion = best.setdefault(candidate.family, candidate)
        if np.mean(scores[label]) > np.mean(scores[champion.label]):
            best[candidate.family] = candidate
    return best


def judge(
    trials: Iterable[Trial],
    chosen: Mapping[str, Candidate],
    *,
    notebook: str,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> pd.DataFrame:
    """The chosen candidate of each family against the baseline in every length bin: comparisons.

    Units are paired within a bin. Holm's correction runs over all rows: remedies times bins.

    Args:
        trials: of one model on the bins of one data set.
        chosen: what :func:`choose` gave.
        notebook: for the table.
        rng: draws resamples and swaps, the same for all remedies of a bin.
        resamples: of the bootstrap and of the permutation.

    Raises:
        LookupError: a chosen candidate, or the baseline, was not tried on the test sets.
        ValueError: whatever :func:`lab.stats.compare_all` refuses.
    """
    cells = _judged(trials)
    frames = []
    for name in dict.fromkeys(name for _, name in cells):
        scores = {label: _cell(cells, label, name).score for label in _labels(chosen)}
        found = compare_all(scores, BASELINE, rng=rng, resamples=resamples)
        frames.append(found.assign(bin=name))
    return _comparisons(pd.concat(frames), cells, notebook)


def growth(
    trials: Iterable[Trial],
    chosen: Mapping[str, Candidate],
    *,
    shortest: str,
    longest: str,
    notebook: str,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> pd.DataFrame:
    """Whether a remedy gains more on long texts: its gain in one bin minus its gain in another.

    A difference of differences, one row per remedy, with Holm's correction over them. The units of
    the bins are others, so nothing is paired between bins; within one, remedy and baseline are.
    Interval and p are of a bootstrap over the units of both bins together, where the sizes of the
    bins vary with the draw.

    Args:
        trials: of one model on the bins of one data set.
        chosen: what to look at, as from :func:`choose`; all of it is one family for Holm.
        shortest: the bin that is subtracted.
        longest: the bin that it is subtracted from.
        notebook: for the table.
        rng: draws the resamples.
        resamples: of the bootstrap.

    Raises:
        LookupError: no such bin, or a candidate that was not tried on it.
    """
    cells = _judged(trials)
    scores = {
        label: _excess(*(_cell(cells, label, name).score for name in (longest, shortest)))
        for label in _labels(chosen)
    }
    found = compare_all(scores, BASELINE, rng=rng, resamples=resamples)
    return _comparisons(found.assign(bin=f"{longest} minus {shortest}"), cells, notebook)


def temperature_curve(
    trials: Iterable[Trial], *, notebook: str, rng: np.random.Generator, resamples: int = 1000
) -> pd.DataFrame:
    """The results table of every global temperature on every dev set (no bin) and length bin.

    Raises:
        ValueError: no candidate of the family "temperature".
    """
    cells = [trial.cell for trial in trials if trial.candidate.family == "temperature"]
    if not cells:
        raise ValueError("no candidate of the family 'temperature' was tried, so there is no curve")
    return grid.tabulate(cells, notebook=notebook, rng=rng, resamples=resamples)


def _judged(trials: Iterable[Trial]) -> Cells:
    """The test cells by label and bin, once they are known to be of one model and one data set."""
    cells = {(one.candidate.label, one.dataset): one.cell for one in trials if one.judged}
    if not cells:
        raise ValueError("nothing to judge: no candidate was tried on a test set")
    for what in ("checkpoint", "dataset", "split"):
        found = {cell.settings[what] for cell in cells.values()}
        if len(found) > 1:
            raise ValueError(f"trials of one {what} wanted, got {sorted(found)}: judge each alone")
    return cells


def _cell(cells: Cells, label: str, name: str) -> Cell:
    if (label, name) not in cells:
        tried, names = (list(dict.fromkeys(part)) for part in zip(*cells, strict=True))
        raise LookupError(
            f"{label!r} was not tried on {name!r}; there are the bins {', '.join(names)} and "
            f"{len(tried)} candidates: {', '.join(tried)}"
        )
    return cells[label, name]


def _labels(chosen: Mapping[str, Candidate]) -> list[str]:
    return [BASELINE, *(candidate.label for candidate in chosen.values())]


def _excess(longer: Score, shorter: Score) -> Score:
    """A score in one bin minus that in another, as one statistic of the units of both."""
    n = longer.n

    def statistic(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
        above = longer.statistic(longer.units, weights[:, :n])
        return above - shorter.statistic(shorter.units, weights[:, n:])

    places = np.arange(n + shorter.n, dtype=float)[:, None]
    about = {"swappable": False, "recentred": longer.recentred}
    return Score(longer.probe, longer.metric, places, statistic, **about)


def _comparisons(found: pd.DataFrame, cells: Cells, notebook: str) -> pd.DataFrame:
    """The comparisons table of one family of tests."""
    context = next(iter(cells.values())).settings
    about = {name: context[name] for name in ("checkpoint", "dataset", "split", "seed")}
    found = found.assign(p_holm=holm(found["p"]))
    return results.comparison_table(found, notebook=notebook, **about)
