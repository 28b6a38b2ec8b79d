"""One reader and one sampler per kind of data set: verified files in, a frame of texts out."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lab.data.sources import Source
from lab.registry import Registry

RENAMED = {
    "sentence1": "first",
    "sentence2": "second",
    "word1": "first",
    "word2": "second",
    "word": "anchor",
    "definition": "positive",
}
TEXT_COLUMNS = {
    "sts": ("first", "second"),
    "pair_classification": ("first", "second"),
    "classification": ("text",),
    "clustering": ("text",),
    "retrieval": ("query", "document"),
    "pairs": ("anchor", "positive", "negative"),
}
NEEDED = {
    "sts": {"first", "second", "score"},
    "pair_classification": {"first", "second", "label"},
    "classification": {"text", "label"},
    "clustering": {"text", "label"},
    "pairs": {"anchor", "positive"},
}
ENTAILS = {"entailment": True, "contradiction": False}
UNTITLED = {"longdoc/peps"}  # its titles are queries, so a document is encoded without its title
EMPTY = {"retrieval/cranfield": {"471", "995"}}  # documents without any text in the original


@dataclass
class Rows:
    """What a reader found: a frame that still holds texts, the corpus, and what was left out."""

    frame: pd.DataFrame
    documents: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()


READERS: Registry[Callable[[Source, str, np.random.Generator], Rows]] = Registry("kind")
SAMPLERS: Registry[Callable[[Rows, int, np.random.Generator, bool], Rows]] = Registry("kind")


def _read(source: Source, name: str, kind: str) -> pd.DataFrame:
    """The text columns and labels of one file, with no blank text among them."""
    frame, file = source.read(name).rename(columns=RENAMED), source.files[name]
    absent = NEEDED[kind] - set(frame)
    if absent:
        raise ValueError(f"{file} has no {sorted(absent)}, which every {kind} set has")
    wanted = [*TEXT_COLUMNS[kind], "label", "score"]
    frame = frame[[column for column in wanted if column in frame]]
    if "label" in frame and frame["label"].isna().any():
        raise ValueError(f"{file}, row {frame['label'].isna().argmax() + 1}: no label")
    for column in frame.columns.intersection(TEXT_COLUMNS[kind]):
        _refuse_blank(frame[column], file)
    return frame


def _refuse_blank(texts: pd.Series, file: str) -> None:
    for row, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{file}, row {row + 1}: {texts.name} is {text!r}, not a text; "
                f"remove the row or give it a text, then record the file's new sha256"
            )


@READERS.named("sts")
def _sts(source: Source, split: str, rng: np.random.Generator) -> Rows:
    frame = _read(source, split, "sts").astype({"score": float})
    low, high = source.entry.get("score_range", (-np.inf, np.inf))
    outside = np.flatnonzero(~frame["score"].between(low, high))
    if len(outside):
        row = outside[0]
        raise ValueError(
            f"{source.files[split]}, row {row + 1}: score {frame['score'][row]} is outside "
            f"[{low}, {high}], the range its manifest states"
        )
    return Rows(frame)


@READERS.named("pair_classification")
def _pair_classification(source: Source, split: str, rng: np.random.Generator) -> Rows:
    """Binary labels; of three-way inference entailment is True, contradiction False.

    Neutral pairs are left out and counted, as mteb does for XNLI.
    """
    frame = _read(source, split, "pair_classification")
    if frame["label"].dtype == bool:
        return Rows(frame)
    neutral = frame["label"] == "neutral"
    unknown = set(frame["label"]) - {*ENTAILS, "neutral"}
    if unknown:
        raise ValueError(
            f"{source.files[split]}: labels {sorted(map(str, unknown))}; wanted true and false, or "
            f"{', '.join(ENTAILS)} and neutral"
        )
    frame = frame[~neutral].reset_index(drop=True)
    frame["label"] = frame["label"].map(ENTAILS).astype(bool)
    return Rows(frame, notes=(f"{neutral.sum()} neutral pairs left out",))


@READERS.named("pairs")
def _pairs(source: Source, split: str, rng: np.random.Generator) -> Rows:
    return Rows(_read(source, split, "pairs").drop(columns="label", errors="ignore"))


@READERS.named("clustering")
def _clustering(source: Source, split: str, rng: np.random.Generator) -> Rows:
    return Rows(_read(source, split, "clustering").astype({"label": str}))


@READERS.named("classification")
def _classification(source: Source, split: str, rng: np.random.Generator) -> Rows:
    """The train file fits and the asked split is scored.

    Split "train" alone has only train rows. A set that comes without splits ("all") is cut into
    two halves, each class evenly, by the seed.
    """
    frame = _clustering(source, split, rng).frame
    if split == "train":
        return Rows(frame.assign(part="train"))
    if split == "all":
        half = _stratified(frame["label"], len(frame) // 2, rng)
        return Rows(frame.assign(part=np.where(np.isin(frame.index, half), "train", "test")))
    train = _clustering(source, "train", rng).frame
    both = [train.assign(part="train"), frame.assign(part="test")]
    return Rows(pd.concat(both, ignore_index=True))


@READERS.named("retrieval")
def _retrieval(source: Source, split: str, rng: np.random.Generator) -> Rows:
    """Judged queries and the whole corpus; a document is its title, if it has one, and its text.

    Where the files state a ``split`` of each text, only those of the asked one are read.
    """
    qrels, corpus, queries = (source.read(x) for x in (f"qrels/{split}", "corpus", "queries"))
    if "split" in corpus:
        corpus, queries = (x[x["split"] == split] for x in (corpus, queries))
    empty = EMPTY.get(source.key, set())
    corpus = corpus[~corpus["id"].isin(empty)]
    judged_empty = qrels["corpus-id"].isin(empty)
    qrels = qrels[~judged_empty]
    texts = corpus["text"]
    if "title" in corpus and source.key not in UNTITLED:
        texts = (corpus["title"] + " " + texts).str.strip()
    _refuse_blank(texts.rename("text"), source.files["corpus"])
    _refuse_blank(queries["text"], source.files["queries"])
    frame = pd.DataFrame(
        {
            "query": _look_up(qrels["query-id"], queries["id"], queries["text"], source, "queries"),
            "document": _look_up(qrels["corpus-id"], corpus["id"], texts, source, "corpus"),
            "relevance": qrels["score"],
        }
    )
    # Texts, not ids, are ranked: of several judgements of one text the highest counts.
    frame = frame.groupby(["query", "document"], sort=False, as_index=False)["relevance"].max()
    notes = []
    if empty:
        notes.append(f"{len(empty)} empty documents and {judged_empty.sum()} judgements left out")
    if texts.duplicated().any():
        notes.append(f"{texts.duplicated().sum()} documents repeat the text of another one")
    return Rows(frame, list(dict.fromkeys(texts)), tuple(notes))


def _look_up(
    wanted: pd.Series, ids: pd.Series, texts: pd.Series, source: Source, name: str
) -> np.ndarray:
    table = dict(zip(ids, texts, strict=True))
    missing = [key for key in wanted if key not in table]
    if missing:
        raise ValueError(
            f"{source.key}: qrels name {missing[0]!r}, which {source.files[name]} does not hold "
            f"({len(missing)} such); {source.remedy()}"
        )
    return np.array([table[key] for key in wanted], dtype=object)


def _stratified(labels: pd.Series, n: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted positions of ``n`` rows, each label in proportion and, if ``n`` allows, at least once.

    A row of random rank r among the c rows of its label has the key r / c; the n smallest stay.
    """
    shuffled = labels.reset_index(drop=True).iloc[rng.permutation(len(labels))]
    groups = shuffled.groupby(shuffled)
    key = groups.cumcount() / groups.transform("size")
    return np.sort(key.sort_values(kind="stable").index.to_numpy()[:n])


