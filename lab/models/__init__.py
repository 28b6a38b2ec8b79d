"""Models: one way to load them, and what can be changed about their attention.

:func:`load`, :func:`variant`, :func:`settings`, :func:`listing` and :class:`EmbeddingModel` come
from :mod:`lab.models.loading`; they are looked up when first used, because that module imports
torch and this package must not (``lab doctor`` asks it which weights are installed).
"""

from typing import Any

__all__ = ["EmbeddingModel", "listing", "load", "settings", "variant"]


def __getattr__(name: str) -> Any:
    """A public name of :mod:`lab.models.loading`."""
    if name in __all__:
        from lab.models import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
