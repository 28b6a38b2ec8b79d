"""The shape of the whole cloud from what each shard's vectors add up to; nothing is read twice.

A shard leaves the state of a :class:`lab.anisotropy.Stream` beside its file. When all are done the
states are merged, in the order of the shards, so that the measures do not depend on who did what
when; the merged state stays, for further measures and paired differences, the others go. A state
that is missing or damaged is made again from the vectors of its shard.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab import atomic
from lab.anisotropy import MEASURES, Stream, state, tabulate
from lab.anisotropy.measure import ROWS
from lab.anisotropy.report import default_measures
from lab.corpus import output
from lab.corpus.plan import STATES, Plan


def of(vectors: np.ndarray, first: int, measures: str) -> Stream:
    """What the vectors (n, dim) of a shard add up to; ``first`` is the number of its first row.

    Rows are numbered on from there: where a shard left rows out the numbers after them shift
    within it, which only decides who falls into the sample and into which group.
    """
    stream = Stream(covariance=measures == "all", start=first)
    return stream.update(vectors.astype(np.float32, copy=False)) if len(vectors) else stream


def save(path: Path, streams: Mapping[str, Stream]) -> None:
    """Nothing; ``path`` holds the states of the streams."""
    arrays = {
        f"{column}/{name}": array
        for column, stream in streams.items()
        for name, array in state.taken(stream).items()
    }
    with atomic.replaced(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path, column: str) -> Stream:
    """The stream of one column that was saved in ``path``.

    Raises:
        FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError: it is not there, or damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        start = f"{column}/"
        names = [name for name in file.files if name.startswith(start)]
        return state.put({name.removeprefix(start): file[name] for name in names})


def state_path(plan: Plan, number: int) -> Path:
    """Where the state of a shard lies until all are merged."""
    return plan.out / STATES / f"{number:06d}.npz"


def merged_path(plan: Plan, column: str) -> Path:
    """Where the state of all shards lies once it is merged."""
    return plan.out / STATES / f"{column}.npz"


def merged(plan: Plan, column: str) -> Stream:
    """The stream of one column over all shards, which are done."""
    whole = Stream(covariance=plan.request.measures == "all")
    for shard in plan.shards:
        try:
            found = load(state_path(plan, shard.number), column)
        except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
            vectors = output.read(plan.path(shard.number), column)
            found = of(vectors, shard.first, plan.request.measures)
        whole.merge(found)
    return whole


def summarise(plan: Plan, columns: Sequence[str]) -> dict[str, Any]:
    """The measures of each column, or why there are none; the merged states are saved.

    One column is in memory at a time: groups x dim^2 x 8 bytes.

    Warns:
        SampleSizeWarning: no more rows than dimensions, for measures that depend on that.
    """
    found: dict[str, Any] = {"measures": {}, "refused": {}}
    for column in columns:
        stream = merged(plan, column)
        save(merged_path(plan, column), {column: stream})
        found["measures"][column], found["refused"][column] = _measured(stream)
    for shard in plan.shards:
        state_path(plan, shard.number).unlink(missing_ok=True)
    return found


def _measured(stream: Stream) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows of the table of measures, and why some are not in it.

    Measures of rows are asked one by one: each may refuse, two_nn where texts are repeated.
    """
    names = default_measures(stream)
    of_rows = [name for name in names if MEASURES[name].reads == ROWS]
    rows: list[dict[str, Any]] = []
    refused = {}
    for asked in ([name for name in names if name not in of_rows], *([one] for one in of_rows)):
        try:
            table = tabulate(stream, asked).astype(object)
        except ValueError as error:
            refused[", ".join(asked)] = str(error)
        else:
            rows += table.where(table.notna(), None).to_dict("records")
    return rows, refused
