"""mteb evaluates saved lab models on tasks from local data, and agrees with lab.probes."""

import warnings

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from lab import data, models, probes

PAIRS, QUERIES = 120, 25


@pytest.fixture(scope="module")
def mteb():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        return pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def similarity():
    return data.load("wordnet-similarity", n=PAIRS)


@pytest.fixture(scope="module")
def search():
    return data.load("wordnet-definitions", n=QUERIES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model whose attention and temperature live in our settings, written to a folder."""
    folder = tmp_path_factory.mktemp("models") / "warm"
    model = models.load("random:llama", attention="bidirectional", temperature=0.5)
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def ours(saved):
    return models.load(str(saved))


def metadata(mteb, name, kind, score):
    """What mteb wants to know of a task; nothing in it is looked up."""
    return mteb.TaskMetadata(
        name=name,
        description="local",
        reference=None,
        type=kind,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
        dataset={"path": "local/none", "revision": "1"},
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
        is_public=True,
    )


@pytest.fixture(scope="module")
def sts_task(mteb, similarity):
    """Our pairs as an mteb task that holds its data."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskSTS

    frame, texts = similarity.frame, np.array(similarity.texts, dtype=object)
    rows = Dataset.from_dict(
        {
            "sentence1": list(texts[frame["first"]]),
            "sentence2": list(texts[frame["second"]]),
            "score": [float(score) for score in frame["score"]],
        }
    )

    class LocalSTS(AbsTaskSTS):
        metadata_ = metadata(mteb, "LocalWordnetSTS", "STS", "cosine_spearman")
        min_score, max_score = 0, 1

        def load_data(self, **_):
            self.dataset, self.data_loaded = {"test": rows}, True

    LocalSTS.metadata = LocalSTS.metadata_
    return LocalSTS


@pytest.fixture(scope="module")
def retrieval_task(mteb, search):
    """Our queries, documents and judgements as an mteb task that holds its data."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval

    def table(rows):
        return Dataset.from_dict(
            {"id": [str(row) for row in rows], "text": [search.texts[row] for row in rows]}
        )

    relevant: dict[str, dict[str, int]] = {}
    for query, document, relevance in search.frame.itertuples(index=False):
        relevant.setdefault(str(query), {})[str(document)] = int(relevance)

    class LocalRetrieval(AbsTaskRetrieval):
        metadata_ = metadata(mteb, "LocalWordnetRetrieval", "Retrieval", "ndcg_at_10")

        def load_data(self, **_):
            corpus, queries = table(search.documents), table(search.queries)
            split = {
                "corpus": corpus,
                "queries": queries,
                "relevant_docs": relevant,
                "top_ranked": None,
            }
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    LocalRetrieval.metadata = LocalRetrieval.metadata_
    return LocalRetrieval


def evaluated(mteb, model, task):
    """mteb's main score of one model on one task, with nothing cached."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing model cards
        result = mteb.evaluate(model, task(), cache=None, show_progress_bar=False)
    return result.task_results[0].get_score()


def probed(model, dataset):
    """Our own score of the same model on the same data."""
    embeddings = model.encode(dataset.texts, show_progress_bar=False)
    return probes.PROBES[dataset.kind](dataset, embeddings, seed=42).value


def test_a_saved_model_gets_our_score_on_sts(mteb, sts_task, ours, similarity):
    assert evaluated(mteb, ours, sts_task) == pytest.approx(probed(ours, similarity), abs=1e-6)


def test_a_saved_model_gets_our_score_on_retrieval(mteb, retrieval_task, ours, search):
    # mteb rounds measures of trec_eval to five digits.
    assert evaluated(mteb, ours, retrieval_task) == pytest.approx(probed(ours, search), abs=5e-6)


def test_plain_sentence_transformers_loads_it_and_gets_the_same_score(
    mteb, sts_task, saved, ours, similarity
):
    plain = SentenceTransformer(str(saved), trust_remote_code=True, device="cpu")
    assert type(plain) is SentenceTransformer
    np.testing.assert_array_equal(plain.encode(similarity.texts), ours.encode(similarity.texts))
    assert evaluated(mteb, plain, sts_task) == pytest.approx(probed(ours, similarity), abs=1e-6)


def test_settings_change_the_score_so_no_cache_serves_another_models(
    mteb, sts_task, ours, similarity
):
    native = models.variant(ours, attention=None, temperature=None)
    found = [evaluated(mteb, model, sts_task) for model in (ours, native, ours)]
    assert found[0] == found[2] != found[1]
    assert found[1] == pytest.approx(probed(native, similarity), abs=1e-6)


def test_a_real_encoder_gets_our_score(mteb, sts_task, minilm, similarity):
    found = evaluated(mteb, minilm, sts_task)
    assert found == pytest.approx(probed(minilm, similarity), abs=1e-6)
    assert found > 0.3
