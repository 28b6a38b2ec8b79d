"""What is asked of a corpus, and what lies in its folder: one request and one corpus, for good."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lab import atomic
from lab.corpus.sources import Shard, Source, cut, find, survey, unchanged
from lab.registry import unknown

NAME, SETTINGS, LOCK = "plan.json", "settings.json", ".lock"
SHARDS, LEDGER, STATES = "shards", "ledger", "measures"
FORMAT = 1
CHOICES = {
    "on_bad": ("stop", "skip"),
    "store": ("float32", "float16"),
    "measures": ("all", "directions", "none"),
}


@dataclass(frozen=True)
class Request:
    """Everything that the content of the output depends on.

    Attributes:
        model: what ``lab.models.load`` takes.
        settings: options of ``lab.models.load`` other than the device.
        poolings: of the read-outs; empty, with ``layers``, for what ``model.encode`` returns.
        layers: hidden states (negative from the end) or names in ``LAYER_MIXES``.
        prompt: put before every text, as in ``encode``; default the model's own.
        text_column: where the texts are.
        id_column: where their ids are; without one an id is the row's number in the corpus.
        on_bad: ``stop`` at a row that cannot be embedded, or ``skip`` it and list it in the ledger.
        store: float32, or float16 for half the space and three decimal digits.
        shard_rows: rows of a shard.
        measures: of anisotropy, on the way: ``all``; ``directions``, which take O(d) instead of
            O(d^2) of memory and disk; or ``none``.
    """

    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    poolings: Sequence[str] = ()
    layers: Sequence[int | str] = ()
    prompt: str | None = None
    text_column: str = "text"
    id_column: str | None = None
    on_bad: str = "stop"
    store: str = "float32"
    shard_rows: int = 10_000
    measures: str = "all"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            LookupError: an unknown choice.
            ValueError: no row a shard; the device among the settings.
        """
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise LookupError(unknown(name, getattr(self, name), known))
        if self.shard_rows < 1:
            raise ValueError(f"a shard has one row or more; got {self.shard_rows}")
        if "device" in self.settings:
            raise ValueError("the device is none of the model's settings here; see Resources")


@dataclass(frozen=True)
class Plan:
    """A corpus cut into shards, and what is to be made of it in ``out``."""

    root: Path
    out: Path
    request: Request
    sources: Sequence[Source] = field(repr=False)

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards, in order."""
        return cut(self.sources, self.request.shard_rows)

    @property
    def rows(self) -> int:
        """Rows of the corpus, bad ones included."""
        return sum(source.rows for source in self.sources)

    @property
    def ids(self) -> str:
        """What the ids are: ``row``, ``int64`` or ``string``."""
        return next(source.ids for source in self.sources if source.rows)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the request and the corpus, by which a worker knows its plan again."""
        corpus = [(source.path, source.sha256) for source in self.sources]
        content = json.dumps([asdict(self.request), corpus], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def path(self, number: int) -> Path:
        """The file with the embeddings of a shard."""
        return self.out / SHARDS / f"{number:06d}.parquet"


def make(corpus: Path, out: Path, request: Request) -> Plan:
    """The plan for a corpus in ``out``, which is read if it is there and else written.

    One that no worker has accepted, say for a pooling that is not there, gives way to another.

    Raises:
        ValueError: ``out`` holds embeddings of something else (what differs), other files, or lies
            in the corpus; whatever is wrong with a file of the corpus.
        LookupError: a file without one of the columns.
    """
    root, files = find(corpus)
    if out.resolve().is_relative_to(corpus.resolve()):
        raise ValueError(f"{out} lies in the corpus {corpus}, where it would be read as a part")
    if out.exists() and (not out.is_dir() or (not (out / LOCK).exists() and any(out.iterdir()))):
        raise ValueError(f"{out} holds something else than embeddings; give an empty folder")
    columns = request.text_column, request.id_column, request.shard_rows
    for folder in (SHARDS, LEDGER, STATES):
        (out / folder).mkdir(parents=True, exist_ok=True)
    with locked(out):
        sources = _planned(out, root, files, request) or survey(root, files, *columns)
        plan = Plan(root, out, request, sources)
        content = {
            "format": FORMAT,
            "corpus": str(root.resolve()),
            "request": asdict(request),
            "sources": [asdict(source) for source in sources],
        }
        atomic.write(out / NAME, json.dumps(content) + "\n")
    return plan


def read(out: Path, root: Path | None = None) -> Plan:
    """The plan that lies in ``out``; ``root`` if the corpus has moved.

    Raises:
        ValueError: none is there, it is damaged, or of another format.
    """
    try:
        content = json.loads((out / NAME).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, wanted {FORMAT}")
        sources = [Source(**one) for one in content["sources"]]
        return Plan(root or Path(content["corpus"]), out, Request(**content["request"]), sources)
    except FileNotFoundError:
        raise ValueError(f"{out} has no {NAME}: nothing was embedded there") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{out / NAME} is damaged or not ours ({error}); move it away") from None


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """One process at a time writes what the whole folder shares."""
    with (out / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def taken(out: Path, root: Path, digest: str) -> Plan:
    """The plan that lies in ``out``, while it is still the one with this digest.

    Raises:
        ValueError: another process has begun otherwise; as :func:`read`.
    """
    plan = read(out, root)
    if plan.digest != digest:
        raise ValueError(f"another process has begun {out} otherwise; give another folder")
    return plan


def accept(plan: Plan, settings: Mapping[str, Any]) -> None:
    """Nothing; the folder is now for this plan and these settings, or was for the same before.

    Raises:
        ValueError: it is for something else; says what differs.
    """
    path = plan.out / SETTINGS
    with locked(plan.out):
        taken(plan.out, plan.root, plan.digest)
        if not path.exists():
            atomic.write(path, json.dumps(settings, indent=1) + "\n")
            return
    _check_same(plan.out, json.loads(path.read_text(encoding="utf-8")), settings)


def _check_same(out: Path, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if differing := _differences(*(json.loads(json.dumps(one)) for one in (known, wanted))):
        raise ValueError(f"{out} was begun otherwise: {differing}; give another folder")


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs, key by key, with the keys of an inner mapping by their own names."""
    found = []
    for key in sorted({*known, *wanted}):
        there, here = known.get(key), wanted.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            found += [inner] if (inner := _differences(there, here)) else []
        elif there != here:
            found.append(f"{key} was {there!r}, came {here!r}")
    return ", ".join(found)


def _planned(out: Path, root: Path, files: Sequence[Path], request: Request) -> list[Source] | None:
    """The sources of the plan that is there; None if none is, or another that no worker accepted.

    Raises:
        ValueError: one that was accepted is damaged, or of another request or corpus.
    """
    if not (out / NAME).exists():
        return None
    try:
        known = read(out, root)
        before = asdict(known.request)
        if (known.request.on_bad, request.on_bad) == ("stop", "skip"):
            before["on_bad"] = "skip"  # what is done has no bad row, so it is the same either way
        _check_same(out, before, asdict(request))
        return unchanged(out, root, files, known.sources)
    except ValueError:
        if (out / SETTINGS).exists():
            raise
        return None
