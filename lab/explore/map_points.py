"""What a map shows: texts of data sets in one frame, which of them are drawn, who is near whom."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from lab.data import Dataset
from lab.registry import unknown

OTHER, MISSING = "other", "(missing)"


def texts_of(datasets: Iterable[Dataset]) -> pd.DataFrame:
    """One row per text, each once: text, dataset, role (its column there), label ("none" if none).

    A text that occurs twice keeps its first place.
    """
    parts = []
    for dataset in datasets:
        frame = dataset.frame
        for role in (name for name in frame if pd.api.types.is_integer_dtype(frame[name])):
            rows = frame[role].to_numpy()
            labels = frame["label"].astype(str) if "label" in frame else "none"
            texts = [dataset.texts[row] for row in rows]
            parts.append(pd.DataFrame({"text": texts, "dataset": dataset.name, "role": role,
                                       "label": labels}))  # fmt: skip
    if not parts:
        raise ValueError("a map needs texts: name at least one data set")
    return pd.concat(parts).drop_duplicates("text", ignore_index=True)


def draw(points: pd.DataFrame, most: int, by: str | None, seed: int) -> tuple[np.ndarray, str]:
    """Positions (m,) of at most ``most`` rows in their order, and a sentence that says which.

    With a column ``by``, every value of it keeps its share, rounded by largest remainder; so a
    value with very few rows may go.

    Raises:
        LookupError: no such column. ValueError: nothing to draw from, or fewer than one point.
    """
    if by is not None and by not in points.columns:
        raise LookupError(unknown("column", by, map(str, points.columns)))
    n = len(points)
    if n == 0 or most < 1:
        raise ValueError(f"a map needs a point at least; got {n} rows and most={most}")
    if n <= most:
        return np.arange(n), f"all {n} points"
    rng = np.random.default_rng(seed)
    if by is None:
        kept = rng.choice(n, most, replace=False)
        return np.sort(kept), f"{most} of {n} points, drawn with seed {seed}"
    groups = pd.Series(np.arange(n)).groupby(_words(points[by]).to_numpy(), sort=True)
    sizes = groups.size().to_numpy()
    shares = sizes * most / n
    counts = np.floor(shares).astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: most - counts.sum()]] += 1
    kept = np.concatenate(
        [
            rng.choice(rows.to_numpy(), count, replace=False)
            for (_, rows), count in zip(groups, counts, strict=True)
        ]
    )
    return np.sort(kept), f"{most} of {n} points, drawn by {by} in proportion with seed {seed}"


def few_levels(column: pd.Series, most: int) -> tuple[pd.Series, str]:
    """The column as names, at most ``most`` of them, and a sentence if that changed anything.

    The most frequent names are kept and the rest is called "other", last. Numbers of more than
    ``most`` values become four ranges of about as many rows each.
    """
    distinct = column.nunique(dropna=True)
    if pd.api.types.is_numeric_dtype(column) and distinct > most:
        ranges = pd.qcut(column.astype(float), 4, duplicates="drop")
        edges = [f"{one.left:g} to {one.right:g}" for one in ranges.cat.categories]
        named = ranges.cat.rename_categories(edges)
        return _words(named).rename(
            column.name
        ), f"{column.name}: {distinct} numbers as {len(edges)} ranges"
    names = _words(column)
    counts = names.value_counts(sort=True)
    if len(counts) <= most:
        return names, ""
    kept = list(counts.index[: most - 1])
    shown = names.astype(object).where(names.isin(kept), OTHER)
    rest = int((shown == OTHER).sum())
    return (
        pd.Series(pd.Categorical(shown, [*kept, OTHER]), index=column.index, name=column.name),
        f"{column.name}: {len(counts)} values, the {len(kept)} most frequent shown; "
        f"the rest, {rest} points, is called {OTHER!r}",
    )


def _words(column: pd.Series) -> pd.Series:
    """Names in place of anything, most frequent first; an empty cell has one too."""
    names = column.astype(object).where(column.notna(), MISSING).map(str)
    kinds = pd.Categorical(names, names.value_counts().index)
    return pd.Series(kinds, index=column.index, name=column.name)


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows (n, d) at length one; a zero vector stays zero, near to nothing."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1, lengths)


def nearest(
    units: np.ndarray, queries: np.ndarray, k: int, itself: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cosines (m, k) of the rows nearest to each query, exactly, nearest first.

    ``units`` (n, d) and ``queries`` (m, d) at length one. ``itself``: the position of each query
    among the rows, which is left out.

    Raises:
        ValueError: fewer than k other rows.
    """
    others = len(units) - (itself is not None)
    if not 1 <= k <= others:
        raise ValueError(f"{k} neighbours were wanted; there are {others} other points")
    cosines = queries @ units.T
    if itself is not None:
        cosines[np.arange(len(queries)), np.asarray(itself)] = -np.inf
    found = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(cosines, found, axis=1)
    order = np.lexsort((found, -values), axis=1)  # ties by position, so that a table is stable
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(values, order, axis=1)
