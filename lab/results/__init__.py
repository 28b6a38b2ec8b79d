"""One tidy table of measurements, one of comparisons, and what papers report beside them.

A row is a measurement; what does not apply is empty. Schemas are fixed (names, order, types), files
are Parquet: the same table gives the same bytes, and a file is replaced whole or not at all.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab import atomic
from lab.registry import unknown
from lab.results.reported import against_gains, against_reported, claims, reported, setting

__all__ = [
    "COLUMNS",
    "COMPARISON_COLUMNS",
    "against_gains",
    "against_reported",
    "claims",
    "comparison_table",
    "load",
    "reported",
    "row",
    "save",
    "setting",
    "show",
    "table",
    "validate",
]

VERSION = "4"
TEXT, WHOLE, NUMBER = "str", "Int64", "float64"
KINDS: dict[str, tuple[type, ...]] = {TEXT: (str,), WHOLE: (int,), NUMBER: (int, float)}


@dataclass(frozen=True)
class Schema:
    """Columns with their types, which must be filled, and which number the interval is for."""

    name: str
    columns: Mapping[str, str]
    required: tuple[str, ...]
    centre: str
    measured: tuple[str, ...]

    @property
    def key(self) -> list[str]:
        """The columns that say what was measured; no two rows share all of them."""
        return [column for column in self.columns if column not in self.measured]


RESULTS = Schema(
    "results",
    {
        **dict.fromkeys(["notebook", "checkpoint", "attention", "temperature"], TEXT),
        **dict.fromkeys(["extension", "sink", "template", "template_pooled"], TEXT),
        **{"max_length": WHOLE, "layer": WHOLE, "pooling": TEXT, "layer_mix": TEXT},
        **dict.fromkeys(["repair", "design", "training", "dataset", "split"], TEXT),
        **{"bin": TEXT, "length": WHOLE, "position": NUMBER},
        **dict.fromkeys(["probe", "metric", "form"], TEXT),
        **dict.fromkeys(["value", "low", "high"], NUMBER),
        **dict.fromkeys(["n", "dim", "parameters", "truncated", "seed"], WHOLE),
    },
    required=("probe", "metric", "value"),
    centre="value",
    measured=("value", "low", "high", "n", "dim", "parameters", "truncated"),
)
COMPARISONS = Schema(
    "comparisons",
    {
        **dict.fromkeys(["notebook", "checkpoint", "dataset", "split", "bin"], TEXT),
        **dict.fromkeys(["probe", "metric", "setting", "baseline"], TEXT),
        **dict.fromkeys(["difference", "low", "high", "p", "p_holm", "p_min"], NUMBER),
        **{"test": TEXT, "effect": NUMBER, "n": WHOLE, "seed": WHOLE},
    },
    required=("metric", "setting", "baseline", "difference", "p"),
    centre="difference",
    measured=("difference", "low", "high", "p", "p_holm", "p_min", "test", "effect", "n"),
)
COLUMNS = list(RESULTS.columns)
COMPARISON_COLUMNS = list(COMPARISONS.columns)


def row(**values: object) -> dict[str, object]:
    """One measurement with every column of the schema; what is not given is empty.

    A temperature may be a number, one per layer or a name; it is kept as text: "0.8", "1 0.9".

    Raises:
        LookupError: no such column (with the nearest).
        ValueError: a value of another type than its column.
    """
    if isinstance(values.get("temperature"), Real | Sequence | np.ndarray):
        values["temperature"] = _temperature(values["temperature"])
    return _row(RESULTS, values)


def table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The validated results table of rows made by :func:`row`, in their order."""
    return validate(_frame(RESULTS, [row(**one) for one in rows]))


def comparison_table(
    compared: pd.DataFrame | Iterable[pd.DataFrame], **context: object
) -> pd.DataFrame:
    """The validated table of what ``stats.compare_all`` gave, with ``context`` in each row.

    ``context``: notebook, checkpoint, dataset, split, bin, seed. Correction for multiplicity is per
    ``compare_all``: comparisons of one question belong into one call.
    """
    frames = [compared] if isinstance(compared, pd.DataFrame) else list(compared)
    rows = [{**one, **context} for frame in frames for one in frame.to_dict("records")]
    return validate(_frame(COMPARISONS, [_row(COMPARISONS, one) for one in rows]))


def validate(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table, if it is one of ours and sound.

    Raises:
        ValueError: other columns, order or types; a required cell empty or a number not finite; an
            interval that misses its value; two rows for one measurement. The message names the row.
    """
    schema = _schema_of(frame)
    found = {name: str(dtype) for name, dtype in frame.dtypes.items()}
    for name, dtype in schema.columns.items():
        if found[name] != dtype:
            raise ValueError(f"column {name!r} must be {dtype}, got {found[name]}")
    for name in schema.required:
        _refuse(frame, frame[name].isna(), f"{name!r} is empty or NaN")
    _refuse(frame, np.isinf(frame[schema.centre]), f"{schema.centre!r} is infinite")
    centre, low, high = frame[schema.centre], frame["low"], frame["high"]
    _refuse(frame, low.isna() != high.isna(), "only one end of the interval is given")
    _refuse(frame, (low > centre) | (centre > high), f"the interval misses {schema.centre!r}")
    _refuse(frame, frame.duplicated(schema.key), "a row before it measures the same")
    return frame


def save(frame: pd.DataFrame, out_dir: str | Path, name: str = "results") -> Path:
    """The path of the validated table, written as ``out_dir/name.parquet``.

    Equal tables give equal bytes. The file is written beside its place and moved there when it is
    complete, so a failure leaves the previous file as it was.

    Raises:
        ValueError: the table is not valid.
        OSError: it could not be written, with the number of bytes wanted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema_of(validate(frame))
    arrow = {TEXT: pa.string(), WHOLE: pa.int64(), NUMBER: pa.float64()}
    fields = [pa.field(column, arrow[dtype]) for column, dtype in schema.columns.items()]
    metadata = {"lab.table": schema.name, "lab.version": VERSION}
    columns = [_plain_list(frame[column]) for column in schema.columns]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=pa.schema(fields, metadata=metadata)), buffer)
    path = Path(out_dir) / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, buffer.getvalue())
    return path


