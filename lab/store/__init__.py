"""What was computed before and is kept: found by content, checksummed, bounded in size.

Two stores lie in the lab's cache (``LAB_CACHE``): ``states``, the hidden states that heads are
trained on (:mod:`lab.training.hidden_states`), and ``read-outs`` (:mod:`lab.store.reuse`). Whatever
is in them may be deleted at any time: it is computed again.
"""

import os
from pathlib import Path

from lab.paths import cache

STATES, READ_OUTS = "states", "read-outs"
SUFFIX = ".safetensors"
PARTIAL = ".partial-"
SWITCH = "LAB_REUSE"


def reusing(default: str = "0") -> bool:
    """Whether what was computed before is used: ``LAB_REUSE`` is 1.

    The runner sets it in every run, unless it is 0 where the run was started. Where nobody sets it,
    it is ``default``: read-outs are computed, stored hidden states are used.

    Raises:
        ValueError: it is something else than 0 or 1.
    """
    value = os.environ.get(SWITCH, default)
    if value not in ("0", "1"):
        raise ValueError(f"{SWITCH} is 1 (use what was computed before) or 0; got {value!r}")
    return value == "1"


def files(name: str) -> list[Path]:
    """The files of one of the stores in the lab's cache, unfinished ones too."""
    found = (cache() / name).glob("*")
    return sorted(f for f in found if f.suffix == SUFFIX or f.name.startswith(PARTIAL))
