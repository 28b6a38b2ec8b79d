"""The numbers of a report as one tidy table: each with its interval, or why there is none."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab import results
from lab.anisotropy import Rows, measure
from lab.anisotropy.neighbours import hubness
from lab.report import labels
from lab.report.lengths import apart
from lab.stats.jackknife import Jackknife

if TYPE_CHECKING:
    from lab.report.health import Health

K = 10  # neighbours, as hubness is defined by
MEASURES = ["average_cosine", "isoscore_corrected", "participation_ratio_corrected", "hubness"]


def tidy(health: "Health") -> tuple[pd.DataFrame, dict[str, str]]:
    """The tidy results, one row a number; and what could not be measured, and why, by section."""
    about = {**health.of, "dataset": health.survey.path.name, "seed": health.seed}
    parts: dict[str, Callable[[Health], list[dict[str, Any]]]] = {
        "anisotropy": _anisotropy, "truncation": _truncation, "length": _length, "labels": _labels,
    }  # fmt: skip
    found, refused = [], {}
    for probe, part in parts.items():
        try:
            found += [{**about, "probe": probe, **row} for row in part(health)]
        except ValueError as error:  # one section less, and the report says why
            refused[probe] = str(error)
    return results.table(found), refused


def _anisotropy(health: "Health") -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corrected measures: few rows make intervals wide instead
        found = measure(health.vectors, MEASURES, seed=health.seed)
    names = {"measure": "metric", "form": "form", "value": "value", "low": "low", "high": "high"}
    wanted = found.rename(columns=names)[[*names.values(), "n", "dim"]]
    n, dim = int(found["n"].min()), health.vectors.shape[1]
    drawn = Rows(np.random.default_rng(health.seed).standard_normal((n, dim)))
    control = {"metric": "hubness_of_isotropic_rows", "value": hubness(drawn, drawn.all)}
    rows = [dict(zip(wanted.columns, one, strict=True)) for one in wanted.itertuples(index=False)]
    return [*rows, {**control, "n": n, "dim": dim}]


def _truncation(health: "Health") -> list[dict[str, Any]]:
    """The share of texts that lose their end; with an interval if they are a sample."""
    from statsmodels.stats.proportion import proportion_confint

    n, lost = len(health.cut), int((health.cut > 0).sum())
    row = {"metric": "truncated_share", "value": lost / n, "n": n, "truncated": lost}
    if health.survey.sampled:
        low, high = proportion_confint(lost, n, method="wilson")
        row |= {"low": float(low), "high": float(high)}
    unread = {
        "metric": "tokens_unread_share",
        "value": float(health.cut.sum() / health.tokens.sum()),
    }
    return [row, {**unread, "n": n}]


def _length(health: "Health") -> list[dict[str, Any]]:
    found = [
        {"metric": "average_cosine", "bin": name, **_with_interval(one)}
        for name, one in health.by_length.items()
    ]
    first, *_, last = health.by_length.items()
    grown = apart(last[1], first[1])
    return [*found, {"metric": "average_cosine_longest_minus_shortest", **grown}]


def _labels(health: "Health") -> list[dict[str, Any]]:
    if health.survey.label is None:
        raise ValueError("no column of labels was given")
    rng = np.random.default_rng(health.seed)
    found = labels.agreement(health.rows, health.survey.texts["label"], K, rng)
    return [{"metric": f"label_{name}", **_with_interval(one)} for name, one in found.items()]


def _with_interval(one: Jackknife) -> dict[str, Any]:
    low, high = map(float, one.interval())
    return {"value": float(one.value), "low": low, "high": high, "n": one.n}
