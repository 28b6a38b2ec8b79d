"""Registries: decorate to add, index to get; an unknown name says what there is."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar

T = TypeVar("T")


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for an unknown name: what was asked, what there is, and the nearest one."""
    have = sorted(known)
    near = get_close_matches(str(name), have, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no {kind} named {name!r}; have {', '.join(have)}{hint}"


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to objects, filled by decorating them.

    >>> POOLINGS = Registry("pooling")
    >>> @POOLINGS
    ... def mean(hidden, mask): ...
    >>> POOLINGS["mean"]
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def __call__(self, item: T, name: str | None = None) -> T:
        """Add ``item`` under its own ``__name__`` (or ``name``) and return it.

        Raises:
            ValueError: the name is taken.
        """
        key = name or item.__name__  # type: ignore[attr-defined]
        if key in self._items:
            raise ValueError(f"a {self.kind} named {key!r} is already registered")
        self._items[key] = item
        return item

    def named(self, name: str) -> Callable[[T], T]:
        """A decorator that adds under ``name`` instead of the function's own name."""
        return lambda item: self(item, name)

    def __getitem__(self, name: str) -> T:
        """The object called ``name``; LookupError lists the others and the nearest."""
        if name not in self._items:
            # LookupError, not KeyError: Python prints a KeyError's message in quotes.
            raise LookupError(unknown(self.kind, name, self._items))
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        """Whether something is registered under ``name``."""
        return isinstance(name, str) and name in self._items

    def __iter__(self) -> Iterator[str]:
        """Names in the order of registration."""
        return iter(self._items)

    def __len__(self) -> int:
        """How many are registered."""
        return len(self._items)
