"""Whether texts of one label are near each other: agreement of neighbours, against chance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.anisotropy import Rows
from lab.stats.jackknife import Jackknife

GROUPS = 20


def agreement(
    rows: Rows, labels: Sequence[str | None] | np.ndarray, k: int, rng: np.random.Generator
) -> dict[str, Jackknife]:
    """How often a neighbour has the label of its text: "agreement", "chance" and their "excess".

    The mean over labelled texts of the share of its k nearest labelled texts that have its label;
    of chance, the same for neighbours drawn at random among the others. Intervals are jackknives
    that leave out groups of texts drawn by ``rng``, as texts and as neighbours at once.

    Raises:
        ValueError: fewer than k + 2 labelled texts, fewer than two labels, or as many labels as
            texts.
    """
    names = pd.Series(list(labels), dtype=object)
    has = names.notna().to_numpy()
    codes = pd.factorize(names)[0]
    few, kinds = int(has.sum()), int(codes.max()) + 1
    if few < k + 2:
        raise ValueError(f"{k} neighbours of a labelled text need {k + 2} of them; there are {few}")
    if kinds < 2 or kinds == few:
        said = "one label only" if kinds < 2 else "another label each"
        raise ValueError(f"the {few} labelled texts have {said}, so there is nothing to agree on")
    count = min(GROUPS, few - k)
    place = np.full(len(rows), -1)
    place[has] = rng.permutation(few) % count
    kept = [has & (place != group) for group in range(count)]
    whole, left_out = _shares(rows, codes, has, k), [_shares(rows, codes, one, k) for one in kept]
    sizes = np.bincount(place[has], minlength=count)
    return {
        name: Jackknife(whole[at], np.array([one[at] for one in left_out]), sizes)
        for at, name in enumerate(("agreement", "chance", "excess"))
    }


def by_label(rows: Rows, labels: Sequence[str | None] | np.ndarray, k: int) -> pd.DataFrame:
    """One row a label: texts, agreement, chance, and the label that its neighbours have instead."""
    names = pd.Series(list(labels), dtype=object)
    has = names.notna().to_numpy()
    near, _ = rows.by_angle.among(has, k)
    own = names[has].to_numpy()
    theirs = names.to_numpy()[near]
    found = []
    for name in sorted(set(own)):
        neighbours = pd.Series(theirs[own == name].ravel())
        others = neighbours[neighbours != name].value_counts()
        size = int((own == name).sum())
        found.append(
            {
                "label": name,
                "texts": size,
                "agreement": float((neighbours == name).mean()),
                "chance": (size - 1) / (len(own) - 1),
                "most frequent other": str(others.index[0]) if len(others) else "",
            }
        )
    return pd.DataFrame(found)


def _shares(rows: Rows, codes: np.ndarray, keep: np.ndarray, k: int) -> np.ndarray:
    """(3,) agreement, chance, excess among the rows that are kept."""
    near, _ = rows.by_angle.among(keep, k)
    agreed = float((codes[near] == codes[keep][:, None]).mean())
    sizes = np.bincount(codes[keep])
    n = sizes.sum()
    chance = float((sizes * (sizes - 1)).sum() / (n * (n - 1)))
    return np.array([agreed, chance, agreed - chance])
