"""Repairs of anisotropic embedding spaces: scikit-learn transformers fitted on train only.

>>> from lab.repairs import REPAIRS, whitening
>>> repair = whitening(components=256).fit(train)  # or REPAIRS["whitening"](components=256)
>>> repaired = repair.transform(test)
>>> from lab.repairs.module import attach
>>> model = attach(model, repair)  # still a SentenceTransformer: saves, loads, encodes

To add one, write a function ``(rows, *, options) -> arrays`` and decorate it with
``@repair(apply)``, where ``apply`` is ``affine`` if it is y = (x - mean) @ matrix; it then clones,
joins pipelines, is stored in a model and is tested (tests/test_repairs.py) by itself.
"""

from lab.repairs.affine import (
    affine,
    all_but_the_top,
    centring,
    none,
    rogue_dimension_removal,
    whitening,
    z_score,
)
from lab.repairs.clusters import cluster_removal
from lab.repairs.estimator import REPAIRS, FittedOn, Repair, repair, restore, store
from lab.repairs.flows import flow
from lab.repairs.ranks import quantile, rank

__all__ = [
    "REPAIRS",
    "FittedOn",
    "Repair",
    "affine",
    "all_but_the_top",
    "centring",
    "cluster_removal",
    "flow",
    "none",
    "quantile",
    "rank",
    "repair",
    "restore",
    "rogue_dimension_removal",
    "store",
    "whitening",
    "z_score",
]
