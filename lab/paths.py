"""Where things are. Constants and look-ups only: importing this creates nothing."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"
RUNS = ROOT / "runs"


def cache() -> Path:
    """Folder for converted weights and the like: ``LAB_CACHE``, else the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LAB_CACHE") or Path(base) / "embedding-lab").expanduser().resolve()


def mirror() -> Path | None:
    """Folder of the local data mirror named by ``LAB_DATA``, or None when it is not set."""
    folder = os.environ.get("LAB_DATA")
    return Path(folder).expanduser().resolve() if folder else None
