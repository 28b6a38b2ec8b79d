"""What a repair asks of its rows, its options and its split, each with an exact error."""

from numbers import Integral
from typing import Any

import numpy as np

from lab.registry import unknown

SPLITS = ("train", "dev", "test")


def check_rows(X: Any, width: int | None = None) -> np.ndarray:
    """X as an array (n, d) of float32 or float64 with n, d >= 1, known to be finite.

    Raises:
        ValueError: not (n, d); another width; NaN or infinity (which row).
        TypeError: integers or half precision.
    """
    rows = np.asarray(X)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"embeddings are (n, d) with n, d >= 1; got shape {rows.shape}")
    if rows.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"embeddings are float32 or float64; got {rows.dtype}: integers are no embeddings and "
            "half precision keeps three digits; if these are embeddings, X.astype(np.float32)"
        )
    if width is not None and rows.shape[1] != width:
        raise ValueError(
            f"this repair was fitted on d = {width} dimensions; got d = {rows.shape[1]}: "
            "fit one on embeddings of this model"
        )
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(
            f"row {int(bad.argmax())} of {len(rows)} is not finite ({int(bad.sum())} such); "
            "mend or drop it"
        )
    return rows


def whole(option: str, value: object, most: int, why: str, least: int = 1) -> int:
    """``value`` as an int, once it is known to be one from ``least`` to ``most``.

    Raises:
        ValueError: it is not; ``why`` says where the bound comes from.
    """
    number = isinstance(value, Integral) and not isinstance(value, bool)
    if most < least:
        raise ValueError(f"{option} has no possible value with {why}")
    if not number or not least <= value <= most:  # type: ignore[operator]
        raise ValueError(
            f"{option} is a whole number from {least} to {most} with {why}; got {value!r}"
        )
    return int(value)  # type: ignore[call-overload]


def refuse_constant(rows: np.ndarray, what: str) -> None:
    """Nothing, if every dimension varies; ``what`` a constant one does not have.

    Raises:
        ValueError: a dimension has one value in all rows (which).
    """
    rounding = np.finfo(float).eps * np.abs(rows).max(axis=0)
    constant = np.flatnonzero(np.ptp(rows, axis=0) <= 4 * rounding)
    if len(constant):
        raise ValueError(
            f"dimension {constant[0]} has the value {rows[0, constant[0]]:g} in all {len(rows)} "
            f"rows ({len(constant)} such), so it has {what}; drop it before"
        )


def check_split(split: str, transductive: bool) -> None:
    """Nothing, if a repair may be fitted on this split.

    Raises:
        LookupError: there is no such split.
        ValueError: it is the test split, and nobody asked for that by name.
    """
    if split not in SPLITS:
        raise LookupError(unknown("split", split, SPLITS))
    if split == "test" and not transductive:
        raise ValueError(
            "a repair fitted on the test split has seen what it is judged on; fit it on train or "
            "dev, or ask for it by name: fit(X, split='test', transductive=True)"
        )
