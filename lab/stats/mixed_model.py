"""Four variances of a table design x data set x seed: in closed form, and by REML.

value = design + dataset + design x dataset + seed within design + rest; designs are fixed.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd

LAYOUT = ["design", "dataset", "seed"]
SOURCES = ["dataset", "design x dataset", "seed", "seed x dataset"]
TERMS = {  # of the formula that statsmodels reads
    "dataset": "0 + C(dataset)",
    "design x dataset": "0 + C(design):C(dataset)",
    "seed": "0 + C(design):C(seed)",
}
ROUNDING = 1e-12  # of the values: a spread below it is none
SMALLEST = 1e-6  # of the spread: without a residual above it, there is no likelihood


def anova(frame: pd.DataFrame) -> np.ndarray | None:
    """The balanced analysis of variance, solved for the four variances; None if not balanced."""
    cells = frame.groupby(LAYOUT[:2], sort=False)["seed"].nunique()
    a, b = (frame[name].nunique() for name in ("design", "dataset"))
    r = int(cells.iloc[0])
    if len(cells) != a * b or (cells != r).any() or frame.groupby(LAYOUT[::2]).ngroups != a * r:
        return None
    y = frame.sort_values(LAYOUT)["value"].to_numpy(float).reshape(a, b, r)
    design, dataset = y.mean((1, 2), keepdims=True), y.mean((0, 2), keepdims=True)
    cell, model = y.mean(2, keepdims=True), y.mean(1, keepdims=True)
    mean = y.mean()
    of_dataset = a * r * ((dataset - mean) ** 2).sum() / (b - 1)
    of_cell = r * ((cell - design - dataset + mean) ** 2).sum() / ((a - 1) * (b - 1))
    of_model = b * ((model - design) ** 2).sum() / (a * (r - 1))
    rest = ((y - cell - model + design) ** 2).sum() / (a * (b - 1) * (r - 1))
    return np.array(
        [(of_dataset - of_cell) / (a * r), (of_cell - rest) / r, (of_model - rest) / b, rest]
    )


def reml(frame: pd.DataFrame, moments: np.ndarray | None) -> np.ndarray | None:
    """The four variances by REML; None where it has no solution: no residual, or no convergence.

    Powell's method from the moments: statsmodels' gradient methods stop up to 80 units of log
    likelihood short and say that they converged, wherever variances differ by orders of magnitude.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM

    within = frame["value"] - frame.groupby("design")["value"].transform("mean")
    scale = float(np.sqrt((within**2).mean()))
    if scale <= ROUNDING * frame["value"].abs().max() or (
        moments is not None and moments[-1] <= (SMALLEST * scale) ** 2
    ):
        return None
    model = MixedLM.from_formula(
        "y ~ C(design)",
        groups="group",
        re_formula="0",
        vc_formula=TERMS,
        data=frame.assign(y=frame["value"] / scale),
    )
    at = [SOURCES.index(name) for name in model.exog_vc.names]
    starts = [np.full(len(at), first) for first in (1.0, 0.1, 10.0)]
    if moments is not None:
        starts.insert(0, np.sqrt(np.maximum(moments[at] / moments[-1], 1e-3)))
    for start in starts:
        fitted = _fitted(model, start)
        if fitted is not None:
            found = np.full(len(SOURCES), fitted.scale)
            found[at] = fitted.vcomp
            return found * scale**2
    return None


def _fitted(model: Any, start: np.ndarray) -> Any:
    """The fit from these standard deviations, in units of the residual's; None if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in `converged`, or is a boundary
        try:
            for _ in range(2):  # Powell's directions are drawn anew where the first round ended
                fitted = model.fit(start_params=start, reml=True, method="powell", ftol=1e-6)
                start = np.sqrt(fitted.vcomp / fitted.scale)
        except np.linalg.LinAlgError:
            return None
    return fitted if fitted.converged and np.isfinite(start).all() else None
