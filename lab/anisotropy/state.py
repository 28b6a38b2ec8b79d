"""A stream as named arrays and back, so that it can be stored and gone on with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lab.anisotropy.moments import Directions, Moments
from lab.anisotropy.stream import Stream


def taken(stream: Stream) -> dict[str, np.ndarray]:
    """A stream as named arrays; of a symmetric matrix the upper half."""
    options = [stream.covariance, len(stream.groups), stream.sample, stream.seed, stream.row]
    arrays = {
        "options": np.array(options, dtype=np.int64),
        "spans": np.array(stream._spans, dtype=np.int64).reshape(-1, 2),
        "keys": stream._keys,
        "numbers": stream._numbers,
    }
    if stream._kept is not None:
        arrays["kept"] = stream._kept
    for number, group in enumerate(stream.groups):
        if group is None:
            continue
        directions = group.directions
        found: dict[str, Any] = {
            "n": [directions.n, directions.zeros],
            "total": directions.total.cpu(),
            "squares": directions.squares.cpu(),
        }
        if isinstance(group, Moments):
            upper = torch.triu_indices(group.d, group.d)
            found |= {
                "mean": group.mean.cpu(),
                "scatter": group.scatter[upper[0], upper[1]].cpu(),
                "eps": group.eps,
            }
        arrays |= {f"{number}/{name}": np.asarray(one) for name, one in found.items()}
    return arrays


def put(arrays: Mapping[str, np.ndarray]) -> Stream:
    """The stream that :func:`taken` took apart."""
    covariance, groups, sample, seed, row = arrays["options"].tolist()
    stream = Stream(covariance=bool(covariance), groups=groups, sample=sample, seed=seed, start=row)
    stream._spans = [(int(first), int(last)) for first, last in arrays["spans"]]
    stream._keys, stream._numbers = arrays["keys"], arrays["numbers"]
    stream._kept = arrays.get("kept")
    for number in range(groups):
        if f"{number}/n" in arrays:
            start = f"{number}/"
            own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            stream.groups[number] = _group(own)
    return stream


def _group(arrays: Mapping[str, np.ndarray]) -> Moments | Directions:
    n, zeros = arrays["n"].tolist()
    total, squares = torch.from_numpy(arrays["total"]), torch.from_numpy(arrays["squares"])
    directions = Directions(n, total, squares, zeros)
    if "scatter" not in arrays:
        return directions
    mean = torch.from_numpy(arrays["mean"])
    scatter = torch.empty(len(mean), len(mean), dtype=torch.float64)
    row, column = torch.triu_indices(len(mean), len(mean))
    scatter[row, column] = scatter[column, row] = torch.from_numpy(arrays["scatter"])
    return Moments(n, mean, scatter, directions, float(arrays["eps"]))
