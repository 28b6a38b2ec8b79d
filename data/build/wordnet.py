"""Build wordnet-definitions, wordnet-similarity and wordnet-matches from WordNet's data files.

    python data/build/wordnet.py --out data

Source: Debian package wordnet-base 1:3.0-37 (WordNet 3.0). The same package gives the same bytes.
"""

import argparse
import random
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import archive

from lab import atomic
from lab.data.sources import store

VERSION = "1:3.0-37"
SOURCE = f"Debian package wordnet-base {VERSION} (WordNet 3.0 data files)"
LICENCE = {"licence": "WordNet 3.0 licence (LICENSES/wordnet.txt)", "licence_class": "open"}
HYPERNYMS = ("@", "@i")
N_CORPUS, N_TEST, N_DEV = 3000, 600, 300
N_PAIRS, BINS = 1000, 9  # per split; the bins are [.1, .2), [.2, .3), ... [.9, 1)
N_MATCHES = 400  # words per split, each once with its definition and once with another one


@dataclass
class Synset:
    """One meaning: its words, definition, direct hypernyms and examples of use."""

    key: str
    words: list[str]
    definition: str
    parents: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)


def read_synsets(folder: Path) -> dict[str, Synset]:
    """All synsets by key ("n02084071"), as wndb(5WN) describes the format."""
    synsets = {}
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text().splitlines():
            if line.startswith("  "):
                continue  # the licence, which heads every file
            head, _, gloss = line.partition(" | ")
            cells = head.split()
            n_words = int(cells[3], 16)
            words = [cells[4 + 2 * i].split("(")[0].replace("_", " ") for i in range(n_words)]
            pointers = cells[5 + 2 * n_words :]
            n_pointers = int(cells[4 + 2 * n_words])
            quads = [pointers[4 * i : 4 * i + 4] for i in range(n_pointers)]
            parents = [q[2] + q[1] for q in quads if q[0] in HYPERNYMS]
            key = ("r" if part == "adv" else part[0]) + cells[0]
            definition, *quoted = re.split(r';\s*"', gloss.strip())
            examples = [re.sub(r"\s+", " ", text.split('"')[0]).strip() for text in quoted]
            synsets[key] = Synset(key, words, definition.strip(" ;"), parents, examples)
    return synsets


def read_senses(folder: Path) -> dict[str, tuple[int, int]]:
    """Word -> how many meanings it has in all parts of speech, and how many occur in SemCor."""
    senses: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"index.{part}").read_text().splitlines():
            if line.startswith("  "):
                continue
            cells = line.split()
            n, tagged = int(cells[2]), int(cells[5 + int(cells[3])])
            old = senses[cells[0]]
            senses[cells[0]] = (old[0] + n, old[1] + tagged)
    return senses


def clear(synset: Synset, word: str) -> bool:
    """Whether a plain lower-case word is defined in 4 to 40 words without being named."""
    stem = word[: max(4, len(word) - 2)]
    plain = re.fullmatch(r"[a-z]{3,}", word) and stem not in synset.definition.lower()
    return bool(plain) and 4 <= len(synset.definition.split()) <= 40


def single_meaning(synsets: dict[str, Synset], senses: dict[str, tuple[int, int]]) -> list:
    """(word, synset) of the words that have one meaning; each definition once."""
    seen, found = set(), []
    for synset in synsets.values():
        words = [w for w in synset.words if clear(synset, w) and senses[w][0] == 1]
        if words and synset.definition not in seen:
            seen.add(synset.definition)
            found.append((words[0], synset))
    return found


def definitions(pool: list, rng: random.Random) -> dict[str, list[dict]]:
    """Query = word, document = definition; 900 queries, the other documents only distract."""
    chosen = rng.sample(pool, N_CORPUS)
    corpus = [{"id": s.key, "text": s.definition} for _, s in chosen]
    queries = [{"id": f"q-{s.key}", "text": word} for word, s in chosen[: N_TEST + N_DEV]]
    qrels = [{"query-id": q["id"], "corpus-id": q["id"][2:], "score": 1} for q in queries]
    corpus.sort(key=lambda row: row["id"])
    return {
        "corpus": corpus,
        "queries": queries,
        "qrels/test": qrels[:N_TEST],
        "qrels/dev": qrels[N_TEST:],
    }


class Taxonomy:
    """The noun hypernym graph; a node may have several parents, and the root is "entity"."""

    def __init__(self, synsets: dict[str, Synset]) -> None:
        self.synsets = synsets
        self.above = cache(self._above)
        self.depth = cache(self._depth)

    def _above(self, key: str) -> dict[str, int]:
        """Ancestor (itself included) -> edges on the shortest way up to it."""
        found = {key: 0}
        for parent in self.synsets[key].parents:
            for ancestor, steps in self.above(parent).items():
                found[ancestor] = min(found.get(ancestor, steps + 1), steps + 1)
        return found

    def _depth(self, key: str) -> int:
        """Nodes on the shortest way to the root, which has depth 1."""
        parents = self.synsets[key].parents
        return 1 + min((self.depth(parent) for parent in parents), default=0)

    def wu_palmer(self, a: str, b: str) -> float:
        """Largest 2 d(c) / (up(a, c) + up(b, c) + 2 d(c)) over common ancestors c.

        d is the depth and up the number of edges to c (Wu and Palmer 1994, section 4).
        """
        up_a, up_b = self.above(a), self.above(b)
        return max(
            2 * self.depth(c) / (up_a[c] + up_b[c] + 2 * self.depth(c)) for c in up_a.keys() & up_b
        )


