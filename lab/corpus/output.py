"""One Parquet file a shard: ids, counts and vectors, written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lab import atomic, manifest
from lab.corpus.rows import Rows

IDS = {"row": pa.int64(), "int64": pa.int64(), "string": pa.string()}
METADATA = b"lab"


def stored(vectors: np.ndarray, kind: str) -> np.ndarray:
    """The vectors in the type they are stored in.

    Raises:
        ValueError: a number is too large for float16.
    """
    with np.errstate(over="ignore"):
        cast = vectors.astype(kind, copy=False)
    if not np.isfinite(cast).all():
        raise ValueError(
            f"a vector holds {np.abs(vectors).max():.3g}, which is beyond {kind}; store float32"
        )
    return cast


def write(
    path: Path,
    rows: Rows,
    ids: str,
    vectors: Mapping[str, np.ndarray],
    lengths: np.ndarray,
    cut: np.ndarray,
    about: Mapping[str, Any],
) -> str:
    """The sha256 of the file written: ``id``, ``n_tokens``, ``truncated``, one column of vectors.

    Args:
        path: where it goes.
        rows: the texts that were embedded.
        ids: what their ids are.
        vectors: name -> (texts, dim) in the type that is stored.
        lengths: tokens of each text, special tokens included.
        cut: tokens that each text lost.
        about: goes into the metadata of the file, under ``lab``.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    columns = {
        "id": pa.array(rows.ids, IDS[ids]),
        "n_tokens": pa.array(lengths, pa.int32()),
        "truncated": pa.array(cut > 0),
        **{
            name: pa.FixedSizeListArray.from_arrays(pa.array(one.ravel()), one.shape[1])
            for name, one in vectors.items()
        },
    }
    metadata = {METADATA: json.dumps(about, sort_keys=True)}
    table = pa.table(columns).replace_schema_metadata(metadata)
    plain = {f"{name}.list.element": "none" for name in vectors}  # floats do not shrink
    packed = {name: "zstd" for name in ("id", "n_tokens", "truncated")}
    with atomic.replaced(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression={**packed, **plain},
            use_dictionary=["n_tokens"],
            write_statistics=["id", "n_tokens"],
        )
        return manifest.digest(temporary)


def read(path: Path, column: str) -> np.ndarray:
    """One column of vectors (texts, dim) of a shard's file, in the type that is stored."""
    found = pq.read_table(path, columns=[column])[column]
    width = found.type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in found.chunks]
    kind = found.type.value_type.to_pandas_dtype()
    return np.concatenate([np.empty(0, kind), *parts]).reshape(-1, width)
