"""Build wordnet-pairs and debian-pairs: texts to train on, none of them in an evaluation set.

    python data/build/pairs.py --out data

Sources: those of wordnet.py and debian.py. The evaluation sets are read from the folder, so they
are built first; they stay as they are, whatever index the new pairs come from. The same package,
index and evaluation sets give the same bytes.
"""

import argparse
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import archive
import debian
import wordnet

from lab.data.sources import read_manifest, store

N_WORDNET = {"dev": 600, "train": 6000}  # in the order in which they are filled
N_DEBIAN = {"dev": 300, "train": 3000}
IN_CONTEXT, ALONE = 6, 1  # rows of one family: words shown in an example, words that stand alone
LEAD = 40  # words of a description, at most
SENTENCE_END = re.compile(r'(?<=[.!?])\s+(?=[A-Z0-9"(])|\n')


def normalised(text: str) -> str:
    """The text in lower case with single spaces: what counts as the same text."""
    return " ".join(text.lower().split())


def evaluated(out: Path) -> tuple[set[str], set[str]]:
    """Normalised texts of every set in ``out`` that is not of pairs, and their Debian packages.

    Of a text "word: definition" the two parts count as texts too.
    """
    texts, packages = set(), set()
    for source in read_manifest(out, "shipped"):
        if source.kind == "pairs":
            continue
        for name in (name for name in source.files if not name.startswith("qrels/")):
            table = source.read(name)
            for column in table.columns.intersection(["text", "sentence1", "sentence2"]):
                for text in table[column]:
                    texts |= {normalised(part) for part in (text, *text.split(": ", 1))}
            if "debian" in source.key:
                packages |= set(table["package" if "package" in table else "id"])
    return texts, packages


# WordNet ------------------------------------------------------------------------------------------


def families(synsets: dict[str, wordnet.Synset], held: set[str]) -> list[list[wordnet.Synset]]:
    """Synsets that share their first direct hypernym; each definition once and none of ``held``."""
    seen, under = set(held), defaultdict(list)
    for synset in synsets.values():
        text = normalised(synset.definition)
        if synset.parents and text not in seen and 4 <= len(text.split()) <= 40:
            seen.add(text)
            under[synset.parents[0]].append(synset)
    return [members for _, members in sorted(under.items()) if len(members) > 1]


def in_context(word: str, synset: wordnet.Synset) -> str | None:
    """The text "word: example", of the first example of 4 to 25 words that holds the word."""
    form = re.compile(rf"\b{word}(s|es|d|ed|ing)?\b")
    for text in synset.examples:
        if form.search(text.lower()) and 4 <= len(text.split()) <= 25:
            return f"{word}: {text}"
    return None


def anchors(members: list, senses: dict, held: set[str]) -> Iterator[tuple]:
    """(synset, word, anchor) of a few members: words in an example, or alone with one meaning."""
    shown, alone = [], []
    for synset in members:
        words = [w for w in synset.words if wordnet.clear(synset, w) and w not in held]
        texts = [(synset, w, text) for w in words if (text := in_context(w, synset))]
        shown += texts[:1]
        alone += [] if texts else [(synset, w, w) for w in words if senses[w][0] == 1][:1]
    yield from shown[:IN_CONTEXT]
    yield from alone[:ALONE]


def unlike(synset: wordnet.Synset, other: wordnet.Synset) -> bool:
    """Whether two synsets share no word and neither is the other's direct hypernym."""
    related = synset.key in other.parents or other.key in synset.parents
    return not related and not set(synset.words) & set(other.words)


