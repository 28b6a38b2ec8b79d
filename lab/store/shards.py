"""Files of hidden states: written whole or not at all, verified when read, mapped into memory.

A shard is a safetensors file with the states of some texts behind each other, the keys of these
texts and where each ends. Its name ends with the XXH3 of its bytes and so vouches for them: 128
bits, read and checked as fast as memory.
"""

import hashlib
import json
import math
import mmap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from xxhash import xxh3_128

from lab import atomic
from lab.store import PARTIAL, SUFFIX

KEY = hashlib.sha256().digest_size  # bytes of the key of a text
DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
}


class Place(NamedTuple):
    """Where the states of one text are: rows ``start`` to ``stop`` of a shard (row, dim)."""

    shard: Tensor
    start: int
    stop: int

    @property
    def states(self) -> Tensor:
        """(row, dim) a view of the shard, read from the disk when it is used."""
        return self.shard[self.start : self.stop]


class DamagedError(ValueError):
    """A shard is not as it was written."""


def packed(states: Mapping[bytes, Tensor]) -> tuple[str, bytes, dict[bytes, Place]]:
    """Name without address and bytes of a shard of these states (row, dim), and their places."""
    keys, rows = list(states), torch.cat(list(states.values()))
    stops = torch.tensor([len(one) for one in states.values()]).cumsum(0)
    joined = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, KEY)
    content = save({"keys": joined, "stops": stops, "states": rows})
    name = f"{xxh3_128(content).hexdigest()}{SUFFIX}"
    return name, content, _places(keys, stops, rows)


def read(file: Path, wanted: Collection[bytes]) -> dict[bytes, Place]:
    """The places of the wanted texts that a shard holds; a shard without any is not verified.

    Raises:
        FileNotFoundError: it is gone.
        DamagedError: it is not as it was written.
    """
    try:
        with safe_open(file, framework="np") as shard:
            joined = shard.get_tensor("keys").tobytes()
    except SafetensorError as error:
        raise DamagedError(str(error)) from error
    keys = [joined[at : at + KEY] for at in range(0, len(joined), KEY)]
    if not any(key in wanted for key in keys):
        return {}
    mapped = _verified(file)
    places = _places(keys, _tensor(mapped, "stops"), _tensor(mapped, "states"))
    return {key: place for key, place in places.items() if key in wanted}


def write(file: Path, content: bytes) -> None:
    """Write a shard beside its place, wait until it is on the disk, and move it there.

    Raises:
        OSError: it could not be written; nothing is left of it.
    """
    atomic.write(file, content, prefix=PARTIAL)


def _verified(file: Path) -> mmap.mmap:
    """A shard in memory; what is verified and what is read are one open file."""
    with file.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants to write
    if not file.stem.endswith(xxh3_128(mapped).hexdigest()):
        raise DamagedError("the hash of its bytes is not that in its name")
    return mapped


def _tensor(mapped: mmap.mmap, name: str) -> Tensor:
    """One tensor of a verified shard: safetensors itself opens a file by its name, and twice."""
    length = int.from_bytes(mapped[:8], "little")
    facts = json.loads(mapped[8 : 8 + length])[name]
    dtype, begin = DTYPES[facts["dtype"]], 8 + length + facts["data_offsets"][0]
    count = math.prod(facts["shape"])
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=begin).view(facts["shape"])


def _places(keys: Sequence[bytes], stops: Tensor, states: Tensor) -> dict[bytes, Place]:
    """The place of every text of a shard."""
    ends = stops.tolist()
    return {
        key: Place(states, start, stop)
        for key, start, stop in zip(keys, [0, *ends[:-1]], ends, strict=True)
    }
