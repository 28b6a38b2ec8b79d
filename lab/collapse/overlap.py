"""What is chosen or fitted must not have seen what it is judged on: exact errors, and the cure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from lab.data import Dataset
from lab.registry import unknown

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
    rows = dataset.frame
    if "part" in rows:
        rows = rows[rows["part"] == "test"]
    if "relevance" in rows:
        rows = rows[rows["relevance"] > 0]
    text = dict(enumerate(dataset.texts))
    table = pd.DataFrame({column: rows[column].map(text) for column in JUDGED[dataset.kind]})
    if "document" in table:
        table["document"] = table["document"].mask(table["document"].isin(ignored))
    return table


def overlap(dataset: Dataset, other: Dataset) -> pd.DataFrame:
    """The rows of :func:`judged` of the first data set that the other judges as well.

    Of two sets of pairs the pair counts, in either order: STS-B and SICK have sentences in several
    pairs. Else any text counts, but for documents in the corpora of both: queries of different
    splits search the same documents in every benchmark of retrieval.
    """
    if dataset.kind in PAIRS and other.kind in PAIRS:
        ours = judged(dataset)
        theirs = {frozenset(pair) for pair in judged(other).to_numpy()}
        return ours[[frozenset(pair) in theirs for pair in ours.to_numpy()]]
    both = _corpus(dataset) & _corpus(other)
    ours = judged(dataset, ignored=both)
    return ours[ours.isin(_texts(other, both)).any(axis=1)]


def check_disjoint(dev: Mapping[str, Dataset], test: Mapping[str, Dataset]) -> None:
    """Nothing, if the test sets judge nothing that is in a development set (:func:`overlap`).

    Raises:
        ValueError: an overlap: of which sets, in how many rows, the first of them.
        LookupError: a kind of data set that no probe scores.
    """
    for name, chosen_on in dev.items():
        for other, judged_on in test.items():
            found = overlap(chosen_on, judged_on)
            if len(found):
                first = " | ".join(text[:40] for text in found.iloc[0].dropna())
                raise ValueError(
                    f"{len(found)} of {len(judged(chosen_on))} judged rows of the dev set {name!r} "
                    f"are in the test set {other!r}, the first: {first!r}; what is chosen on them "
                    "can't be judged on them: take lab.collapse.overlap.without(dev, *test)"
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
    """The data set without the rows that others judge too (:func:`overlap`).

    Of retrieval the whole query goes. Texts, train rows and the corpus stay.

    Raises:
        ValueError: no judged row is left.
        LookupError: a kind of data set that no probe scores.
    """
    frame, queries = dataset.frame, dataset.queries
    lost = frame.index.isin([row for other in others for row in overlap(dataset, other).index])
    if queries is not None:
        gone = frame["query"][lost].unique()
        lost, queries = frame["query"].isin(gone), queries[~pd.Series(queries).isin(gone)]
    kept = replace(dataset, frame=frame[~lost].reset_index(drop=True), queries=queries)
    if judged(kept).empty:
        named = ", ".join(repr(other.name) for other in others)
        raise ValueError(f"{dataset.name}: all that it judges is in {named}; take another data set")
    note = f"{lost.sum()} rows are left out, which a test set judges too"
    return replace(kept, notes=(*dataset.notes, note)) if lost.any() else dataset


def _texts(dataset: Dataset, ignored: Collection[str]) -> set[str]:
    """All texts that a data set judges."""
    return set(judged(dataset, ignored=ignored).melt()["value"].dropna())


def _corpus(dataset: Dataset) -> set[str]:
    """The documents of a retrieval set; of any other nothing."""
    documents = () if dataset.documents is None else dataset.documents
    return {dataset.texts[place] for place in documents}
