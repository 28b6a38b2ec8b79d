"""Training seeds: one score of several seeds, and what of the spread is seeds and what data sets.

A design is trained once for every seed, and each of these models is measured on the same data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd

from lab.registry import unknown
from lab.stats.mixed_model import LAYOUT, ROUNDING, SOURCES, anova, reml
from lab.stats.score import Score, Statistic, check_pair

TINY = 1e-6  # of the total: an estimate below it lies on the boundary, which is zero


def mean_over_seeds(scores: Sequence[Score]) -> Score:
    """One score whose value is the mean over training seeds of the metric on the same texts.

    The seeds' units stand side by side, the gold once, so a text is resampled and swapped with all
    its seeds: pairing stays by text, and a difference is tested *for the models trained*. It says
    nothing about other seeds; for that see :func:`variance_components`. Only scores of equally
    many seeds can be compared.

    Raises:
        ValueError: no score, or scores of another probe, metric, number of units or gold.
    """
    if not scores:
        raise ValueError("a mean over seeds needs one score per seed; got none")
    first = scores[0]
    for other in scores[1:]:
        check_pair(other, first)
    gold = [first.units[:, -1:]] if first.has_gold else []
    units = np.hstack([score.measured for score in scores] + gold)
    statistic = partial(
        _mean_of_blocks, statistic=first.statistic, seeds=len(scores), gold=first.has_gold
    )
    return replace(
        first,
        units=units,
        statistic=statistic,
        swappable=all(score.swappable for score in scores),
        recentred=any(score.recentred for score in scores),
        gold=first.has_gold,
    )


def _mean_of_blocks(
    units: np.ndarray, weights: np.ndarray, *, statistic: Statistic, seeds: int, gold: bool
) -> np.ndarray:
    """The mean of the statistic over blocks of columns, each beside the gold: (R,)."""
    measured, shared = (units[:, :-1], units[:, -1:]) if gold else (units, units[:, :0])
    blocks = np.hsplit(measured, seeds)
    return np.mean([statistic(np.hstack([block, shared]), weights) for block in blocks], axis=0)


@dataclass(frozen=True)
class Components:
    """Where the spread of a metric comes from, and the error that more of each would leave.

    Attributes:
        table: one row per source with ``variance``, ``sd``, ``share`` of the variance, ``n`` (how
            many levels it was estimated from), ``boundary`` (estimated as zero) and ``anova``, the
            method of moments, which may be negative; NaN where the table is not balanced.
        datasets: how many data sets were measured.
        seeds: how many seeds a design has; the harmonic mean where designs differ.
        method: "REML"; "ANOVA" where REML has no solution, with negative estimates set to zero.
        note: what there is to say about the estimate, or nothing.
    """

    table: pd.DataFrame = field(repr=False)
    datasets: int
    seeds: float
    method: str
    note: str

    def standard_error(self, datasets: float | None = None, seeds: float | None = None) -> float:
        """The standard error of a difference of two designs, each a mean over data sets and seeds.

        As measured, or with other numbers of data sets and seeds.

        Raises:
            ValueError: a number below one.
        """
        datasets = self.datasets if datasets is None else datasets
        parts = self._parts(datasets, self.seeds if seeds is None else seeds)
        return float(np.sqrt(sum(parts.values())))

    def plan(self, datasets: Sequence[int], seeds: Sequence[int]) -> pd.DataFrame:
        """The error of a difference for every number of data sets and seeds, and who makes it.

        The last three columns are the shares of its square: what more data sets, what more seeds
        and what more of either would reduce.

        Raises:
            ValueError: a number below one.
        """
        rows = []
        for b in datasets:
            for r in seeds:
                parts = self._parts(b, r)
                whole = sum(parts.values())
                shares = {name: part / whole if whole else 0.0 for name, part in parts.items()}
                row = {"datasets": b, "seeds": r, "standard_error": float(np.sqrt(whole))}
                rows.append({**row, **shares})
        return pd.DataFrame(rows)

    def _parts(self, datasets: float, seeds: float) -> dict[str, float]:
        """Its square by source: what is common to both designs, the data set itself, cancels."""
        if datasets < 1 or seeds < 1:
            raise ValueError(f"at least one data set and one seed wanted; got {datasets}, {seeds}")
        variance = self.table.set_index("source")["variance"]
        taken = dict(zip(SOURCES[1:], (datasets, seeds, datasets * seeds), strict=True))
        return {source: float(2 * variance[source] / n) for source, n in taken.items()}


def variance_components(values: pd.DataFrame) -> Components:
    """The variance of a metric over data sets, over seeds and over both, from a mixed model.

    ``values`` has one row per measurement: design, dataset, seed, value, and ``text_se`` if known.
    value = design + dataset + design x dataset + seed within design + rest: designs are fixed, the
    others random, fitted by REML (statsmodels ``MixedLM``). A seed is a trained model, measured on
    every data set, so it has a term of its own: in one residual of all it would pass for a new
    draw on each data set, and errors come out too small. A number of a seed means nothing across
    designs, and all designs share their variances: leave out what is not trained.

    Zero is a result (``boundary``), not a warning. On a balanced table REML equals the ``anova``
    column wherever that is positive throughout (Searle, Casella & McCulloch 1992).
    With ``text_se``, the standard error over texts of each value, a row "text" is the mean of its
    square. Its n is the number of values; it has no share: the texts are part of the data set, so
    it is contained in the three rows that name it, in parts that separate errors cannot tell.

    Raises:
        LookupError: a column that is not there.
        ValueError: a value missing or repeated; fewer than two designs, data sets, seeds of a
            design, or data sets of a seed; an unbalanced table for which REML does not converge.
    """
    _check(values)
    frame = values.reset_index(drop=True).assign(group=1)
    moments = anova(frame)
    variances = reml(frame, moments)
    method, notes = "REML", []
    if variances is None:
        if moments is None:
            raise ValueError(
                f"REML did not converge on {len(frame)} values, and the closed form needs the same "
                "number of seeds in every design and data set: complete the table"
            )
        method, variances = "ANOVA", np.maximum(moments, 0)
        notes.append("REML has no solution here: method of moments, negative estimates set to 0")
    rounding = (ROUNDING * frame["value"].abs().max()) ** 2
    zero = variances <= max(TINY * variances.sum(), rounding)
    if zero.any():
        named = ", ".join(source for source, is_zero in zip(SOURCES, zero, strict=True) if is_zero)
        notes.append(f"estimated as zero, the boundary: {named}")
    per_design = frame.groupby("design")["seed"].nunique()
    seeds = float(len(per_design) / (1 / per_design).sum())
    table = _table(frame, np.where(zero, 0.0, variances), zero, moments)
    return Components(table, frame["dataset"].nunique(), seeds, method, "; ".join(notes))


def _table(
    frame: pd.DataFrame, variances: np.ndarray, zero: np.ndarray, moments: np.ndarray | None
) -> pd.DataFrame:
    """One row per source, and one for the texts where their standard errors are known."""
    levels = [frame.groupby(names).ngroups for names in (LAYOUT[1:2], LAYOUT[:2], LAYOUT[::2])]
    table = pd.DataFrame(
        {
            "source": SOURCES,
            "variance": variances,
            "sd": np.sqrt(variances),
            "share": variances / variances.sum() if variances.any() else 0.0,
            "n": [*levels, len(frame)],
            "boundary": zero,
            "anova": np.full(len(SOURCES), np.nan) if moments is None else moments,
        }
    )
    if "text_se" in frame.columns:
        text = float((frame["text_se"].astype(float) ** 2).mean())
        row = ["text", text, np.sqrt(text), np.nan, len(frame), text == 0, np.nan]
        table.loc[len(table)] = row
    return table


def _check(values: pd.DataFrame) -> None:
    for name in [*LAYOUT, "value"]:
        if name not in values.columns:
            raise LookupError(unknown("column", name, map(str, values.columns)))
    numbers = values[[name for name in ("value", "text_se") if name in values]].astype(float)
    bad = values[LAYOUT].isna().any(axis=1) | ~np.isfinite(numbers).all(axis=1)
    if bad.any():
        at = int(bad.to_numpy().argmax())
        raise ValueError(f"row {at} of {len(values)} has a hole: {values.iloc[at].to_dict()}")
    repeated = values.duplicated(LAYOUT)
    if repeated.any():
        row = values.loc[repeated, LAYOUT].iloc[0].to_dict()
        raise ValueError(f"two values for {row}: keep one metric and one split")
    counts = {
        "designs": values["design"].nunique(),
        "data sets": values["dataset"].nunique(),
        "seeds in every design": values.groupby("design")["seed"].nunique().min(),
        "data sets for every seed": values.groupby(["design", "seed"])["dataset"].nunique().min(),
    }
    short = {what: int(count) for what, count in counts.items() if not count >= 2}
    if short:
        raise ValueError(f"two or more wanted of each of {', '.join(counts)}; got {short}")
