"""Build manpages: long documents (manual pages) found by their one-line description.

    python data/build/manpages.py --out data

Source: Debian packages manpages and manpages-dev 6.03-2 (Linux man-pages), rendered by groff. Only
pages under the Linux-man-pages-copyleft licence are taken; those under the GPL (whose source would
have to be shipped), the 4-clause BSD licence and others are left out. The rendering depends on the
version of groff (1.22.4 was used).
"""

import argparse
import os
import random
import re
import subprocess
import tempfile
from pathlib import Path

import archive

from lab import atomic
from lab.data.sources import store

VERSION = "6.03-2"
SECTIONS = ("2", "3", "4", "5", "7")
N_PAGES, N_TEST = 240, 160
WORDS = (150, 6000)
CUT = ("NAME", "SEE ALSO", "COLOPHON", "ATTRIBUTES")
SPDX = re.compile(r"SPDX-License-Identifier: (.*)")
NOTICE = """\
The texts of the data set manpages are pages of the Linux man-pages project, release 6.03, in the
Debian packages manpages and manpages-dev {version}. They were changed: rendered to plain text, and
the sections NAME, ATTRIBUTES, SEE ALSO and COLOPHON cut out. The copyright lines of each page are
in its field "notice". All are under the licence Linux-man-pages-copyleft:

{licence}
"""


def licence_text(copyright_file: Path) -> str:
    """The text of Linux-man-pages-copyleft from the package's copyright file."""
    text = copyright_file.read_text()
    block = re.search(r"\nLicense: Linux-man-pages-copyleft\n((?: .*\n?)+)", text)
    if block is None:
        raise ValueError(f"{copyright_file} holds no text of Linux-man-pages-copyleft")
    lines = (line[1:] for line in block[1].splitlines())
    return "\n".join("" if line == "." else line for line in lines)


def render(source: bytes) -> str:
    """The page as plain text; the lines are so long that none is justified or hyphenated."""
    command = ["groff", "-K", "utf8", "-t", "-man", "-Tutf8", "-P-cbou", "-rLL=2000n"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, input=source, capture_output=True, check=True, env=environment)
    return done.stdout.decode().translate({0x2010: "-", 0x2212: "-"})  # as they are typed


def parts(text: str) -> dict[str, str]:
    """Heading -> text below it; a heading starts in the first column in capitals."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines()[1:-1]:  # the first and the last line are the page's frame
        if re.match(r"[A-Z]", line):
            found[line.strip()] = []
        elif found:
            found[list(found)[-1]].append(line)
    return {heading: "\n".join(lines) for heading, lines in found.items()}


def flow(text: str) -> str:
    """White space squeezed: no indentation, runs of blanks and of empty lines to one."""
    squeezed = "\n".join(" ".join(line.split()) for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", squeezed).strip("\n")


def read_page(path: Path) -> dict | None:
    """The row of one page, or None if it is not to be shipped or has no one-line description."""
    source = archive.open_page(path)
    text = source.decode("utf-8", errors="replace")
    spdx = SPDX.findall(text)
    if source.startswith(b".so ") or spdx != ["Linux-man-pages-copyleft"]:
        return None
    sections = parts(render(source))
    _, dash, line = re.sub(r"\s+", " ", sections.get("NAME", "")).partition(" - ")
    document = "\n\n".join(f"{h}\n{flow(t)}" for h, t in sections.items() if h not in CUT)
    notice = [
        x.strip('.\\"; ')
        for x in text.splitlines()
        if re.search(r"copyright|\(c\)", x, re.I) and x.startswith(('.\\"', "'\\\""))
    ]
    if not dash or not WORDS[0] <= len(document.split()) <= WORDS[1] or not notice:
        return None
    return {
        "id": path.name.removesuffix(".gz"),
        "text": document,
        "query": line.strip(),
        "section": path.parent.name.removeprefix("man"),
        "notice": "; ".join(notice),
    }


def tables(pages: list[dict]) -> dict[str, list[dict]]:
    """Query = one-line description, document = the page without it."""
    kept = ("id", "text", "section", "notice")
    corpus = [{name: page[name] for name in kept} for page in pages]
    queries = [{"id": f"q-{page['id']}", "text": page["query"]} for page in pages]
    qrels = [{"query-id": q["id"], "corpus-id": q["id"][2:], "score": 1} for q in queries]
    corpus.sort(key=lambda row: row["id"])
    return {
        "corpus": corpus,
        "queries": queries,
        "qrels/test": qrels[:N_TEST],
        "qrels/dev": qrels[N_TEST:],
    }


def build(out: Path, work: Path) -> None:
    """Write the set and the licence into ``out``; packages are unpacked below ``work``."""
    roots = [archive.unpacked(name, VERSION, work) for name in ("manpages", "manpages-dev")]
    found = [root / f"usr/share/man/man{section}" for root in roots for section in SECTIONS]
    files = [path for folder in found for path in folder.glob("*.gz") if not path.is_symlink()]
    files.sort(key=lambda path: path.name)
    pages = [page for page in map(read_page, files) if page is not None]
    by_query: dict[str, list[dict]] = {}
    for page in pages:
        by_query.setdefault(page["query"].lower(), []).append(page)
    alone = [same[0] for same in by_query.values() if len(same) == 1]
    alone = [page for page in alone if page["query"].lower() not in page["text"].lower()]
    chosen = random.Random(7).sample(alone, N_PAGES)

    licence = licence_text(roots[0] / "usr/share/doc/manpages/copyright")
    notice = NOTICE.format(version=VERSION, licence=licence)
    (out / "LICENSES").mkdir(parents=True, exist_ok=True)
    atomic.write(out / "LICENSES/manpages.txt", notice)
    entry = {
        "kind": "retrieval",
        "source": f"Debian packages manpages and manpages-dev {VERSION} (Linux man-pages 6.03)",
        "licence": "Linux-man-pages-copyleft (LICENSES/manpages.txt)",
        "licence_class": "open",
        "lang": "en",
        "note": "query = one-line description of the NAME section, which is cut out of the page; "
        "field notice keeps the page's copyright lines",
    }
    store(out, "retrieval/manpages", entry, tables(chosen))
    print(f"{len(files)} files, {len(pages)} pages, {len(alone)} with a description of their own")


def main() -> None:
    """Build into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        build(out, Path(work))


if __name__ == "__main__":
    main()