def similarity(tree: Taxonomy, pool: list[str], rng: random.Random) -> list[dict]:
    """Pairs "word: definition" with equally many scores in every bin, no synset more than 4 times.

    Partners are drawn below a random ancestor of the first, so that near pairs occur at all.
    """
    below: dict[str, list[str]] = defaultdict(list)
    for key in pool:
        for ancestor in tree.above(key):
            below[ancestor].append(key)
    wanted = [N_PAIRS // BINS + (i < N_PAIRS % BINS) for i in range(BINS)]
    rows, used, seen = [], defaultdict(int), set()
    while sum(wanted):
        first = rng.choice(pool)
        second = rng.choice(below[rng.choice(sorted(tree.above(first)))])
        score = tree.wu_palmer(first, second)
        bin_ = int(score * 10) - 1
        pair = frozenset((first, second))
        if first == second or pair in seen or not 0 <= bin_ < BINS or not wanted[bin_]:
            continue
        if max(used[first], used[second]) == 4:
            continue
        wanted[bin_] -= 1
        seen.add(pair)
        for key in pair:
            used[key] += 1
        texts = [
            f"{tree.synsets[k].words[0]}: {tree.synsets[k].definition}" for k in (first, second)
        ]
        rows.append({"sentence1": texts[0], "sentence2": texts[1], "score": round(score, 4)})
    return rows


def matches(pairs: list, rng: random.Random) -> list[dict]:
    """Each word with its own definition (True) and with that of its co-hyponym (False)."""
    rows = []
    for (word, synset), (_, sibling) in pairs:
        rows.append({"sentence1": word, "sentence2": synset.definition, "label": True})
        rows.append({"sentence1": word, "sentence2": sibling.definition, "label": False})
    rng.shuffle(rows)
    return rows


def siblings(pool: list, used: set[str], rng: random.Random) -> tuple[list, list]:
    """Pairs of a noun in use and a co-hyponym, both of one meaning, for test and dev.

    At most two pairs share a direct hypernym, and those are in one split.
    """
    under: dict[str, list] = defaultdict(list)
    for word, synset in pool:
        if synset.key[0] == "n" and synset.parents:
            under[synset.parents[0]].append((word, synset))
    families = [members for _, members in sorted(under.items()) if len(members) > 1]
    rng.shuffle(families)
    splits: tuple[list, list] = ([], [])
    for family in families:
        rng.shuffle(family)
        split = splits[len(splits[0]) >= N_MATCHES]
        asked = [member for member in family if member[0] in used][:2]
        for member in asked[: N_MATCHES - len(split)]:
            split.append((member, rng.choice([other for other in family if other != member])))
    return splits


def similarity_pools(synsets: dict, senses: dict, rng: random.Random) -> tuple[list, list]:
    """Noun synsets in use, one per first word and definition, in two disjoint halves."""
    seen, keys = set(), []
    for synset in synsets.values():
        word = synset.words[0]
        if synset.key[0] != "n" or not re.fullmatch(r"[a-z]{3,}", word) or not senses[word][1]:
            continue
        if word not in seen and 3 <= len(synset.definition.split()) <= 30:
            seen.add(word)
            keys.append(synset.key)
    rng.shuffle(keys)
    return sorted(keys[::2]), sorted(keys[1::2])


def build(out: Path, work: Path) -> None:
    """Write the three sets and the licence into ``out``; packages are unpacked below ``work``."""
    root = archive.unpacked("wordnet-base", VERSION, work) / "usr/share"
    synsets, senses = read_synsets(root / "wordnet"), read_senses(root / "wordnet")
    (out / "LICENSES").mkdir(parents=True, exist_ok=True)
    atomic.write(out / "LICENSES/wordnet.txt", (root / "doc/wordnet-base/copyright").read_bytes())
    pool, rng = single_meaning(synsets, senses), random.Random(3)
    in_use = [(word, synset) for word, synset in pool if senses[word][1]]
    about = {"source": SOURCE, "lang": "en", **LICENCE}
    key = "retrieval/wordnet-definitions"
    note = "query = word of one meaning, document = its definition, which does not hold the word"
    entry = {"kind": "retrieval", "note": note, **about}
    store(out, key, entry, definitions(in_use, rng))

    tree = Taxonomy(synsets)
    test, dev = similarity_pools(synsets, senses, rng)
    note = "score = Wu-Palmer similarity in the noun hypernym graph, computed here: it is taxonomy "
    note += "similarity, not human judgement; scores are spread evenly; no synset in both splits"
    entry = {"kind": "sts", "score_range": [0, 1], "note": note, **about}
    tables = {"test": similarity(tree, test, rng), "dev": similarity(tree, dev, rng)}
    store(out, "sts/wordnet-similarity", entry, tables)

    test, dev = siblings(pool, {word for word, _ in in_use}, rng)
    note = "True = the word's definition, False = that of a word with the same direct hypernym"
    entry = {"kind": "pair_classification", "note": note, **about}
    tables = {"test": matches(test, rng), "dev": matches(dev, rng)}
    store(out, "pair_classification/wordnet-matches", entry, tables)
    print(f"{len(in_use)} words of one meaning in use; {len(test)}, {len(dev)} co-hyponym pairs")


def main() -> None:
    """Build into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as work:
        build(out, Path(work))


if __name__ == "__main__":
    main()
