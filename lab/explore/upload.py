"""A file that is handed to the kernel in pieces: one message holds ten million bytes at most."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anywidget import AnyWidget

from lab.explore.faces import Status

ESM = """
const PIECE = 1 << 20;
export default { render({ model, el }) {
  const input = document.createElement("input");
  input.type = "file";
  input.setAttribute("aria-label", "upload a file");
  input.onclick = () => { input.value = ""; };  // so that the same file can be chosen again
  let file = null;
  const send = async at => {
    const about = { name: file.name, size: file.size, at };
    try {
      const bytes = await file.slice(at, at + PIECE).arrayBuffer();
      model.send(about, undefined, [bytes]);
    } catch (error) {
      model.send({ ...about, wrong: String(error) });
    }
  };
  input.onchange = () => { file = input.files[0]; if (file) send(0); };
  const next = ({ at }) => { if (file) send(at); };
  model.on("msg:custom", next);
  el.append(input);
  return () => model.off("msg:custom", next);
} };
"""


class Upload(AnyWidget):
    """A button that takes a file; how far it has come stands in the status line.

    Args:
        status: where it is said what goes on, and what went wrong.
        place: where a file of that name is to be kept; a ValueError of it refuses the file.
        done: is called with the path once the file is there.
    """

    _esm = ESM

    def __init__(
        self, status: Status, place: Callable[[str], Path], done: Callable[[Path], None]
    ) -> None:
        super().__init__()
        self._status, self._place, self._done = status, place, done
        self.on_msg(self._take)

    def _take(self, _: Any, piece: dict[str, Any], buffers: Sequence[memoryview]) -> None:
        """One piece more; then the next one is asked for, or the file is whole."""
        name, size, at = Path(piece["name"]).name, piece["size"], piece["at"]
        here = 0
        with self._status.during(f"taking {name}"):
            if "wrong" in piece:
                raise OSError(f"the browser could not read {name}: {piece['wrong']}")
            path = self._place(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{name}.part")
            with part.open("ab" if at else "wb") as file:
                if file.tell() != at:  # of a file in whose place another was chosen
                    return
                file.writelines(buffers)
                here = file.tell()
            if here == size:
                part.replace(path)
        if self._status.failed:
            return
        if here < size:
            self._status.say(f"taking {name}: {here / size:.0%} of {size:,} bytes …")
            self.send({"at": here})
        else:
            self._done(path)
