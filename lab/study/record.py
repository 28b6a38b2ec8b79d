"""The finished cells of a study as tables: scores, tests on texts, tests across data sets."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab import grid, results
from lab.grid import Cell
from lab.stats import Score, mean_over_seeds
from lab.study import stored
from lab.study.plan import Study
from lab.study.stored import Finished


@dataclass(frozen=True)
class Record:
    """What a study has measured so far.

    Attributes:
        study: the plan.
        finished: cells by (label, seed), in the order of the plan.
        missing: (label, seed) of cells that have not been run.
    """

    study: Study
    finished: dict[tuple[str, int], Finished]
    missing: list[tuple[str, int]]

    @property
    def cells(self) -> list[Cell]:
        """One cell per design, seed and data set, for ``grid.tabulate``."""
        return [_cell(one, name) for one in self.finished.values() for name in one.scores]

    @property
    def machines(self) -> list[str]:
        """The hardware that cells were trained on, each once."""
        return list(dict.fromkeys(_hardware(one.about) for one in self.finished.values()))

    @property
    def averaged(self) -> list[Cell]:
        """One cell per design and data set: the mean over seeds, units paired by text.

        Raises:
            ValueError: cells are missing, so that designs would have different numbers of seeds.
        """
        self._whole()
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.label, cell.settings["dataset"]), []).append(cell)
        return [
            Cell(
                {**cells[0].settings, "seed": self.study.data_seed},
                mean_over_seeds(self._repeated(label, [cell.score for cell in cells])),
                cells[0].last,
            )
            for (label, _), cells in groups.items()
        ]

    def _repeated(self, label: str, scores: list[Score]) -> list[Score]:
        """As many scores as there are seeds: an untrained design has one, the same under all."""
        trained = self.study.trains(self.study.design(label))
        return scores if trained else scores * len(self.study.seeds)

    def _whole(self) -> None:
        if self.missing:
            label, seed = self.missing[0]
            raise ValueError(
                f"{len(self.missing)} cells of {self.study.name} are missing, the first {label!r} "
                f"under seed {seed}; run the study again, it goes on"
            )

    def values(self, labels: Collection[str] | None = None) -> pd.DataFrame:
        """Columns design, dataset, seed, value, of all designs or of some: for the mixed model."""
        rows = [
            {"design": cell.label, "dataset": cell.settings["dataset"],
             "seed": cell.settings["seed"], "value": cell.score.value}
            for cell in self.cells if labels is None or cell.label in labels
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def means(self) -> pd.DataFrame:
        """Columns setting, dataset, value: means over seeds, for tests across data sets."""
        self._whole()
        table = self.values().groupby(["design", "dataset"], sort=False, as_index=False)["value"]
        return table.mean().rename(columns={"design": "setting"})

    def tests_on_texts(
        self, *, notebook: str, rng: np.random.Generator, resamples: int = 2000
    ) -> pd.DataFrame:
        """Every design against the baseline on each data set, paired by text, Holm per data set."""
        baseline = self.study.baseline
        return grid.contrast(
            self.averaged, baseline, notebook=notebook, rng=rng, resamples=resamples
        )

    def curves(self) -> pd.DataFrame:
        """Columns design, seed, step, loss, held_out_loss: the losses of every trained cell."""
        frames = [
            one.log.assign(design=label, seed=seed)
            for (label, seed), one in self.finished.items()
            if len(one.log)
        ]
        if not frames:
            raise ValueError("no cell of this study has been trained")
        return pd.concat(frames, ignore_index=True)

    def budgets(self) -> pd.DataFrame:
        """Columns design, parameters, steps, seconds, evaluation (in seconds): means.

        Seconds of training are those of the call that finished it.
        """
        rows = [
            {"design": label, **one.about["spent"]} for (label, _), one in self.finished.items()
        ]
        return pd.DataFrame(rows).groupby("design", sort=False, as_index=False).mean()


def _hardware(about: dict[str, Any]) -> str:
    gpus = ", ".join(gpu["name"] for gpu in about["machine"]["gpus"])
    return gpus if about["device"].startswith("cuda") else str(about["machine"]["cpu"])


def _cell(one: Finished, dataset: str) -> Cell:
    about = one.about
    place = {"split": about["splits"][dataset], "truncated": about["truncated"][dataset]}
    settings = {**about["columns"], **place, "dataset": dataset}
    return Cell(settings, one.scores[dataset], about["last"])


def read(study: Study, folder: Path | str) -> Record:
    """The cells of this study that the folder holds, whatever code and texts they were made with.

    No data set is opened, so that a record can be read where its data are not.

    Raises:
        ValueError: a damaged file; a file that holds another cell; no cell of this study at all.
    """
    finished, missing = {}, []
    for design, seed, settings in study.cells():
        path = stored.path_of(Path(folder), design.label, seed, settings)
        if not path.is_file():
            missing.append((design.label, seed))
            continue
        cell = stored.read(path)
        if cell.about["plan"] != settings:
            raise ValueError(f"{path} holds another cell than its name says; delete it")
        finished[design.label, seed] = cell
    if not finished:
        raise ValueError(
            f"{folder} holds no cell of the study {study.name} under these settings "
            f"({len(missing)} missing): lab study {study.name} --out {folder}"
        )
    return Record(study, finished, missing)


def as_reported(
    record: Record, *, notebook: str, rng: np.random.Generator, resamples: int = 2000
) -> pd.DataFrame:
    """Every pair of trained designs that papers report, under the names of ``data/reported.csv``.

    For ``results.against_reported``. Holm corrects within a data set and baseline. What a frozen
    backbone leaves untrained takes no part: against it, training would be compared, not a design.
    """
    study = record.study
    designs = [one for one in study.designs if one.reported and study.trains(one)]
    labels = [one.label for one in designs]
    tables = []
    for place, baseline in enumerate(labels[:-1]):
        cells = [cell for cell in record.averaged if cell.label in labels[place:]]
        tables.append(
            grid.contrast(cells, baseline, notebook=notebook, rng=rng, resamples=resamples)
        )
    found = pd.concat(tables, ignore_index=True)
    names = {one.label: one.reported for one in designs}
    columns = {name: found[name].map(names).astype("str") for name in ("setting", "baseline")}
    return results.validate(found.assign(**columns))
