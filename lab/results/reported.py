"""What papers report, as data, and whether our comparisons agree with its order.

``data/reported.csv`` holds one number a row with its source; ``provenance`` says how far to trust
it: C official code, P the paper's own text, I a table image of the official repository, S a
secondary source (a target, never a citation), M memory, N checked numerically.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from lab.paths import DATA
from lab.registry import unknown

SETTING = (
    "attention",
    "pooling",
    "layer_mix",
    "temperature",
    "extension",
    "sink",
    "template",
    "template_pooled",
    "repair",
)
CLAIM = ["paper", "source", "provenance", "model", "dataset", "metric", "better", "worse", "by"]
OUTCOMES = ("order holds", "order fails", "undecided", "not measured")


def reported(paper: str | None = None) -> pd.DataFrame:
    """The reported numbers of one paper, or all of them.

    Raises:
        LookupError: no number of that paper is recorded (with the nearest name).
    """
    text = ["paper", *SETTING, "model", "source", "provenance", "dataset", "metric", "scale_note"]
    numbers = pd.read_csv(DATA / "reported.csv", dtype=dict.fromkeys(text, "str"))
    if paper is None:
        return numbers
    if paper not in set(numbers["paper"]):
        raise LookupError(unknown("paper", paper, numbers["paper"].unique()))
    return numbers[numbers["paper"] == paper].reset_index(drop=True)


def setting(row: Mapping[str, object]) -> str:
    """The label of a setting, such as "causal / mean / last": what is not given is left out.

    Use it as the key in ``stats.compare_all``, so that a comparison finds its reported counterpart.
    """
    parts = [row.get(name) for name in SETTING]
    return " / ".join(str(part) for part in parts if part is not None and not pd.isna(part))


def claims(paper: str | None = None) -> pd.DataFrame:
    """Every ordering that the reported numbers contain: one row per pair of settings, better first.

    A pair shares paper, model, data set and metric, and both settings name attention and pooling.
    ``by``: the reported difference, in the unit of its paper.
    """
    numbers = reported(paper).dropna(subset=["attention", "pooling"])
    rows = []
    for _, group in numbers.groupby(["paper", "model", "dataset", "metric"], sort=False):
        labelled = [(setting(row), row) for row in group.to_dict("records")]
        for pair in combinations(labelled, 2):
            (worse, low), (better, high) = sorted(pair, key=lambda item: item[1]["value"])
            if better != worse and high["value"] != low["value"]:
                by = round(high["value"] - low["value"], 6)
                said = {what: _both(high[what], low[what]) for what in ("source", "provenance")}
                rows.append({**high, **said, "better": better, "worse": worse, "by": by})
    return pd.DataFrame(rows, columns=CLAIM)


def against_reported(comparisons: pd.DataFrame, paper: str | None = None) -> pd.DataFrame:
    """Each claim beside our comparisons of the same settings under the same metric.

    ``outcome``: "order holds" or "order fails" when our interval of better minus worse leaves out
    0, "undecided" when it does not, "not measured" without such a comparison. Numbers of another
    model and other data cannot match; their order is what a small reproduction can test. A claim
    about an average over tasks stands beside our comparison on each of our tasks.
    """
    ours: dict[tuple[str, ...], list[tuple[int, dict[str, Any]]]] = {}
    for row in comparisons.to_dict("records"):
        for metric in (row["metric"], "average"):
            ours.setdefault((metric, row["setting"], row["baseline"]), []).append((1, row))
            ours.setdefault((metric, row["baseline"], row["setting"]), []).append((-1, row))
    rows = []
    for claim in claims(paper).to_dict("records"):
        found = ours.get((claim["metric"], claim["better"], claim["worse"]), [])
        rows += [{**claim, **_verdict(sign, row)} for sign, row in found]
        if not found:
            rows.append({**claim, "outcome": "not measured"})
    measured = ["checkpoint", "measured_on", "difference", "low", "high", "p_holm"]
    return pd.DataFrame(rows, columns=[*CLAIM, *measured, "outcome"])


def against_gains(comparisons: pd.DataFrame, paper: str) -> pd.DataFrame:
    """Each gain that a paper reports beside each of our comparisons, which are of its change.

    For papers that state a difference and no setting (``metric`` "gain" in ``data/reported.csv``).
    The caller picks the comparisons that are of the paper's change: TempScale against no
    temperature, say. ``outcome`` goes by the sign of our unadjusted interval, as in
    :func:`against_reported`; ``p_holm``, which allows for the other comparisons, stands beside it.
    Theirs are other models and other data, so only the order can be tested.

    Raises:
        LookupError: the paper reports no gain.
    """
    numbers = reported(paper)
    numbers = numbers[numbers["metric"] == "gain"]
    if numbers.empty:
        raise LookupError(f"no gain of {paper} is recorded in data/reported.csv")
    about = ["paper", "arxiv", "source", "provenance", "model", "dataset", "value", "scale_note"]
    claimed = numbers[about].rename(columns={"value": "reported_gain"})
    rows = [
        {**claim, **_verdict(1, row), "bin": row["bin"], "setting": row["setting"]}
        for claim in claimed.to_dict("records")
        for row in comparisons.to_dict("records")
    ]
    measured = ["checkpoint", "measured_on", "bin", "setting", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=[*claimed.columns, *measured, "p_holm", "outcome"])


def _verdict(sign: int, row: Mapping[str, Any]) -> dict[str, object]:
    low, high = sorted([sign * row["low"], sign * row["high"]])
    outcome = "order holds" if low > 0 else "order fails" if high < 0 else "undecided"
    ours = {"checkpoint": row["checkpoint"], "measured_on": row["dataset"], "outcome": outcome}
    numbers = {"difference": sign * row["difference"], "low": low, "high": high}
    return {**ours, **numbers, "p_holm": row["p_holm"]}


def _both(first: str, second: str) -> str:
    return first if first == second else f"{first}; {second}"
