"""What a bench reads: lines of text, settings, and the passes of models over them, kept.

A pass gives every layer and every pooling at once, so a change of layer or pooling asks no model;
a change of model, attention, temperature, prompt or texts is a new pass, unless it was made before.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lab.models import EmbeddingModel
    from lab.readout import ReadOuts

MOST_LINES = 40  # more cells than a screen can show apart
KEPT = 2**30  # bytes of temporary disk for passes; the least recently used go first
NEEDED = 6  # passes that stay whatever they take: texts and pairs, now, at the start and before
TOGETHER = 16  # texts between two moves of the bar
Progress = Callable[[float], None]  # takes the share done


@dataclass(frozen=True)
class Setting:
    """One design of the bench; ``layer`` -1 is the last, whatever the model.

    Attributes:
        checkpoint: what ``models.load`` takes.
        attention: a name in ``lab.models.attention.MODES``.
        temperature: of the attention softmax; 1 is the model as it is.
        prompt: put before every text, such as an instruction; "prefix" attention needs one.
        layer: the hidden state that is pooled; 0 = embeddings.
        pooling: a name in ``lab.pooling.POOLINGS``.
    """

    checkpoint: str
    attention: str = "native"
    temperature: float = 1.0
    prompt: str = ""
    layer: int = -1
    pooling: str = "mean"

    @property
    def of_pass(self) -> tuple[str, str, float, str]:
        """What needs a pass of its own; layer and pooling are read out of any pass."""
        return self.checkpoint, self.attention, self.temperature, self.prompt

    def changes(self, start: "Setting") -> list[str]:
        """What differs from another setting: "pooling mean → last"."""
        names = [one.name for one in fields(self)]
        pairs = [(name, getattr(start, name), getattr(self, name)) for name in names]
        return [f"{name} {_shown(a)} → {_shown(b)}" for name, a, b in pairs if a != b]


def _shown(value: object) -> str:
    return "none" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def read_lines(pasted: str) -> list[str]:
    """The texts of a text box, one a line, stripped; blank lines are no texts.

    Raises:
        ValueError: fewer than two texts, more than MOST_LINES, or the same text twice (which).
    """
    numbered = [(at, line.strip()) for at, line in enumerate(pasted.splitlines(), 1)]
    texts = [(at, line) for at, line in numbered if line]
    if len(texts) < 2:
        came = "only one" if texts else "none"
        raise ValueError(
            f"similarity needs two sentences or more, one a line; there is {came}. Add a line"
        )
    if len(texts) > MOST_LINES:
        raise ValueError(
            f"{len(texts)} lines came and the bench shows {MOST_LINES} at most, so that each can "
            f"be told apart; delete {len(texts) - MOST_LINES}"
        )
    seen: dict[str, int] = {}
    for at, line in texts:
        if line in seen:
            raise ValueError(
                f"line {at} repeats line {seen[line]} ({line[:40]!r}); delete or change one of them"
            )
        seen[line] = at
    return list(seen)


@dataclass(frozen=True)
class Pass:
    """Every layer and pooling of some texts under one model.

    Attributes:
        states: hidden states, so the number of layers + 1.
        lengths: (texts,) tokens of each text, special tokens included, after any cut.
        cut: (texts,) tokens that each text lost at its end, longer than the model as it was.
    """

    states: int
    lengths: np.ndarray
    cut: np.ndarray
    _parts: "Sequence[ReadOuts]" = field(repr=False)

    @cached_property
    def size(self) -> int:
        """Bytes of temporary disk that it takes."""
        return sum(
            len(part.layers) * len(part.poolings) * part[part.layers[0], part.poolings[0]].nbytes
            for part in self._parts
        )

    def embeddings(self, setting: Setting) -> np.ndarray:
        """(texts, dim) under the layer and pooling of a setting.

        Raises:
            LookupError: there is no such layer or pooling.
        """
        return np.concatenate([part[setting.layer, setting.pooling] for part in self._parts])

    def too_long(self) -> list[str]:
        """One sentence for each text that was cut: which line, how long, against which limit."""
        return [
            f"Line {row + 1} has {self.lengths[row] + self.cut[row]} tokens, {self.cut[row]} more "
            f"than the {self.lengths[row]} that the model reads: its end is not seen."
            for row in np.flatnonzero(self.cut)
        ]


class Passes:
    """Models, and what they made of texts: the last passes, as many as KEPT bytes hold.

    Two threads may read: between two groups of texts a pass lets another one in, so that a short
    one need not wait for a long one.
    """

    def __init__(self) -> None:
        self._alone = RLock()
        self._models: dict[str, EmbeddingModel] = {}
        self._kept: OrderedDict[tuple, Pass] = OrderedDict()

    def model(self, setting: Setting) -> "EmbeddingModel":
        """The model of a setting; the weights of a checkpoint are in memory once.

        Raises:
            LookupError, ValueError: what this architecture cannot do, and what is possible.
            ModuleNotFoundError: weights that are not installed, with the command to get them.
        """
        from lab import models

        with self._alone:
            if setting.checkpoint not in self._models:
                self._models[setting.checkpoint] = models.load(setting.checkpoint)
            base = self._models[setting.checkpoint]
            if (setting.attention, setting.temperature) == ("native", 1.0):
                return base
            temperature = None if setting.temperature == 1 else setting.temperature
            return models.variant(base, attention=setting.attention, temperature=temperature)

    def loaded(self, setting: Setting) -> bool:
        """Whether its checkpoint is in memory already."""
        return setting.checkpoint in self._models

    def made(self, setting: Setting, texts: Sequence[str]) -> bool:
        """Whether this pass is kept, so that it takes no time."""
        return (setting.of_pass, tuple(texts)) in self._kept

    def read(self, setting: Setting, texts: Sequence[str], move: Progress | None = None) -> Pass:
        """The pass over texts under a setting, made now unless it is kept; ``move`` sees the share.

        Raises:
            ValueError: a text that cannot be embedded (which line), and as :meth:`model`.
        """
        key = (setting.of_pass, tuple(texts))
        made = self._kept.get(key) or self._run(setting, texts, move)
        self._kept.pop(key, None)
        self._kept[key] = made  # the most recently used, at the end
        while len(self._kept) > NEEDED and sum(one.size for one in [*self._kept.values()]) > KEPT:
            self._kept.popitem(last=False)
        return made

    def _run(self, setting: Setting, texts: Sequence[str], move: Progress | None) -> Pass:
        """One pass over texts, a few at a time, so that a bar can move."""
        model, parts = self.model(setting), []
        for at in range(0, len(texts), TOGETHER):
            if move:
                move(at / len(texts))
            with self._alone:
                parts.append(_read(model, texts[at : at + TOGETHER], setting.prompt, at))
        lengths, cut = (np.concatenate([getattr(p, n) for p in parts]) for n in ("lengths", "cut"))
        return Pass(parts[0].states, lengths, cut, parts)


def _read(model: "EmbeddingModel", group: Sequence[str], prompt: str, above: int) -> "ReadOuts":
    """The read-outs of a group of texts that has ``above`` texts above it."""
    from lab.models.texts import TextError, TruncationWarning
    from lab.readout import read_out

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # Pass.too_long says which
            return read_out(model, group, prompt=prompt or None, progress=False)
    except TextError as error:
        where = f"line {above + error.row + 1} ({error.text[:40]!r})"
        raise ValueError(f"{where} {error.why}") from None
