"""What a frame of :mod:`lab.collapse.mechanism` says on average: means and slopes, with intervals.

A unit is a text, which is resampled with all its lengths. Rows that agree in all columns of
:mod:`lab.results` (settings, dataset, layer) make a group, so frames of several models and cuts can
be concatenated.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from lab import results
from lab.collapse.mechanism import METRICS
from lab.stats import Score, bootstrap_weights, interval
from lab.stats.weighted import mean


def summarise(
    frame: pd.DataFrame, *, seed: int, resamples: int = 2000, **about: Any
) -> pd.DataFrame:
    """The tidy table of the mean over texts of every measure, with intervals; probe "mechanism".

    One row a measure, layer and length, or ``bin`` where the frame has that column. ``n`` is how
    many texts have the number. Intervals are percentile bootstraps; a single text has none.

    Args:
        frame: of :func:`lab.collapse.mechanism.measure`; ``length`` may be overwritten with the
            length that texts were cut to, and ``bin`` added.
        seed: of the resamples.
        resamples: of the bootstrap.
        **about: further columns, such as notebook and dataset.

    Raises:
        ValueError: a frame by heads; a text twice in a group (which).
    """
    rng = np.random.default_rng(seed)
    weights: dict[int, np.ndarray] = {}
    rows = []
    for key, group in _groups(frame, "length" if "bin" not in frame else "bin"):
        if group["text"].duplicated().any():
            twice = int(group["text"][group["text"].duplicated()].iloc[0])
            raise ValueError(f"text {twice} is twice among {key}; give each a number of its own")
        for metric in METRICS:
            values = group[metric].dropna().to_numpy()
            if not len(values):
                continue
            row = {**key, "metric": metric, "value": float(values.mean()), "n": len(values)}
            if len(values) > 1:
                if len(values) not in weights:
                    weights[len(values)] = bootstrap_weights(len(values), resamples, rng)
                score = Score("mechanism", metric, values[:, None], mean)
                found = interval(score, weights[len(values)])
                row |= {"value": found.value, "low": found.low, "high": found.high}
            rows.append(row)
    return results.table({"probe": "mechanism", "seed": seed, **about, **row} for row in rows)


def slope(
    frame: pd.DataFrame,
    *,
    seed: int,
    metric: str = "filter_rate",
    resamples: int = 2000,
    **about: Any,
) -> pd.DataFrame:
    """The tidy table of the slope of log metric against log n, layer by layer, with intervals.

    Least squares over all rows of a group. -0.5 is the law of Gaussian logits with one spread
    (:func:`lab.collapse.filter_rate.gaussian_law`). Rows with one number in ``text`` are pieces of
    one text. The metric of the table is "filter_rate_slope".

    Args:
        frame: of :func:`lab.collapse.mechanism.measure`, with texts of several lengths or several
            cuts of the same texts concatenated.
        seed: of the resamples.
        metric: the column.
        resamples: of the bootstrap.
        **about: further columns, such as notebook and dataset.

    Raises:
        ValueError: a frame by heads, a value that is not positive (which text), a single length, a
            single text.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for key, group in _groups(frame.dropna(subset=metric), None):
        bad = group[group[metric] <= 0]
        if len(bad):
            raise ValueError(
                f"{metric} of text {bad['text'].iloc[0]} in layer {key['layer']} is "
                f"{bad[metric].iloc[0]:.3g} and has no logarithm; leave texts of one token out"
            )
        if group["length"].nunique() < 2 or group["text"].nunique() < 2:
            raise ValueError(
                f"a slope needs two lengths and two texts; got {group['length'].nunique()} and "
                f"{group['text'].nunique()} among {key}"
            )
        score = _slope_score(group, metric)
        found = interval(score, bootstrap_weights(score.n, resamples, rng))
        ends = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
        rows.append({**key, "metric": score.metric, **ends})
    return results.table({"probe": "mechanism", "seed": seed, **about, **row} for row in rows)


def _slope_score(group: pd.DataFrame, metric: str) -> Score:
    """The slope as a statistic of texts, each the sums that least squares needs of its rows."""
    x, y = np.log(group["length"].to_numpy(float)), np.log(group[metric].to_numpy(float))
    x, y = x - x.mean(), y - y.mean()
    sums = pd.DataFrame({"xy": x * y, "y": y, "one": 1.0, "x": x, "xx": x * x})
    units = sums.groupby(group["text"].to_numpy()).sum().to_numpy()
    return Score("mechanism", f"{metric}_slope", units, _slope)


def _slope(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    xy, y, one, x, xx = (weights @ units).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return (xy - x * y / one) / (xx - x * x / one)


def _groups(
    frame: pd.DataFrame, length: str | None
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Rows that agree in all columns of the tidy table, lengths left out or kept by this column."""
    if "head" in frame:
        raise ValueError("a frame by heads has no summary; measure without heads=True")
    keys = [name for name in frame if name in results.COLUMNS and name not in ("length", "bin")]
    keys += [length] if length else []
    for values, group in frame.groupby(keys, dropna=False, sort=False):
        found = zip(keys, values, strict=True)
        yield {key: None if pd.isna(value) else value for key, value in found}, group
