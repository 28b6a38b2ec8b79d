"""One cell of a study as one Parquet file: the units of its scores, and how it came to be.

Units, not only values: any two cells can be paired text by text afterwards, on another machine,
years later. A file is written whole or not at all, so a file that is there is a finished cell.
"""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab import atomic
from lab.probes import SCORES
from lab.stats import Score
from lab.study.plan import Design

VERSION = "1"


@dataclass(frozen=True)
class Finished:
    """A trained and evaluated cell.

    Attributes:
        about: what was done: design, seed, identity, settings, parameters, seconds, machine.
        log: the loss by training step, empty where nothing was trained.
        scores: by data set.
    """

    about: dict[str, Any]
    log: pd.DataFrame
    scores: dict[str, Score]


@dataclass(frozen=True)
class Planned:
    """One design under one seed, and the file that it makes.

    Attributes:
        plan: digest of the settings, by which a record finds its cells.
        identity: digest of all that decides the numbers, by which a finished cell is left alone:
            settings, texts, weights, code and versions.
    """

    design: Design
    seed: int
    plan: str
    identity: str
    path: Path

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.design.label}, seed {self.seed}"

    def finished(self) -> bool:
        """Whether the file holds this very cell."""
        return identity_of(self.path) == self.identity


def path_of(folder: Path, label: str, seed: int, plan: str) -> Path:
    """Where a cell lies: a name for people, and the beginning of the digest of its plan."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    return folder / "cells" / f"{slug}-seed{seed}-{plan[:8]}.parquet"


def identity_of(path: Path) -> str | None:
    """The identity of the cell in a file, without reading its scores; None where there is none.

    Raises:
        ValueError: a damaged file, or none of this version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise _damaged(path, error) from None
    return str(json.loads(_metadata(path, schema)["about"])["identity"])


def write(path: Path, cell: Finished) -> None:
    """Nothing; the file is there when this returns, whole.

    Raises:
        OSError: it could not be written, with the number of bytes wanted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"dataset": name, "values": units.tolist()}
        for name, score in cell.scores.items()
        for units in score.units
    ]
    fields = [("dataset", pa.string()), ("values", pa.list_(pa.float64()))]
    about = {
        "lab.cell": VERSION,
        "about": json.dumps(cell.about, sort_keys=True, default=str),
        "log": cell.log.to_json(orient="split", double_precision=15),
        "probes": json.dumps({name: score.probe for name, score in cell.scores.items()}),
    }
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields, metadata=about))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, buffer.getvalue())


def read(path: Path) -> Finished:
    """The cell in a file that :func:`write` wrote.

    Raises:
        ValueError: no such file of this version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise _damaged(path, error) from None
    found = _metadata(path, table.schema)
    names = np.array(table.column("dataset").to_pylist())
    values = table.column("values").to_pylist()
    scores = {
        name: SCORES[probe](units=np.array([values[row] for row in np.flatnonzero(names == name)]))
        for name, probe in json.loads(found["probes"]).items()
    }
    log = pd.read_json(io.StringIO(found["log"]), orient="split", precise_float=True)
    return Finished(json.loads(found["about"]), log, scores)


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged ({error}); delete it and run the study again")


def _metadata(path: Path, schema: Any) -> dict[str, str]:
    found = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    if found.get("lab.cell") != VERSION:
        raise ValueError(
            f"{path} is no cell of version {VERSION} (got {found.get('lab.cell')}); delete it and "
            "run the study, or read it with the code that wrote it"
        )
    return found