@SAMPLERS.named("sts")
@SAMPLERS.named("pairs")
def _sample_rows(rows: Rows, n: int, rng: np.random.Generator, full_corpus: bool) -> Rows:
    kept = np.sort(rng.choice(len(rows.frame), n, replace=False))
    return Rows(rows.frame.iloc[kept], notes=rows.notes)


@SAMPLERS.named("pair_classification")
@SAMPLERS.named("clustering")
def _sample_labelled(rows: Rows, n: int, rng: np.random.Generator, full_corpus: bool) -> Rows:
    return Rows(rows.frame.iloc[_stratified(rows.frame["label"], n, rng)], notes=rows.notes)


@SAMPLERS.named("classification")
def _sample_parts(rows: Rows, n: int, rng: np.random.Generator, full_corpus: bool) -> Rows:
    """``n`` scored rows and as many train rows (all, if fewer) of the labels that are scored."""
    scored = rows.frame[rows.frame["part"] == _scored_part(rows)]
    scored = scored.iloc[_stratified(scored["label"], n, rng)]
    if _scored_part(rows) == "train":
        return Rows(scored, notes=rows.notes)
    train = rows.frame[rows.frame["part"] == "train"]
    train = train[train["label"].isin(scored["label"])]
    train = train.iloc[_stratified(train["label"], n, rng)]
    return Rows(pd.concat([train, scored]), notes=rows.notes)


@SAMPLERS.named("retrieval")
def _sample_queries(rows: Rows, n: int, rng: np.random.Generator, full_corpus: bool) -> Rows:
    names = rows.frame["query"].unique()
    kept = names[np.sort(rng.choice(len(names), n, replace=False))]
    frame = rows.frame[rows.frame["query"].isin(kept)]
    if full_corpus:
        return Rows(frame, rows.documents, rows.notes)
    judged = set(frame["document"])
    documents = [text for text in rows.documents if text in judged]
    if len(documents) == len(rows.documents):
        return Rows(frame, documents, rows.notes)
    note = (
        f"corpus cut to the {len(documents)} of {len(rows.documents)} documents judged for these "
        f"{n} queries, which is easier than the whole"
    )
    return Rows(frame, documents, (*rows.notes, note))


def _scored_part(rows: Rows) -> str:
    return "test" if "test" in set(rows.frame["part"]) else "train"


def count(rows: Rows, kind: str) -> int:
    """How many units there are to sample: queries, scored texts, else rows."""
    if kind == "retrieval":
        return rows.frame["query"].nunique()
    if kind == "classification":
        return int((rows.frame["part"] == _scored_part(rows)).sum())
    return len(rows.frame)
