"""embedding-lab: change one thing in a text-embedding model, see what it does.

::

    texts                                                               lab.data
      -> encoder (attention mode, temperature, sink, template)          lab.models
      -> hidden states of every layer, one forward pass                 lab.readout
      -> token pooling x layer mix -> embeddings                        lab.pooling, lab.poolers
      -> measures of the space, repairs of it                           lab.anisotropy, lab.repairs
      -> probes -> scores -> intervals, paired tests                    lab.probes, lab.stats
      -> one tidy table, beside what papers report                      lab.results
      -> figures, runs, offline pages, crates                           lab.plotting, runner, export

    one run -> series of them, resumed, compared, verified              lab.series
    a setting under the hand, live and as frames                        lab.explore
    texts of one's own: defects by row, health of a model               lab.report
    some texts -> a corpus of any size, in shards                       lab.corpus
    what was computed before, found by content                          lab.store

``lab.grid`` scores every design of a model on a data set, ``lab.spaces`` measures, repairs and
scores some of them on several; ``lab.collapse`` asks how all this depends on the length of a text,
and ``lab.long_context`` what a model finds beyond its window. ``lab.training`` trains heads,
adapters and models, with ``lab.losses``; ``lab.study`` does so for every design of a study.

Importing ``lab`` imports nothing else of it: each module pulls in what it needs when it is needed.
"""

import os

# Without it the last digit of a matrix product depends on where in memory its operands lie, and a
# model that was saved and loaded gives other vectors (docs/decisions.md D53). MKL reads it once.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
