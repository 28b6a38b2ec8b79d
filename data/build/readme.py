"""Write data/README.md from data/manifest.json: one row per file.

python data/build/readme.py --out data
"""

import argparse
import json
from pathlib import Path

from lab import atomic
from lab.data.sources import MANIFEST

BUILD = {  # by how the name starts; the first that fits
    "wordnet-pairs": "pairs.py",
    "debian-pairs": "pairs.py",
    "wordnet": "wordnet.py",
    "debian": "debian.py",
    "manpages": "manpages.py",
    "passkey": "passkey.py",
}
HEAD = """\
# Shipped data

Small real sets, so that everything runs without a network. `lab data` lists them together with the
sets of a local mirror (`LAB_DATA`) and of the Hugging Face hub; `lab.data.load(name, split)` reads
all three alike and checks every file against the sha256 in `manifest.json` before it is parsed.

## What there is

{sets}

`wordnet-similarity` is *taxonomy* similarity (Wu-Palmer, computed by the build script), not human
judgement: two words far apart in the hypernym graph may well be related for a reader.

## Format

`*.jsonl.gz` is gzip JSON Lines, one object a line, one file a split. sts: `sentence1`, `sentence2`,
`score`. pair_classification: `sentence1`, `sentence2`, `label`. classification and clustering:
`text`, `label`. pairs, which are to train on: `anchor`, `positive` and, in wordnet-pairs,
`negative`, with the `synset` or `package` they are from. retrieval is the BEIR layout: `corpus` and
`queries` (`id`, `text`) and `qrels/SPLIT.tsv` (`query-id`, `corpus-id`, `score`).
`debian-sections-clusters` reads the files of `debian-sections`. Man pages carry their copyright
lines in `notice`, packages their name.

## Rebuild

On Debian 12, in the project's environment; a script fetches its Debian package through apt into a
temporary folder and installs nothing. The same package gives the same bytes.

    python data/build/wordnet.py --out data       # package wordnet-base 1:3.0-37
    python data/build/debian.py --out data        # the current index of bookworm main
    python data/build/manpages.py --out data      # packages manpages, manpages-dev 6.03-2; groff
    python data/build/passkey.py --out data       # generated; --lengths for other lengths
    python data/build/pairs.py --out data         # wordnet-base and the index; after all of these
    python data/build/readme.py --out data        # this file

The package index moves with each point release of Debian, so `debian.py` and, for debian-pairs,
`pairs.py` give the same bytes only for the index named below. `pairs.py` takes no text that an
evaluation set of the folder holds, and leaves those sets as they are.

## Files

"""
COLUMNS = ("file", "data set", "origin", "licence", "rows", "bytes", "sha256", "rebuild")


def table(rows: list[tuple]) -> str:
    """A Markdown table; the first row is the header."""
    header, *body = ("| " + " | ".join(map(str, row)) + " |" for row in rows)
    return "\n".join([header, "|" + " --- |" * len(rows[0]), *body])


def main() -> None:
    """Write the page into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    sets: list[tuple] = [("name", "kind", "units", "what")]
    files: list[tuple] = [COLUMNS]
    for key, entry in manifest["datasets"].items():
        name = key.split("/")[-1]
        counts = {x.removeprefix("qrels/"): n for x, n in entry["splits"].items()}
        units = ", ".join(
            f"{x} {n['queries'] if isinstance(n, dict) else n}" for x, n in counts.items()
        )
        sets.append((name, entry["kind"], units, entry["note"]))
        for file in entry["files"]:
            if not file.startswith(f"{key}/"):
                continue  # a file of another set, listed there
            about = manifest["files"][file]
            script = next(script for start, script in BUILD.items() if name.startswith(start))
            files.append(
                (
                    f"`{file}`",
                    name,
                    entry["source"],
                    entry["licence"],
                    about["rows"],
                    about["bytes"],
                    f"`{about['sha256']}`",
                    f"`build/{script}`",
                )
            )
    page = HEAD.format(sets=table(sets)) + table(files) + "\n"
    atomic.write(out / "README.md", page)


if __name__ == "__main__":
    main()
