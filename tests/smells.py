"""What is longer than usual: files, functions and notebook cells. To look at; nothing fails."""

import ast
import sys
from collections.abc import Iterator

from lab import reading
from lab.paths import NOTEBOOKS, ROOT

FILE, FUNCTION, CELL = 300, 40, 15  # lines
FOLDERS = ("lab", "tests", "benchmarks", "data/build")


def smells() -> Iterator[tuple[int, str]]:
    """Lines and place of everything above its size."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
            if (lines := len(text.splitlines())) > FILE:
                yield lines, f"{name}: file over {FILE}"
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    if (lines := node.end_lineno - node.lineno + 1) > FUNCTION:
                        yield lines, f"{name}:{node.lineno}: {node.name} over {FUNCTION}"
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in reading.load(path)["cells"]:
            lines = sum(bool(line.strip()) for line in reading.source(cell).splitlines())
            if cell["cell_type"] == "code" and lines > CELL:
                yield lines, f"{path.relative_to(ROOT)}: cell {cell.get('id')!r} over {CELL}"


if __name__ == "__main__":
    for lines, place in sorted(smells(), key=lambda smell: -smell[0]):
        sys.stdout.write(f"{lines:5}  {place}\n")
