"""Maps of the same points under several settings, each computed once, aligned to one another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Protocol

import numpy as np
import pandas as pd

from lab import projections
from lab.registry import unknown
from lab.repairs import REPAIRS
from lab.repairs.estimator import Repair

REPAIRS_SHOWN: Mapping[str, Callable[[], Repair]] = {
    "centring": REPAIRS["centring"],
    "all_but_the_top": REPAIRS["all_but_the_top"],
    "whitening": lambda: REPAIRS["whitening"](shrinkage="ledoit-wolf"),
}
NO_REPAIR = "none"
KEPT = 4  # spaces in memory
CHECKED = 500  # points that trustworthiness is estimated from while somebody waits


class Spaces(Protocol):
    """Embeddings of the same texts by layer and pooling: :class:`lab.readout.ReadOuts` is one."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers there are."""

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings there are."""

    def __getitem__(self, key: tuple[int, str]) -> np.ndarray:
        """The embeddings (texts, dim) of one layer and pooling."""


@dataclass(frozen=True)
class Setting:
    """What one map is of and how it is made."""

    layer: int
    pooling: str
    repair: str = NO_REPAIR
    projection: str = "umap"
    dimensions: int = 2
    seed: int = 0

    @property
    def space(self) -> str:
        """The space that is mapped, in words."""
        repaired = "" if self.repair == NO_REPAIR else f", {self.repair}"
        return f"layer {self.layer}, {self.pooling}{repaired}"

    @property
    def label(self) -> str:
        """All of it, in words."""
        return f"{self.space}; {self.projection}, seed {self.seed}"


class Maps:
    """Coordinates of chosen rows of some spaces, by setting; what was computed is kept.

    Several threads may ask: what one computes, the others wait for.

    Args:
        spaces: embeddings by layer and pooling.
        drawn: positions (m,) of the rows that are on the map.
        neighbours: k of trustworthiness and of agreement between seeds.
    """

    def __init__(self, spaces: Spaces, drawn: np.ndarray, neighbours: int = 10) -> None:
        self.spaces, self.drawn, self.neighbours = spaces, drawn, neighbours
        self._places: dict[Setting, pd.DataFrame] = {}
        self._faith: dict[tuple[Setting, int], pd.DataFrame] = {}
        self._rows: dict[tuple[int, str, str], tuple[Repair | None, np.ndarray]] = {}
        self._placing, self._repairing = Lock(), Lock()

    def made(self, setting: Setting) -> bool:
        """Whether the coordinates are there already, so that they take no time."""
        return setting in self._places

    def repaired(self, setting: Setting) -> tuple[Repair | None, np.ndarray]:
        """The repair, fitted on all rows of the space (there is no test here), and its rows (n, d).

        Those of the last four spaces are kept.

        Raises:
            LookupError: no such layer, pooling or repair. ValueError: what the repair refuses.
        """
        key = setting.layer, setting.pooling, setting.repair
        with self._repairing:
            if key not in self._rows:
                rows, fitted = self.spaces[setting.layer, setting.pooling], None
                if setting.repair != NO_REPAIR:
                    if setting.repair not in REPAIRS_SHOWN:
                        raise LookupError(unknown("repair", setting.repair, REPAIRS_SHOWN))
                    fitted = REPAIRS_SHOWN[setting.repair]().fit(rows)
                    rows = np.asarray(fitted.transform(rows), dtype=rows.dtype)
                if len(self._rows) >= KEPT:
                    self._rows.pop(next(iter(self._rows)))
                self._rows[key] = fitted, rows
            return self._rows[key]

    def coordinates(self, setting: Setting) -> pd.DataFrame:
        """x, y (and z) of every drawn row.

        Raises:
            LookupError, ValueError: as :meth:`repaired` and :func:`lab.projections.project`.
        """
        if setting in self._places:
            return self._places[setting]
        with self._placing:
            if setting not in self._places:
                rows = self.repaired(setting)[1][self.drawn]
                self._places[setting] = projections.project(
                    rows, setting.projection, seed=setting.seed, dimensions=setting.dimensions
                )
            return self._places[setting]

    def faithfulness(self, setting: Setting) -> pd.DataFrame:
        """Trustworthiness and continuity of one map, estimated from CHECKED points at most.

        Raises:
            ValueError: no more than twice as many points as neighbours.
        """
        key = setting, self.neighbours
        if key not in self._faith:
            self._faith[key] = projections.faithfulness(
                self.repaired(setting)[1][self.drawn], self.coordinates(setting),
                neighbours=self.neighbours, most=CHECKED, seed=setting.seed,
            )  # fmt: skip
        return self._faith[key]

    def aligned(self, settings: Sequence[Setting]) -> list[tuple[pd.DataFrame, float]]:
        """Every map turned onto the one before it, the first as it is; and the disparity of each.

        Raises:
            ValueError: maps of different dimensions, or with all points at one place.
        """
        done = [(self.coordinates(settings[0]), 0.0)]
        for setting in settings[1:]:
            done.append(projections.align(self.coordinates(setting), done[-1][0]))
        return done

    def uncertainty(
        self, setting: Setting, seeds: Sequence[int], say: Callable[[float], None] = lambda _: None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Faithfulness of the map under every seed, and the agreement of every pair of seeds.

        ``say`` is told the share done.
        """
        found, maps = [], {}
        for count, seed in enumerate(seeds, 1):
            one = replace(setting, seed=seed)
            maps[seed] = self.coordinates(one)
            found.append(self.faithfulness(one).assign(seed=seed))
            say(count / len(seeds))
        return pd.concat(found, ignore_index=True), projections.stability(maps, self.neighbours)
