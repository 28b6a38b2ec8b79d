"""What is chosen or fitted must not have seen what it is judged on: exact errors, and the cure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from lab.data import Dataset
from lab.registry import unknown

LEARNED = {"pairs": ["anchor", "positive", "negative"]}
PAIRS = ("sts", "pair_classification")
JUDGED = {
    "sts": ["first", "second"],
    "pair_classification": ["first", "second"],
    "classification": ["text"],
    "clustering": ["text"],
    "retrieval": ["query", "document"],
}


def judged(dataset: Dataset, *, ignored: Collection[str] = ()) -> pd.DataFrame:
    """The texts that a score is made of, one row for each row of the frame that is judged.

    Both texts of a pair; the scored texts of classification, not those that the classifier is
    fitted on; the texts of clustering; a query with each of its relevant documents, without the
    documents in ``ignored`` (missing there).

    Raises:
        LookupError: a kind of data set that no probe scores.
    """
    if dataset.kind not in JUDGED:
        raise LookupError(unknown("kind of data set", dataset.kind, JUDGED))
    table = seen(dataset, ignored=ignored)
    if "part" in dataset.frame:
        table = table[dataset.frame["part"] == "test"]
    return table


def seen(dataset: Dataset, *, ignored: Collection[str] = ()) -> pd.DataFrame:
    """The texts that whatever is chosen or learned on a data set has seen, row by row.

    Those of :func:`judged`, the texts that a classifier is fitted on, and of a set to learn on
    (kind "pairs") anchors, positives and hard negatives.

    Raises:
        LookupError: another kind of data set.
    """
    columns = JUDGED | LEARNED
    if dataset.kind not in columns:
        raise LookupError(unknown("kind of data set", dataset.kind, columns))
    rows = dataset.frame
    if "relevance" in rows:
        rows = rows[rows["relevance"] > 0]
    text = dict(enumerate(dataset.texts))
    there = [column for column in columns[dataset.kind] if column in rows]
    table = pd.DataFrame({column: rows[column].map(text) for column in there})
    if "document" in table:
        table["document"] = table["document"].mask(table["document"].isin(ignored))
    return table


def overlap(dataset: Dataset, other: Dataset) -> pd.DataFrame:
    """The rows of :func:`seen` of the first data set that the other judges.

    Of two sets of pairs the pair counts, in either order: STS-B and SICK have sentences in several
    pairs. Else any text counts, but for documents in the corpora of both: queries of different
    splits search the same documents in every benchmark of retrieval.
    """
    if dataset.kind in PAIRS and other.kind in PAIRS:
        ours = seen(dataset)
        theirs = {frozenset(pair) for pair in judged(other).to_numpy()}
        return ours[[frozenset(pair) in theirs for pair in ours.to_numpy()]]
    both = _corpus(dataset) & _corpus(other)
    ours = seen(dataset, ignored=both)
    return ours[ours.isin(_texts(other, both)).any(axis=1)]


def check_disjoint(dev: Mapping[str, Dataset], test: Mapping[str, Dataset]) -> None:
    """Nothing, if the test sets judge nothing that a development set has (:func:`overlap`).

    The texts that its classifiers are fitted on count too; those of both sets may be the same.

    Raises:
        ValueError: an overlap: of which sets, in how many rows, the first of them.
        LookupError: a kind of data set that no probe scores.
    """
    for name, chosen_on in dev.items():
        judged(chosen_on)
        _refuse_overlap(chosen_on, f"the dev set {name!r}", test)


def check_learned_on(learned_on: Mapping[str, Dataset], test: Mapping[str, Dataset]) -> None:
    """Nothing, if the test sets judge nothing that something was learned on (:func:`overlap`).

    Raises:
        ValueError: an overlap: of which sets, in how many rows, the first of them.
        LookupError: a kind of data set that nothing is learned on, or that no probe scores.
    """
    for name, dataset in learned_on.items():
        _refuse_overlap(dataset, f"the learned set {name!r}", test)


def _refuse_overlap(dataset: Dataset, named: str, test: Mapping[str, Dataset]) -> None:
    for other, judged_on in test.items():
        found = overlap(dataset, judged_on)
        if len(found):
            first = " | ".join(text[:40] for text in found.iloc[0].dropna())
            raise ValueError(
                f"{len(found)} of {len(seen(dataset))} rows that {named} has are judged in the "
                f"test set {other!r}, the first: {first!r}; what is chosen or learned on them "
                "can't be judged on them: take lab.collapse.overlap.without(it, *test)"
            )


def check_fit_texts(texts: Sequence[str], test: Mapping[str, Dataset]) -> None:
    """Nothing, if the test sets judge none of the texts that a repair is fitted on.

    The documents of retrieval do not count: a corpus is known before the queries come.

    Raises:
        ValueError: such texts: in which set, how many, the first.
    """
    for name, dataset in test.items():
        theirs = _texts(dataset, _corpus(dataset))
        found = [text for text in texts if text in theirs]
        if found:
            raise ValueError(
                f"{len(found)} of the {len(texts)} texts that repairs are fitted on are judged in "
                f"the test set {name!r}, the first: {found[0][:40]!r}; leave them out"
            )


def without(dataset: Dataset, *others: Dataset) -> Dataset:
    """The data set without the rows that others judge (:func:`overlap`), train rows among them.

    Of retrieval the whole query goes. Texts, other train rows and the corpus stay; ``n`` is what is
    left of units.

    Raises:
        ValueError: nothing is left to judge or to learn on.
        LookupError: as :func:`seen`; others that no probe scores.
    """
    frame, queries = dataset.frame, dataset.queries
    lost = frame.index.isin([row for other in others for row in overlap(dataset, other).index])
    if not lost.any():
        return dataset
    if queries is not None:
        gone = frame["query"][lost].unique()
        lost, queries = frame["query"].isin(gone), queries[~pd.Series(queries).isin(gone)]
    note = f"{lost.sum()} rows are left out, which a test set judges too"
    notes = (*dataset.notes, note)
    frame = frame[~lost].reset_index(drop=True)
    kept = replace(dataset, frame=frame, queries=queries, notes=notes)
    left = seen(kept) if kept.kind in LEARNED else judged(kept)
    if left.empty:
        named = ", ".join(repr(other.name) for other in others)
        raise ValueError(
            f"{dataset.name}: nothing is left that is not judged in {named}; take another data set"
        )
    if "part" in frame:
        parts = frame.groupby("text")["part"].nunique()
        both = tuple(text for text in kept.repeated if parts.get(text) == 2)
        kept = replace(kept, repeated=both)
    return replace(kept, n=len(left) if queries is None else len(queries))


def _texts(dataset: Dataset, ignored: Collection[str]) -> set[str]:
    """All texts that a data set judges."""
    return set(judged(dataset, ignored=ignored).melt()["value"].dropna())


def _corpus(dataset: Dataset) -> set[str]:
    """The documents of a retrieval set; of any other nothing."""
    documents = () if dataset.documents is None else dataset.documents
    return {dataset.texts[place] for place in documents}
