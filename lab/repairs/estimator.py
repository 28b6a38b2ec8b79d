"""What a repair is: a function that fits arrays to embeddings and one that applies them.

``@repair(apply)`` makes a scikit-learn transformer of the pair. All that was fitted is arrays, so
every repair is stored and restored the same way, without pickle.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from lab.registry import Registry
from lab.repairs.checks import check_rows, check_split

Arrays = dict[str, np.ndarray]
Estimate = Callable[..., Arrays]  # (rows, *, options) -> arrays; rows (n, d) float64, a copy
Apply = Callable[[np.ndarray, Arrays], np.ndarray]  # rows (n, d) float64, arrays -> (n, d')

CHUNK = 16_384  # rows in float64 at a time


@dataclass(frozen=True)
class FittedOn:
    """What a repair was fitted on: provenance that is stored with it.

    Attributes:
        split: "train", "dev" or "test".
        n: how many rows.
        d: how many dimensions.
        sha256: of the rows' bytes, row by row, in the type they were given in.
        unit_norm: whether every row had norm 1 (to 1e-4), as behind a Normalize module.
    """

    split: str
    n: int
    d: int
    sha256: str
    unit_norm: bool


class Repair(TransformerMixin, BaseEstimator):
    """A scikit-learn transformer of embeddings; ``@repair`` makes its subclasses.

    Attributes:
        arrays_: all that was fitted.
        fitted_on_: on what, as a :class:`FittedOn`.
        n_features_in_: dimensions that go in.
        n_features_out_: dimensions that come out.
    """

    _estimate: Estimate
    _apply: Apply
    arrays_: Arrays
    fitted_on_: FittedOn
    n_features_in_: int
    n_features_out_: int

    def __init__(self, **options: Any) -> None:
        raise TypeError("a repair is made by the functions in lab.repairs, e.g. whitening()")

    def fit(
        self, X: Any, y: object = None, *, split: str = "train", transductive: bool = False
    ) -> Self:
        """This repair, fitted on embeddings (n, d) of float32 or float64.

        Args:
            X: the embeddings.
            y: idle, as scikit-learn's pipelines want it.
            split: which split X is: "train", "dev" or "test"; kept in ``fitted_on_``.
            transductive: allow "test": the scores are then not those of unseen texts.

        Raises:
            ValueError: the test split without ``transductive``; fewer than two rows; NaN or
                infinity; an option that does not fit these rows; rows that the repair is
                undefined on.
            TypeError: integers or half precision.
            LookupError: an unknown split.
        """
        check_split(split, transductive)
        rows = check_rows(X)
        if len(rows) < 2:
            raise ValueError(
                f"{type(self).__name__} is fitted on two rows or more; got {len(rows)}"
            )
        arrays = type(self)._estimate(rows.astype(np.float64), **self.get_params(deep=False))
        norms = np.linalg.norm(rows, axis=1)
        self._take(
            arrays,
            FittedOn(
                split=split,
                n=len(rows),
                d=rows.shape[1],
                sha256=hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest(),
                unit_norm=bool((abs(norms - 1) < 1e-4).all()),
            ),
        )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The repaired embeddings (n, d) in the type of X, computed in float64.

        Raises:
            sklearn.exceptions.NotFittedError: not fitted yet.
            ValueError: another width than fitted; no row; NaN or infinity.
            TypeError: integers or half precision.
        """
        check_is_fitted(self, "arrays_")
        rows = check_rows(X, self.n_features_in_)
        repaired = np.empty((len(rows), self.n_features_out_), dtype=rows.dtype)
        for at in range(0, len(rows), CHUNK):
            chunk = rows[at : at + CHUNK].astype(np.float64)
            repaired[at : at + CHUNK] = type(self)._apply(chunk, self.arrays_)
        return repaired

    @property
    def label(self) -> str:
        """The name with the options that aren't its defaults: "whitening(components=64)"."""
        name, defaults = type(self).__name__, inspect.signature(type(self)).parameters
        options = self.get_params(deep=False).items()
        changed = [f"{key}={value}" for key, value in options if value != defaults[key].default]
        return f"{name}({', '.join(changed)})" if changed else name

    def _take(self, arrays: Arrays, fitted_on: FittedOn) -> None:
        """Be fitted: with these arrays, on this."""
        # One memory layout: products of other layouts differ in the last bit after reloading.
        self.arrays_ = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        self.fitted_on_ = fitted_on
        self.n_features_in_ = fitted_on.d
        self.n_features_out_ = type(self)._apply(np.zeros((1, fitted_on.d)), self.arrays_).shape[1]


REPAIRS: Registry[type[Repair]] = Registry("repair")


def repair(apply: Apply) -> Callable[[Estimate], type[Repair]]:
    """A decorator: a fit function becomes a registered :class:`Repair` of its name and docstring.

    Its keyword-only parameters become the options of the estimator, as scikit-learn reads them:
    from the signature of ``__init__``.
    """

    def register(estimate: Estimate) -> type[Repair]:
        parameters = inspect.signature(estimate).parameters.values()
        options = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
        signature = inspect.Signature(options)

        def __init__(self: Repair, **given: Any) -> None:  # noqa: N807
            bound = signature.bind(**given)
            bound.apply_defaults()
            for name, value in bound.arguments.items():
                setattr(self, name, value)

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        __init__.__signature__ = inspect.Signature([own, *options])  # type: ignore[attr-defined]
        body = {
            "__init__": __init__,
            "__doc__": estimate.__doc__,
            "__module__": estimate.__module__,
            "_estimate": staticmethod(estimate),
            "_apply": staticmethod(apply),
        }
        return REPAIRS(type(estimate.__name__, (Repair,), body))

    return register


def store(fitted: Repair) -> tuple[dict[str, Any], Arrays]:
    """What makes a fitted repair anew: facts that JSON can hold, and arrays.

    Raises:
        sklearn.exceptions.NotFittedError: not fitted yet.
    """
    check_is_fitted(fitted, "arrays_")
    options = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in fitted.get_params(deep=False).items()
    }
    facts = {"repair": type(fitted).__name__, "options": options}
    return {**facts, "fitted_on": asdict(fitted.fitted_on_)}, fitted.arrays_


def restore(facts: Mapping[str, Any], arrays: Arrays) -> Repair:
    """The fitted repair of :func:`store`.

    Raises:
        LookupError: no repair of that name.
    """
    fitted = REPAIRS[facts["repair"]](**facts["options"])
    fitted._take(arrays, FittedOn(**facts["fitted_on"]))
    return fitted
