"""Build debian-synopsis, debian-sections and debian-sections-clusters from package descriptions.

    python data/build/debian.py --out data

Source: the package index of Debian 12 (bookworm) main and its English descriptions, as apt gets
them; the manifest names the point release. The same index gives the same bytes.
"""

import argparse
import json
import random
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import archive

from lab import atomic
from lab.data.sources import MANIFEST, record, store

N_CORPUS, N_TEST, N_DEV = 2500, 500, 300
SECTIONS = (
    "editors",
    "fonts",
    "games",
    "graphics",
    "mail",
    "math",
    "net",
    "science",
    "sound",
    "web",
)
PER_SECTION = {"train": 70, "dev": 20, "test": 50}
BOILERPLATE = re.compile(
    r"^(This|The) (meta)?packages? (contains?|provides?|installs?|includes?)\b"
)
LICENCE = {
    "licence": "free, per package: a description belongs to its package's packaging "
    "(LICENSES/debian.txt)",
    "licence_class": "free-mixed",
    "lang": "en",
}
NOTICE = """\
The texts of debian-synopsis, debian-sections and debian-pairs are descriptions of Debian packages.
Each is part of its package's packaging and under the licence of that package; all are in Debian
main and therefore free under the Debian Free Software Guidelines. There is no single licence. The
licence of a package is in the file /usr/share/doc/PACKAGE/copyright of the installed package; every
row here carries the name of its package in the field "id" or "package".

Index used: {stated}.
The index used for debian-pairs is named in manifest.json.
Changes made: paragraphs that only say what the binary package contains were removed, lines were
joined into paragraphs; of debian-pairs only the first sentences were kept.
"""


def body(lines: str) -> str:
    """The long description as paragraphs, one a line, without packaging boilerplate."""
    paragraphs, current = [], []
    for line in [*lines.splitlines()[1:], " ."]:
        if line.strip() == ".":
            paragraphs.append(" ".join(current))
            current = []
        else:
            current.append(line.strip())
    kept = [re.sub(r"\s+", " ", p) for p in paragraphs if p and not BOILERPLATE.match(p)]
    return "\n".join(kept)


def descriptions(packages: list[dict], english: list[dict]) -> list[dict]:
    """One package per source package, with a body of 25 to 300 words that nobody else has.

    The synopsis is unique too and occurs neither in its body nor, being the query, as a part of it.
    """
    bodies = {(e["Package"], e["Description-md5"]): e["Description-en"] for e in english}
    by_source: dict[str, dict] = {}
    for package in sorted(packages, key=lambda p: (len(p["Package"]), p["Package"])):
        source = package.get("Source", package["Package"]).split()[0]
        text = bodies.get((package["Package"], package.get("Description-md5", "")), "")
        row = {
            "package": package["Package"],
            "section": package["Section"].split("/")[-1],
            "synopsis": re.sub(r"\s+", " ", package["Description"].splitlines()[0]).strip(),
            "body": body(text),
        }
        if source not in by_source and suitable(row):
            by_source[source] = row
    seen: set[str] = set()
    unique = []
    for _, row in sorted(by_source.items()):
        if row["synopsis"].lower() not in seen and row["body"] not in seen:
            seen |= {row["synopsis"].lower(), row["body"]}
            unique.append(row)
    return unique


def suitable(row: dict) -> bool:
    """Whether the synopsis says something and the body says it in other words, without links."""
    words = len(row["body"].split())
    named = row["synopsis"].lower() in row["body"].lower()
    linked = "://" in row["body"]
    return 25 <= words <= 300 and len(row["synopsis"].split()) >= 3 and not (named or linked)


def synopsis(rows: list[dict]) -> dict[str, list[dict]]:
    """Query = synopsis, document = long description; 800 queries, other documents distract."""
    corpus = [{"id": row["package"], "text": row["body"]} for row in rows]
    asked = rows[: N_TEST + N_DEV]
    queries = [{"id": f"q-{row['package']}", "text": row["synopsis"]} for row in asked]
    qrels = [{"query-id": q["id"], "corpus-id": q["id"][2:], "score": 1} for q in queries]
    corpus.sort(key=lambda row: row["id"])
    return {
        "corpus": corpus,
        "queries": queries,
        "qrels/test": qrels[:N_TEST],
        "qrels/dev": qrels[N_TEST:],
    }


def sections(rows: list[dict], rng: random.Random) -> dict[str, list[dict]]:
    """Text = synopsis and description, label = section; every section equally often."""
    by_section = defaultdict(list)
    for row in rows:
        by_section[row["section"]].append(row)
    tables: dict[str, list[dict]] = {split: [] for split in PER_SECTION}
    for section in SECTIONS:
        start = 0
        for split, n in PER_SECTION.items():
            chosen = by_section[section][start : start + n]
            if len(chosen) < n:
                raise ValueError(f"section {section} has too few packages for {PER_SECTION}")
            tables[split] += [
                {"text": f"{r['synopsis']}\n{r['body']}", "label": section, "package": r["package"]}
                for r in chosen
            ]
            start += n
    for table in tables.values():
        rng.shuffle(table)
    return tables


def build(out: Path, work: Path) -> None:
    """Write the sets and the licence note into ``out``; packages are unpacked below ``work``."""
    stated, packages, english = archive.indexes(work)
    rows, rng = descriptions(packages, english), random.Random(5)
    rng.shuffle(rows)
    (out / "LICENSES").mkdir(parents=True, exist_ok=True)
    atomic.write(out / "LICENSES/debian.txt", NOTICE.format(stated=stated))
    about = {"source": f"{stated}, English package descriptions", **LICENCE}
    labelled = sections(rows, rng)
    used = {row["package"] for table in labelled.values() for row in table}
    rest = [row for row in rows if row["package"] not in used][:N_CORPUS]

    note = "query = one-line synopsis, document = long description, which does not contain it; one "
    note += "package a source package; no package of debian-sections"
    entry = {"kind": "retrieval", "note": note, **about}
    store(out, "retrieval/debian-synopsis", entry, synopsis(rest))

    key = "classification/debian-sections"
    note = "label = archive section; text = synopsis and long description"
    entry = {"kind": "classification", "texts_in_two_splits": 0, "note": note, **about}
    store(out, key, entry, labelled)
    entry = json.loads((out / MANIFEST).read_text())["datasets"][key]
    alias = {**entry, "kind": "clustering", "note": "the files of debian-sections, to be clustered"}
    record(out, {"clustering/debian-sections-clusters": alias}, {})
    print(f"{len(rows)} usable descriptions")


def main() -> None:
    """Build into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        build(out, Path(work))


if __name__ == "__main__":
    main()
