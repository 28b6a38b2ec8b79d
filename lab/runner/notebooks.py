"""The path of a notebook that a person names."""

from pathlib import Path

from lab import paths
from lab.registry import unknown


def find(notebook: str) -> Path:
    """The path of a notebook given as a path, a number or a (beginning of a) name.

    Raises:
        ValueError: a number or name that fits more than one.
        LookupError: nothing fits (with the nearest name).
    """
    path = Path(notebook)
    if path.suffix or path.is_file():
        return path
    known = {file.stem: file for file in sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb"))}
    start = notebook.zfill(2) + "_" if notebook.isdigit() else notebook
    fitting = [stem for stem in known if stem == notebook] or [
        s for s in known if s.startswith(start)
    ]
    if len(fitting) > 1:
        raise ValueError(f"{notebook!r} fits {', '.join(fitting)}; give more of the name")
    if not fitting:
        raise LookupError(unknown("notebook", notebook, known))
    return known[fitting[0]]
