"""Texts longer than a model was made for, without training: how they are read.

A setting names a method and L, the length in tokens up to which nothing changes: "grouped/512". To
add a method, add one :class:`Method` to ``EXTENSIONS``; the tests and the check at load apply by
themselves. The methods are those that LongEmbed compares (Zhu et al. 2024, arXiv:2404.12096). Its
scale is s = ceil(Lt / L) for a target length Lt, which its code takes from the padded batch for
grouped positions; here every text of n tokens has its own s = ceil(n / L): batch mates never
matter, and a text of at most L tokens is read as without an extension: bit for bit in a batch of
such texts, to rounding beside longer ones. Parallel windows are texts of their own to attention,
positions and a log-n temperature.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from lab.models import architecture, self_extend
from lab.models.moved_positions import (
    Inputs,
    grouped,
    interpolated,
    moved,
    ntk,
    recurrent,
    refuse_flash,
)
from lab.models.positions import LEARNED, ROTARY, follows_batch, rotary_modules, scheme
from lab.registry import Registry

ANY: frozenset[str] = frozenset()
NUMBER = frozenset("0123456789.")


@dataclass(frozen=True)
class Method:
    """A way to read texts of more than L tokens.

    Attributes:
        form: how a setting is written, "name/L/...", and what its numbers may be.
        takes: whether these numbers, L first, are possible; its parameters are the numbers.
        schemes: the position schemes that it can act on; empty: any model.
        around: what to do around a forward call, given model, mask (batch, seq), inputs and the
            numbers; yields the inputs of the call. None: the text is cut into parallel windows.
        refuse: raises if a model's attention can't be acted on.
        trial: numbers under which five tokens are read differently, to verify that it acts.
        neutral: numbers under which it acts and changes nothing, where there are some.
    """

    form: str
    takes: Callable[..., bool]
    schemes: frozenset[str] = ANY
    around: Callable[..., AbstractContextManager[Inputs]] | None = None
    refuse: Callable[[nn.Module], None] | None = None
    trial: tuple[float, ...] = (2,)
    neutral: tuple[float, ...] | None = None


EXTENSIONS: Registry[Method] = Registry("extension")


@dataclass(frozen=True)
class Extension:
    """A method with its numbers.

    Attributes:
        name: in ``EXTENSIONS``.
        numbers: L, and what else the method takes.
    """

    name: str
    numbers: tuple[float, ...]

    @classmethod
    def parse(cls, setting: str | None) -> "Extension | None":
        """Read a setting such as "grouped/512"; None is no extension.

        Raises:
            LookupError: no such method.
            ValueError: its numbers are not what it takes; more than one extension.
        """
        if setting is None:
            return None
        name, *parts = setting.split("/")
        method = EXTENSIONS[name]
        try:
            if not NUMBER.issuperset("".join(parts)):  # int takes "1_0" and " 12", too
                raise ValueError
            numbers = tuple(float(part) if "." in part else int(part) for part in parts)
            inspect.signature(method.takes).bind(*numbers)
            possible = all(map(math.isfinite, numbers)) and method.takes(*numbers)
        except (ValueError, TypeError):
            possible = False
        if not possible:
            raise ValueError(
                f"extension {setting!r} is not of the form {method.form}; one extension at a time, "
                "and L >= 2 is the length in tokens up to which nothing changes"
            )
        return cls(name, numbers)

    @property
    def method(self) -> Method:
        """What the extension does."""
        return EXTENSIONS[self.name]

    @property
    def length(self) -> int:
        """L, the length in tokens up to which nothing changes."""
        return int(self.numbers[0])

    @property
    def windows(self) -> bool:
        """Whether long texts are cut into parallel windows."""
        return self.method.around is None

    def most(self, model: nn.Module) -> int | None:
        """How many tokens a text may have; None: any number."""
        return None if self.windows else architecture.buffered_masks(model)


def check(model: nn.Module, extension: Extension) -> None:
    """Refuse what can't work on this model.

    Raises:
        ValueError: the wrong position scheme (says which extensions the model can take); L is more
            than its positions; frequencies that follow the batch; what ``method.refuse`` refuses.
    """
    method, name = extension.method, architecture.architecture(model)
    if method.schemes and (found := scheme(model)) not in method.schemes:
        able = [key for key, one in EXTENSIONS.items() if not one.schemes or found in one.schemes]
        raise ValueError(
            f"{name} has {found} positions and extension {extension.name!r} acts on "
            f"{' or '.join(sorted(method.schemes))} ones; {name} can take {', '.join(able)}"
        )
    if method.refuse:
        method.refuse(model)
    most = architecture.positions(model)
    if most is not None and extension.length > most:
        raise ValueError(f"{name} has {most} positions; L = {extension.length} is more than that")
    if method.schemes and any(map(follows_batch, rotary_modules(model))):
        raise ValueError(
            f"the rotary frequencies of {name} follow the longest text of a batch; only "
            "parallel windows can extend it"
        )


@contextmanager
def extended(
    model: nn.Module, extension: Extension | None, mask: Tensor, inputs: Inputs
) -> Iterator[Inputs]:
    """Around a forward call: the inputs to call the model with, so that the extension acts.

    Without a text of more than L tokens the call is untouched.

    Raises:
        ValueError: the attention backend gets moved positions wrong.
    """
    around = extension.method.around if extension else None
    if extension is None or around is None or int(mask.sum(-1).max()) <= extension.length:
        yield inputs
        return
    with around(model, mask, inputs, *extension.numbers) as changed:
        yield changed


# --- attention that groups what is far away ----------------------------------------------------


@contextmanager
def _self_extended(
    model: nn.Module, mask: Tensor, inputs: Inputs, original: int, group: int, window: int
) -> Iterator[Inputs]:
    with self_extend.self_extended(model, mask, length=original, group=group, window=window):
        yield inputs


# --- the registry ------------------------------------------------------------------------------


def _length(length: float) -> bool:
    return isinstance(length, int) and length >= 2


def _length_and_factor(length: float, factor: float = 1.0) -> bool:
    return _length(length) and factor > 0


def _length_group_window(length: float, group: float, window: float) -> bool:
    whole = isinstance(group, int) and isinstance(window, int)
    return _length(length) and whole and group >= 1 and 1 <= window < length


EXTENSIONS(Method("parallel-windows/L", _length), "parallel-windows")
for _place in (grouped, recurrent, interpolated):
    _method = Method(
        f"{_place.__name__}/L",
        _length,
        frozenset({ROTARY, LEARNED}),
        partial(moved, _place),
        refuse_flash,
    )
    EXTENSIONS(_method, _place.__name__)
EXTENSIONS(
    Method(
        "ntk/L or ntk/L/lambda with lambda > 0",
        _length_and_factor,
        frozenset({ROTARY}),
        ntk,
        trial=(2, 3),
        neutral=(2, 1),
    ),
    "ntk",
)
EXTENSIONS(
    Method(
        "self-extend/L/g/w with whole numbers g >= 1 and 1 <= w < L",
        _length_group_window,
        frozenset({ROTARY}),
        _self_extended,
        self_extend.refuse,
        trial=(2, 2, 1),
        neutral=(2, 1, 1),
    ),
    "self-extend",
)
