"""What a measure is: a function of moments, or of a sample of rows, that says what it reads.

To add one, write the function and decorate it (``@of_moments``, ``@of_directions``, ``@of_rows``);
it then has an interval, streams over any number of rows and stands in every table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from lab.registry import Registry

F = TypeVar("F", bound=Callable[..., float])

Isotropic = Callable[[int, int], float]

DIRECTIONS, MOMENTS, ROWS = "directions", "moments", "rows"


@dataclass(frozen=True)
class Measure:
    """A registered measure.

    Attributes:
        function: ``Moments -> float``, or ``(Rows, keep) -> float`` over the rows that a boolean
            mask ``keep`` (n,) leaves in.
        reads: "directions" (a part of the moments, in O(n d)), "moments" or "rows".
        form: what the definition does to the rows it is given: "as given", "unit-normed",
            "centred" or "uncentred".
        isotropic: ``(n, d) -> value`` that n rows of a perfectly isotropic space would show, where
            that is known in closed form.
        biased: with as few rows as dimensions the value says more of n than of the space.
        unit_only: undefined unless the rows are brought to unit norm first.
    """

    function: Callable[..., float]
    reads: str
    form: str
    isotropic: Isotropic | None = None
    biased: bool = False
    unit_only: bool = False

    @property
    def __name__(self) -> str:
        """The name it is registered under."""
        return self.function.__name__

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        """The docstring of the function."""
        return self.function.__doc__

    def __call__(self, *args: Any) -> float:
        """The value."""
        return self.function(*args)


MEASURES: Registry[Measure] = Registry("measure")


def of_moments(form: str, **about: Any) -> Callable[[F], F]:
    """A decorator that registers a function of :class:`lab.anisotropy.moments.Moments`."""
    return _register(MOMENTS, form, **about)


def of_directions(**about: Any) -> Callable[[F], F]:
    """A decorator that registers a function of the directions of unit-normed rows."""
    return _register(DIRECTIONS, "unit-normed", **about)


def of_rows(form: str, **about: Any) -> Callable[[F], F]:
    """A decorator that registers a function of :class:`lab.anisotropy.rows.Rows` and a mask."""
    return _register(ROWS, form, **about)


def _register(reads: str, form: str, **about: Any) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        MEASURES(Measure(function, reads, form, **about))
        return function

    return decorate
