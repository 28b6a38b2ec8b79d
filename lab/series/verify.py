"""A finished run done again elsewhere, and what came out differently."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab import manifest, runner
from lab.runner import claims, parameters
from lab.series import records

SHOWN = 5  # differing rows that are named


@dataclass(frozen=True)
class Verdict:
    """How the repetition ended, what was compared, what differs, what else has changed since."""

    run: runner.Run
    compared: list[str]
    differences: list[str]
    changed: list[str]


def verify(
    folder: Path, *, tolerance: float = 0.0, timeout: float | None = None,
    listen: runner.Listen | None = None,
) -> Verdict:  # fmt: skip
    """The verdict on a finished run: the same notebook, parameters and threads in a new folder.

    Compared are the tables: every Parquet file and the CSV of every figure. Numbers differ when
    they are further apart than ``tolerance``, absolute and relative; the default is exact. Nothing
    that an earlier run computed is used.

    Raises:
        ValueError: no finished run in ``folder``, its outputs are not what it wrote, its notebook
            is gone, or it left no table.
    """
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"a tolerance is 0 or positive and finite, came {tolerance}")
    content = manifest.read(folder)
    identity, outcome = content["identity"], content["outcome"]
    if outcome["state"] != "ok":
        raise ValueError(f"{folder} is {outcome['state']}, not ok: there is nothing to verify")
    if names := claims.damaged(folder, content):
        raise ValueError(f"{folder}: gone or not what the run wrote: {', '.join(names)}")
    tables = _tables(outcome)
    if not tables:
        raise ValueError(f"{folder} holds no table to compare")
    values = {name: entry["value"] for name, entry in identity["parameters"].items()}
    notebook = Path(identity["notebook"])
    with tempfile.TemporaryDirectory(prefix="lab-verify-") as scratch:
        run = runner.run(
            notebook, values, profile=parameters.PROFILE, out=Path(scratch), timeout=timeout,
            threads=content["environment"]["threads"], reuse=False, listen=listen,
        )  # fmt: skip
        again = manifest.read(run.folder)
        changed = records.differing(identity["hashed"], again["identity"]["hashed"])
        found = []
        if run.state == "ok":
            found = [d for name in tables for d in differences(folder, run.folder, name, tolerance)]
            more = [name for name in _tables(again["outcome"]) if name not in tables]
            found += [f"{name}: was not written before" for name in more]
    return Verdict(run, tables, found, changed)


def _tables(outcome: Mapping[str, Any]) -> list[str]:
    return [name for name in outcome["outputs"] if Path(name).suffix in (".parquet", ".csv")]


def differences(old: Path, new: Path, name: str, tolerance: float) -> list[str]:
    """What differs between two folders' tables of that name, one line each; nothing: equal."""
    if not (new / name).is_file():
        return [f"{name}: not written again"]
    before, after = (_read(folder / name) for folder in (old, new))
    if list(before.columns) != list(after.columns):
        return [f"{name}: columns {list(before.columns)} became {list(after.columns)}"]
    if len(before) != len(after):
        return [f"{name}: {len(before)} rows became {len(after)}"]
    lines = list(_cells(name, before, after, tolerance))
    more = [f"{name}: {len(lines) - SHOWN} more cells differ"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _cells(name: str, before: pd.DataFrame, after: pd.DataFrame, tolerance: float) -> Iterator[str]:
    for column in before.columns:
        for at in np.flatnonzero(~_equal(before[column], after[column], tolerance)):
            row = _row(before.iloc[at].to_dict())
            was, now = before[column].iloc[at], after[column].iloc[at]
            yield f"{name} row {at}, {column}: {was} became {now} ({row})"


def _equal(before: pd.Series, after: pd.Series, tolerance: float) -> np.ndarray:
    both = before.isna() & after.isna()
    kinds = [pd.api.types.is_numeric_dtype(series) for series in (before, after)]
    if all(kinds) and tolerance:
        a, b = (series.to_numpy(dtype=float, na_value=np.nan) for series in (before, after))
        same = np.isclose(a, b, rtol=tolerance, atol=tolerance)
    else:  # exactly, so not as floats: these cannot tell large whole numbers apart
        same = (before.astype(object) == after.astype(object)).fillna(False).to_numpy(dtype=bool)
    return same | both.to_numpy()


def _row(cells: Mapping[Any, Any]) -> str:
    """What names a row: its texts."""
    return ", ".join(f"{name} {value}" for name, value in cells.items() if isinstance(value, str))


def _read(path: Path) -> pd.DataFrame:
    """Every column of the file, an index that was stored too; "NA" in a CSV is a text."""
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    import pyarrow.parquet as pq

    table = pq.read_table(path).to_pandas(ignore_metadata=True)
    lists = [name for name in table if isinstance(_first(table[name]), np.ndarray)]
    return table.assign(**{name: table[name].map(_listed) for name in lists})


def _first(column: pd.Series) -> Any:
    return next(iter(column.dropna()), None)


def _listed(cell: Any) -> Any:
    """A list as text, digit for digit: arrays have no single answer to being equal."""
    return str(cell.tolist()) if isinstance(cell, np.ndarray) else cell
