"""A study: many designs trained the same way, evaluated on the same texts, and compared.

``data/studies/NAME.yaml`` says what to train, on what, how long and with which seeds
(``lab.study.plan``, read by ``lab.study.reading``); ``lab study NAME`` or ``study.run`` trains what
is not there yet, one file a cell (``lab.study.cells``); ``lab.study.record`` reads the files back
as scores with their units, so that every test pairs the same texts.
"""

from lab.study.cells import run
from lab.study.plan import Design, Study
from lab.study.reading import load, names
from lab.study.record import Record, read

__all__ = ["Design", "Record", "Study", "load", "names", "read", "run"]