def load(path: str | Path) -> pd.DataFrame:
    """The validated table of a file that :func:`save` wrote; saving and loading is the identity.

    Raises:
        ValueError: not such a file, or one of another schema version.
    """
    import pyarrow.parquet as pq

    content = pq.read_table(path)
    metadata = {k.decode(): v.decode() for k, v in (content.schema.metadata or {}).items()}
    schemas = {schema.name: schema for schema in (RESULTS, COMPARISONS)}
    if metadata.get("lab.version") != VERSION or metadata.get("lab.table") not in schemas:
        raise ValueError(
            f"{path} holds table {metadata.get('lab.table')!r} of version "
            f"{metadata.get('lab.version')!r}; wanted {' or '.join(schemas)} of version "
            f"{VERSION!r}: run the notebook again, or read it with the code that wrote it"
        )
    schema = schemas[metadata["lab.table"]]
    rows = content.to_pylist()
    return validate(_frame(schema, rows))


def show(
    frame: pd.DataFrame,
    rows: str | Sequence[str],
    columns: str | Sequence[str],
    value: str | None = None,
    scale: float = 100,
    digits: int = 1,
) -> pd.DataFrame:
    """A small table to read: cells like "49.3 [47.1, 51.2]", times ``scale``, in the rows' order.

    Raises:
        LookupError: no such column.
        ValueError: several measurements for one cell; the message says in what they differ.
    """
    value = value or ("value" if "value" in frame else "difference")
    keys = [[names] if isinstance(names, str) else list(names) for names in (rows, columns)]
    for name in [*keys[0], *keys[1], value]:
        if name not in frame.columns:
            raise LookupError(unknown("column", name, frame.columns))
    both = keys[0] + keys[1]
    names = frame[both].astype(object).where(frame[both].notna(), "")
    repeated = names.duplicated(keep=False)
    if repeated.any():
        same = frame[repeated & (names == names[repeated].iloc[0]).all(axis=1)]
        differ = [name for name in frame.columns if len(same[name].unique()) > 1]
        raise ValueError(f"{len(same)} rows in one cell; keep one, they differ in {differ}")
    ends = [frame[end] if end in frame else frame[value] * np.nan for end in ("low", "high")]
    cells = [
        _cell([scale * number for number in numbers], digits)
        for numbers in zip(frame[value], *ends, strict=True)
    ]
    shown = names.assign(cell=cells).set_index(both)["cell"]
    return shown.unstack(keys[1], "", sort=False)  # noqa: PD010  a pivot would sort the names


def _cell(numbers: list[float], digits: int) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in numbers)
    return value if np.isnan(numbers[1]) else f"{value} [{low}, {high}]"


def _temperature(value: Any) -> str:
    if isinstance(value, str):
        return value
    return " ".join(f"{float(one):.12g}" for one in np.atleast_1d(np.asarray(value, dtype=float)))


def _row(schema: Schema, values: Mapping[str, object]) -> dict[str, object]:
    for name in values:
        if name not in schema.columns:
            raise LookupError(unknown(f"column of {schema.name}", name, schema.columns))
    typed = {}
    for name, dtype in schema.columns.items():
        value = values.get(name)
        value = value.item() if isinstance(value, np.generic) else value
        empty = value is None or value is pd.NA or (value != value and name not in schema.required)
        if not empty and (not isinstance(value, KINDS[dtype]) or isinstance(value, bool)):
            raise ValueError(f"column {name!r} holds {dtype}; got {value!r}, {type(value)}")
        typed[name] = None if empty else value
    return typed


def _frame(schema: Schema, rows: list[dict[str, Any]]) -> pd.DataFrame:
    columns = {
        name: pd.Series([one[name] for one in rows], dtype=dtype)
        for name, dtype in schema.columns.items()
    }
    return pd.DataFrame(columns)


def _schema_of(frame: pd.DataFrame) -> Schema:
    for schema in (RESULTS, COMPARISONS):
        if list(frame.columns) == list(schema.columns):
            return schema
    near = RESULTS if "value" in frame.columns else COMPARISONS
    missing = [name for name in near.columns if name not in frame.columns]
    extra = [name for name in frame.columns if name not in near.columns]
    raise ValueError(
        f"not the {near.name} table: missing {missing}, unexpected {extra}, or another order; "
        "make it with results.table(rows) or results.comparison_table(...)"
    )


def _refuse(frame: pd.DataFrame, bad: pd.Series, why: str) -> None:
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        filled = {name: value for name, value in frame.iloc[at].items() if pd.notna(value)}
        raise ValueError(f"row {at} of {len(frame)}: {why} ({int(bad.sum())} such row): {filled}")


def _plain_list(column: pd.Series) -> list[object]:
    return [None if pd.isna(value) else value for value in column.tolist()]