def wordnet_pairs(synsets: dict, senses: dict, held: set[str]) -> dict[str, list[dict]]:
    """A word against its definition, and that of a co-hyponym; a family and a word in one split."""
    rng, tables, asked = random.Random(11), {split: [] for split in N_WORDNET}, {}
    groups = families(synsets, held)
    rng.shuffle(groups)
    for members in groups:
        split = next((s for s, n in N_WORDNET.items() if len(tables[s]) < n), None)
        if split is None:
            break
        rng.shuffle(members)
        for synset, word, anchor in anchors(members, senses, held):
            others = [other for other in members if unlike(synset, other)]
            if others and anchor not in asked and asked.setdefault(word, split) == split:
                asked[anchor] = split
                texts = (anchor, synset.definition, rng.choice(others).definition)
                row = zip(("anchor", "positive", "negative"), texts, strict=True)
                tables[split].append({"synset": synset.key, **dict(row)})
    return _full(tables, N_WORDNET, rng)


# Debian -------------------------------------------------------------------------------------------


def lead(body: str) -> str:
    """Whole sentences from the start of a description, of ``LEAD`` words at most in all."""
    words: list[str] = []
    for sentence in SENTENCE_END.split(body):
        if len(words) + len(sentence.split()) > LEAD:
            break
        words += sentence.split()
    return " ".join(words)


def debian_pairs(rows: list[dict], held: set[str]) -> dict[str, list[dict]]:
    """Synopsis against first sentences; neither is a text of ``held`` or a part of one."""
    rng, everything = random.Random(12), "\n".join(sorted(held))
    rows, seen, kept = rng.sample(rows, len(rows)), set(), []
    for row in rows:
        texts = row["synopsis"], lead(row["body"])
        keys = {normalised(text) for text in texts}
        whole = len(texts[1].split()) >= 10 and texts[1].endswith((".", "!", "?"))
        if whole and not keys & seen and not any(key in everything for key in keys):
            seen |= keys
            kept.append({"package": row["package"], "anchor": texts[0], "positive": texts[1]})
        if len(kept) == sum(N_DEBIAN.values()):
            break
    n = N_DEBIAN["dev"]
    return _full({"dev": kept[:n], "train": kept[n:]}, N_DEBIAN, rng)


def _full(tables: dict[str, list], wanted: dict[str, int], rng: random.Random) -> dict[str, list]:
    """Tables of exactly the wanted sizes, shuffled; ValueError if one has too few rows."""
    for split, n in wanted.items():
        if len(tables[split]) < n:
            raise ValueError(f"{split} wants {n} rows; the source has {len(tables[split])}")
        del tables[split][n:]
        rng.shuffle(tables[split])
    return tables


def build(out: Path, work: Path) -> None:
    """Write both sets into ``out``; packages are unpacked below ``work``."""
    held, packages_held = evaluated(out)
    root = archive.unpacked("wordnet-base", wordnet.VERSION, work) / "usr/share/wordnet"
    note = 'anchor = "word: example" or, about half of them, a word of one meaning alone; positive '
    note += "= its definition, negative = that of a word with the same direct hypernym; no text of "
    note += "an evaluation set"
    about = {"source": wordnet.SOURCE, "lang": "en", **wordnet.LICENCE}
    tables = wordnet_pairs(wordnet.read_synsets(root), wordnet.read_senses(root), held)
    store(out, "pairs/wordnet-pairs", {"kind": "pairs", "note": note, **about}, tables)

    stated, packages, english = archive.indexes(work)
    source = {p["Package"]: p.get("Source", p["Package"]).split()[0] for p in packages}
    sources_held = {source.get(package, package) for package in packages_held}
    rows = debian.descriptions(packages, english)
    rows = [row for row in rows if source[row["package"]] not in sources_held]
    note = "anchor = one-line synopsis, positive = first sentences of the long description; no "
    note += "source package and no text of an evaluation set"
    about = {"source": f"{stated}, English package descriptions", **debian.LICENCE}
    entry = {"kind": "pairs", "note": note, **about}
    store(out, "pairs/debian-pairs", entry, debian_pairs(rows, held))


def main() -> None:
    """Build into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        build(out, Path(work))


if __name__ == "__main__":
    main()
