"""What a report says first: one sentence for each question, with numbers and intervals.

A finding is "fine" or "look" where a test or a count decides it, else "measured": whether an
average cosine or a skewness is too large depends on what the embeddings are for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from lab.report.defects import KINDS
from lab.report.health import NEAR, PAIRS, Health
from lab.report.measures import K

FINE, LOOK, MEASURED = "fine", "look", "measured"


@dataclass(frozen=True)
class Finding:
    """An answer: to which question, whether one should look closer, and the sentence."""

    about: str
    state: str
    says: str


def findings(health: Health) -> list[Finding]:
    """One finding for each section of the report, in its order."""
    numbers = health.table.set_index(["probe", "metric"])
    return [_rows(health), *_measured(health, numbers)]


def _rows(health: Health) -> Finding:
    survey = health.survey
    table = survey.defects[survey.defects["kind"] != "file"]
    bad = table[~table["kind"].isin([k for k, kind in KINDS.items() if kind.measured])]
    out = bad["row"].nunique()
    kinds = ", ".join(f"{n} {kind}" for kind, n in table["kind"].value_counts(sort=False).items())
    said = f"{survey.rows:,} rows, {survey.distinct:,} different texts that can be measured"
    if table.empty:
        return Finding("rows", FINE, f"{said}; nothing is wrong with any of them.")
    return Finding("rows", LOOK, f"{said}; {out:,} rows are left out. Defects: {kinds}.")


def _measured(health: Health, numbers: pd.DataFrame) -> Iterator[Finding]:
    sections = {
        "truncation": _truncation, "anisotropy": _anisotropy, "length": _length, "hubs": _hubs,
        "near duplicates": _near, "labels": _labels,
    }  # fmt: skip
    for about, section in sections.items():
        probe = "anisotropy" if about == "hubs" else about
        if probe in health.refused:
            if about != "labels" or health.survey.label is not None:
                yield Finding(about, LOOK, f"Not measured: {health.refused[probe]}.")
            continue
        state, says = section(health, numbers)
        yield Finding(about, state, says)


def _truncation(health: Health, numbers: pd.DataFrame) -> tuple[str, str]:
    share, lost = numbers.loc[("truncation", "truncated_share")], int((health.cut > 0).sum())
    limit = health.of["max_length"]
    if not lost:
        return FINE, f"No text is longer than the {limit} tokens that the model reads."
    unread = numbers.loc[("truncation", "tokens_unread_share"), "value"]
    return LOOK, (
        f"{lost:,} of {len(health.cut):,} texts ({_share(share)}) are longer than the {limit} "
        f"tokens that the model reads and lose their end: {unread:.1%} of all tokens are never "
        "seen."
    )


def _anisotropy(health: Health, numbers: pd.DataFrame) -> tuple[str, str]:
    cosine = numbers.loc[("anisotropy", "average_cosine")]
    rank = numbers.loc[("anisotropy", "participation_ratio_corrected")]
    return MEASURED, (
        f"Two texts have a cosine of {_number(cosine)} on average; 0 is isotropic. The variance is "
        f"spread over about {rank['value']:.0f} of {health.vectors.shape[1]} dimensions."
    )


def _length(health: Health, numbers: pd.DataFrame) -> tuple[str, str]:
    grown = numbers.loc[("length", "average_cosine_longest_minus_shortest")]
    first, *_, last = health.by_length
    change = (
        f"The mean cosine of two texts of {last} tokens minus that of two of {first} is "
        f"{_number(grown)}. Long and short texts may also differ in topic."
    )
    return (LOOK if grown["low"] > 0 or grown["high"] < 0 else FINE), change


def _hubs(health: Health, numbers: pd.DataFrame) -> tuple[str, str]:
    skew = numbers.loc[("anisotropy", "hubness")]
    control = numbers.loc[("anisotropy", "hubness_of_isotropic_rows"), "value"]
    worst = health.hubs(top=1).iloc[0]
    never = int((health.texts["times_a_neighbour"] == 0).sum())
    return MEASURED, (
        f"The skewness of k-occurrence is {_number(skew, 2)} (isotropic rows: {control:.2f}). The "
        f"largest hub, {worst['place']}, is among the {K} nearest of {worst['times']:,} texts; "
        f"{never:,} texts are among those of none."
    )


def _near(health: Health, numbers: pd.DataFrame) -> tuple[str, str]:
    found = len(health.near_duplicates)
    count = f"{found:,} or more" if found == PAIRS else f"{found:,}"
    said = f"{count} pairs of different texts have a cosine of {NEAR} or more."
    return (LOOK if found else FINE), said


def _labels(health: Health, numbers: pd.DataFrame) -> tuple[str, str]:
    share, chance = (numbers.loc[("labels", f"label_{name}")] for name in ("agreement", "chance"))
    excess = numbers.loc[("labels", "label_excess")]
    said = (
        f"Of the {K} nearest texts {_number(share, 2)} have the same label; drawn at random "
        f"{chance['value']:.2f} would."
    )
    return (FINE if excess["low"] > 0 else LOOK), said


def _number(row: pd.Series, digits: int = 3) -> str:
    return f"{row['value']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def _share(row: pd.Series) -> str:
    if pd.isna(row["low"]):
        return f"{row['value']:.1%}"
    return f"{row['value']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
