"""The figures of a report, as tables and as pictures."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lab import plotting, projections
from lab.anisotropy import k_occurrence
from lab.plotting import Saved
from lab.report.health import Health
from lab.report.measures import K

LENGTH_LABEL = "mean cosine of two texts"
LENGTH_ALT = (
    "Mean cosine between two texts of about the same length, one dot with its 95 % interval for "
    "each bin of tokens, from the shortest texts to the longest."
)
HUBS_LABEL = f"among the {K} nearest of so many texts"
HUBS_ALT = (
    "How many texts are among the ten nearest of how many others, one bar for each count, on a log "
    "scale: the further to the right, the more of a hub a text is."
)


def lengths(health: Health) -> pd.DataFrame:
    """One row a bin of tokens, shortest first: bin, value (mean cosine), low, high, n."""
    found = health.table
    rows = found[(found["probe"] == "length") & (found["metric"] == "average_cosine")]
    return rows[["bin", "value", "low", "high", "n"]].reset_index(drop=True)


def occurrences(health: Health, k: int = K) -> pd.DataFrame:
    """How many texts are a neighbour of so many others: times a neighbour, texts.

    Raises:
        ValueError: as :func:`lab.anisotropy.k_occurrence`.
    """
    times, texts = np.unique(k_occurrence(health.rows, k), return_counts=True)
    return pd.DataFrame({"times_a_neighbour": times, "texts": texts})


def points(health: Health) -> pd.DataFrame:
    """One row a text: x and y by PCA, log2 of its tokens, times a neighbour, label, text.

    The first two components alone: the share of the variance they hold is in ``attrs["share"]``.
    """
    rows = health.vectors - health.vectors.mean(0)
    at = projections.project(rows, "pca", seed=health.seed)
    texts = health.survey.texts
    at = at.assign(
        log2_tokens=np.log2(health.tokens).round(2),  # one very long text would take all colours
        times_a_neighbour=health.texts["times_a_neighbour"],
    )
    if health.survey.label is not None:
        at["label"] = texts["label"].fillna("(no label)").to_numpy()
    at["text"] = [f"row {n}: {text}" for n, text in zip(texts["row"], texts["text"], strict=True)]
    at.attrs["share"] = float(at[["x", "y"]].var(ddof=0).sum() / rows.var(0).sum())
    return at


def save(health: Health, folder: Path) -> list[Saved]:
    """The saved figures: cosine by length, where it could be measured, and k-occurrence."""
    plotting.use_style()
    found = []
    if len(table := lengths(health)):
        ax = plotting.scores(table, rows="bin", label=LENGTH_LABEL, rows_label="tokens")
        caption = "Mean cosine between texts of about the same length."
        found.append(_saved(ax, table, folder, "cosine_by_length", LENGTH_ALT, caption))
    table = occurrences(health)
    ax = plotting.bars(table, x="times_a_neighbour", value="texts", log=True, x_label=HUBS_LABEL)
    caption = f"k-occurrence, k = {K}."
    found.append(_saved(ax, table, folder, "hubs", HUBS_ALT, caption))
    return found


def _saved(ax: Axes, table: pd.DataFrame, folder: Path, name: str, alt: str, caption: str) -> Saved:
    figure = ax.get_figure(root=True)
    assert figure is not None  # axes that were just drawn have one
    return plotting.save(figure, table, folder, name, alt=alt, caption=caption)
