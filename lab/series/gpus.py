"""The GPUs of this machine, handed out among the runs on it: whole ones, or shares of one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from lab import manifest, runner

WHOLE = 10_000  # parts of a GPU; Ray counts in the same
LOOK = 0.2  # seconds between two looks for a signal


class Gpus:
    """What is free of each GPU that this process sees; looked up when the first run asks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    @cached_property
    def _free(self) -> dict[str, int]:
        return dict.fromkeys(manifest.visible_gpus(), WHOLE)

    @contextmanager
    def taken(self, gpus: float, told: runner.Told) -> Iterator[str | None]:
        """The CUDA_VISIBLE_DEVICES of a run, once there is room for it; None for one without GPUs.

        A run that was told to stop while it waits gets none.

        Raises:
            ValueError: more GPUs than there are.
        """
        if not gpus:
            yield None
            return
        with self._changed:
            if gpus > len(self._free):
                raise ValueError(
                    f"the run asks for {gpus:g} GPUs, this machine shows {len(self._free)}; run it "
                    "on one that has them, or set `gpus: 0` for a run on the CPU"
                )
            while not (names := self._room(gpus)) and not told():
                self._changed.wait(LOOK)
            self._add(names, -gpus)
        try:
            yield ",".join(names)
        finally:
            with self._changed:
                self._add(names, gpus)
                self._changed.notify_all()

    def _room(self, gpus: float) -> list[str]:
        """The GPUs that a run can have now; a share is of the fullest one that has room for it."""
        share = _parts(min(gpus, 1.0))
        fit = sorted(
            (name for name, free in self._free.items() if free >= share), key=self._free.__getitem__
        )
        wanted = max(1, int(gpus))
        return fit[:wanted] if len(fit) >= wanted else []

    def _add(self, names: list[str], gpus: float) -> None:
        for name in names:
            self._free[name] += _parts(gpus / len(names))


def _parts(gpus: float) -> int:
    return round(gpus * WHOLE)
