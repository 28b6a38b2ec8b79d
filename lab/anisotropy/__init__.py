"""Anisotropy: what there is to measure about the shape of a cloud of embeddings.

::

    rows (n, d), in memory, on disk or as a stream of chunks
      -> moments by group, a random sample of rows (one pass)           moments, stream
      -> measures: functions of moments, or of the sampled rows         spectrum, rows, neighbours
      -> tables: value, interval, what isotropic rows would show        report

Measures of pairs are in :mod:`lab.anisotropy.pairs`, those of the tokens inside texts in
:mod:`lab.anisotropy.tokens`.
"""

from lab.anisotropy.measure import MEASURES
from lab.anisotropy.moments import Moments
from lab.anisotropy.neighbours import k_occurrence
from lab.anisotropy.report import (
    FORMS,
    SampleSizeWarning,
    contributions_table,
    difference,
    measure,
    scan,
    spectrum_table,
    tabulate,
)
from lab.anisotropy.rows import Rows
from lab.anisotropy.spectrum import contributions, cumulative_variance
from lab.anisotropy.stream import Stream, chunks

__all__ = [
    "FORMS",
    "MEASURES",
    "Moments",
    "Rows",
    "SampleSizeWarning",
    "Stream",
    "chunks",
    "contributions",
    "contributions_table",
    "cumulative_variance",
    "difference",
    "k_occurrence",
    "measure",
    "scan",
    "spectrum_table",
    "tabulate",
]
