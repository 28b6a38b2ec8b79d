"""Measures as tables: of any rows, and of every layer and pooling of a model."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lab.anisotropy.measure import DIRECTIONS, MEASURES, MOMENTS, ROWS
from lab.anisotropy.spectrum import contributions, cumulative_variance, isoscore_corrected
from lab.anisotropy.stream import Source, Stream, chunks
from lab.registry import unknown
from lab.stats.jackknife import Jackknife

FORMS = {
    "raw": (False, False),
    "unit": (False, True),
    "centred": (True, False),
    "centred unit": (True, True),
}


class SampleSizeWarning(UserWarning):
    """There are no more rows than dimensions, and a measure depends on that."""


def scan(source: Source, *, form: str = "raw", progress: bool = False, **options: Any) -> Stream:
    """One pass over the rows of an array, an ``.npy`` file or an iterable of chunks.

    Args:
        source: float32 or float64 rows (n, d).
        form: raw, unit (rows brought to unit norm), centred or centred unit (the mean of all rows
            subtracted first, which takes a pass of its own).
        progress: show a bar over the chunks.
        **options: of :class:`Stream`: groups, sample, seed, device.

    Raises:
        LookupError: an unknown form.
        ValueError: bad rows; a centred form of a source that can be read only once.
    """
    if form not in FORMS:
        raise LookupError(unknown("form", form, FORMS))
    centred, unit = FORMS[form]
    centre = None
    if centred:
        if isinstance(source, Iterator):
            raise ValueError(
                f"form {form!r} reads the rows twice and {type(source).__name__} gives them once; "
                "hand over an array, a list of chunks or a file"
            )
        centre = _mean(source, **{k: v for k, v in options.items() if k == "device"})
    seen = Stream(unit=unit, centre=centre, **options)
    for chunk in tqdm(chunks(source), "rows", unit="chunk", delay=2, disable=not progress):
        seen.update(chunk)
    return seen


def measure(
    source: Source,
    measures: Sequence[str] | None = None,
    *,
    form: str = "raw",
    level: float = 0.95,
    **options: Any,
) -> pd.DataFrame:
    """One row a measure: value, interval, what isotropic rows would show, N and d.

    ``isotropic`` is the value that n rows of a perfectly isotropic space would give, empty where no
    closed form is known. Intervals are delete-a-group jackknifes by Student's t, not clipped to the
    range of the measure. ``n`` is the size of the sample for measures that read rows.

    Raises:
        LookupError: an unknown measure or form.
        ValueError: bad rows, fewer than four, or whatever a measure refuses.

    Warns:
        SampleSizeWarning: no more rows than dimensions, for measures that depend on that.
    """
    if measures is not None and not isinstance(measures, str):
        reads = {MEASURES[name].reads for name in measures}
        options = {"covariance": MOMENTS in reads, **options}
        options = options if ROWS in reads else {"sample": 0, **options}
    return tabulate(scan(source, form=form, **options), measures, level=level)


def tabulate(
    seen: Stream, measures: Sequence[str] | None = None, *, level: float = 0.95
) -> pd.DataFrame:
    """The table of :func:`measure` for a stream; default all measures its form allows."""
    chosen = _chosen(seen, measures)
    total = seen.total
    d = total.d
    rows = []
    for name, found in seen.jackknife(chosen).items():
        low, high = found.interval(level)
        isotropic = MEASURES[name].isotropic
        rows.append({
            "measure": name,
            "form": seen.form,
            "value": float(found.value),
            "low": float(low),
            "high": float(high),
            "isotropic": isotropic(found.n, d) if isotropic else np.nan,
            "n": found.n,
            "dim": d,
            "groups": len(found.sizes),
        })  # fmt: skip
    _warn_of_few_rows(rows, total)
    return pd.DataFrame(rows)


def _chosen(seen: Stream, measures: Sequence[str] | None) -> list[str]:
    """The names of the measures to take."""
    if isinstance(measures, str) or (measures is not None and not len(measures)):
        raise ValueError(f"measures is a list of names, or None for all; got {measures!r}")
    return default_measures(seen) if measures is None else list(measures)


def default_measures(seen: Stream) -> list[str]:
    """Every measure that this stream can give: it has what they read, in a form they allow."""
    has = (
        {DIRECTIONS}
        | ({MOMENTS} if seen.covariance else set())
        | ({ROWS} if seen.sample else set())
    )
    return [
        name
        for name, one in MEASURES.items()
        if one.reads in has and (seen.unit or not one.unit_only)
    ]


def _warn_of_few_rows(rows: Sequence[Mapping[str, Any]], total: Any) -> None:
    few = [row for row in rows if MEASURES[row["measure"]].biased and row["n"] <= row["dim"]]
    if few:
        said = "; ".join(
            f"{row['measure']} {row['value']:.3g}"
            + ("" if np.isnan(row["isotropic"]) else f" (isotropic rows: {row['isotropic']:.3g})")
            for row in few
        )
        warnings.warn(
            f"{few[0]['n']} rows of {few[0]['dim']} dimensions: these values tell of the number of "
            f"rows first: {said}. Corrected, IsoScore is {isoscore_corrected(total):.3g}",
            SampleSizeWarning,
            stacklevel=4,
        )


def _mean(source: Source, **options: Any) -> np.ndarray:
    first = Stream(sample=0, groups=2, **options)
    for chunk in chunks(source):
        first.update(chunk)
    return first.total.mean.cpu().numpy()


def difference(
    first: Stream, second: Stream, measures: Sequence[str] | None = None, *, level: float = 0.95
) -> pd.DataFrame:
    """First minus second on the same rows in the same order: paired, one row a measure.

    Raises:
        ValueError: the streams saw other numbers of rows, or have other groups or seeds.
    """
    first.paired_with(second)
    chosen = _chosen(first, measures)
    theirs = second.jackknife(chosen)
    rows = []
    for name, found in first.jackknife(chosen).items():
        gap = found - theirs[name]
        low, high = gap.interval(level)
        rows.append({
            "measure": name, "difference": float(gap.value), "low": float(low),
            "high": float(high), "p": float(gap.p()), "n": gap.n,
        })  # fmt: skip
    return pd.DataFrame(rows)


def contributions_table(seen: Stream, *, top: int = 5, level: float = 0.95) -> pd.DataFrame:
    """The dimensions that add most to the average cosine, with their share of it.

    Columns: dimension, contribution, low, high, share (of the average cosine; empty where the
    interval of that holds 0, and nothing can be shared).

    Raises:
        ValueError: bad rows, or more dimensions asked for than there are.
    """
    found = seen.of_moments({"contribution": contributions})["contribution"]
    if not 1 <= top <= len(found.value):
        raise ValueError(f"top is 1 to {len(found.value)}, the number of dimensions; got {top}")
    low, high = found.interval(level)
    order = np.argsort(-found.value)[:top]
    whole = Jackknife(found.value.sum(), found.left_out.sum(1), found.sizes)
    shared = float(whole.value) if whole.interval(level)[0] > 0 else np.nan
    return pd.DataFrame(
        {
            "dimension": order,
            "contribution": found.value[order],
            "low": low[order],
            "high": high[order],
            "share": found.value[order] / shared,
        }
    )


def spectrum_table(seen: Stream, *, level: float = 0.95) -> pd.DataFrame:
    """Component by component: share of the variance, and cumulated with its interval."""
    found = seen.of_moments({"cumulative": cumulative_variance})["cumulative"]
    low, high = found.interval(level)
    values = seen.total.spectrum
    return pd.DataFrame(
        {
            "component": np.arange(1, len(values) + 1),
            "variance": values,
            "cumulative": found.value,
            "low": low,
            "high": high,
        }
    )
