"""Regularisers: closed forms, the published package, finite differences, and a real trainer."""

from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from IsoScore.IsoScore import IsoScore, IsoScore_star
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses

from lab import models
from lab.losses import REGULARISERS, Regularised, cosreg, gor, isoscore_star, istar

REGULARISER = {**REGULARISERS, "istar": partial(istar, zeta=0.2)}  # those with settings, set
WORDS = "red blue green old young tall cat dog house river stone tree runs sleeps sings falls"


def gaussian(rng, n, dim, **to):
    return torch.tensor(rng.standard_normal((n, dim)), **to)


def cosines(x):
    """The cosines of all pairs i != j, by numpy."""
    unit = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
    return (unit @ unit.T)[~np.eye(len(x), dtype=bool)]


# --- values ------------------------------------------------------------------------------------


def test_orthonormal_rows_have_no_penalty_but_that_of_their_missing_dimensions(rng):
    rows = torch.linalg.qr(gaussian(rng, 20, 5)).Q.T
    assert abs(float(cosreg(rows))) < 1e-12
    assert float(gor(rows)) < 1e-12


def test_a_collapsed_batch_has_the_largest_penalty(rng):
    rows = gaussian(rng, 1, 8).repeat(5, 1)
    assert float(cosreg(rows)) == pytest.approx(4 / 5)
    assert float(gor(rows)) == pytest.approx(1 + (1 - 1 / 8))
    assert float(gor(rows, mean_weight=0)) == pytest.approx(1 - 1 / 8)


@pytest.mark.parametrize(("n", "dim"), [(2, 3), (17, 40), (200, 4)])
def test_the_cosine_penalties_equal_sums_over_all_pairs(rng, n, dim):
    x = gaussian(rng, n, dim) + 0.3
    pairs = cosines(x)
    assert float(cosreg(x)) == pytest.approx(pairs.sum() / n**2, abs=1e-12)
    expected = pairs.mean() ** 2 + max(0, (pairs**2).mean() - 1 / dim)
    assert float(gor(x)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("zeta", "value"), [(0, 0.157), (0.5, 0.43), (0.9, 0.95)])
def test_the_shrinkage_of_a_small_isotropic_batch_has_the_known_values(rng, zeta, value):
    scores = [isoscore_star(gaussian(rng, 50, 256), zeta=zeta) for _ in range(5)]
    assert float(torch.stack(scores).mean()) == pytest.approx(value, abs=0.006)


def test_the_identity_alone_is_isotropic(rng):
    x = gaussian(rng, 9, 6) * torch.arange(6)
    assert float(isoscore_star(x, zeta=1)) == pytest.approx(1, abs=1e-12)
    assert float(istar(x, zeta=1)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("zeta", [0, 0.1, 0.7, 1])
@pytest.mark.parametrize(("n", "dim"), [(40, 10), (10, 40), (2, 2)])
def test_isoscore_star_equals_the_published_package(rng, n, dim, zeta):
    x = gaussian(rng, n, dim) @ gaussian(rng, dim, dim) + 2
    for shrinkage in (torch.eye(dim).double(), gaussian(rng, 3 * dim, dim).T.cov()):
        ours = float(isoscore_star(x, zeta=zeta, shrinkage_covariance=shrinkage))
        theirs = float(IsoScore_star(x.numpy(), shrinkage, zeta))
        assert ours == pytest.approx(theirs, abs=1e-6)
        single = isoscore_star(x.float(), zeta=zeta, shrinkage_covariance=shrinkage)
        assert float(single) == pytest.approx(theirs, abs=1e-5)


def test_without_shrinkage_it_is_the_published_isoscore(rng):
    x = gaussian(rng, 300, 20) * torch.linspace(0.1, 3, 20)
    theirs = float(IsoScore(x.numpy()))
    assert float(isoscore_star(x, zeta=0)) == pytest.approx(theirs, abs=1e-6)
    assert float(istar(x, zeta=0)) == pytest.approx(1 - theirs, abs=1e-6)


def test_isoscore_star_is_blind_to_rotation_and_shift_and_unshrunk_to_scale(rng):
    x = gaussian(rng, 30, 6) * torch.arange(1, 7)
    rotation = torch.linalg.qr(gaussian(rng, 6, 6)).Q
    for zeta in (0, 0.4):
        score = float(isoscore_star(x, zeta=zeta))
        assert float(isoscore_star(x @ rotation, zeta=zeta)) == pytest.approx(score, abs=1e-9)
        assert float(isoscore_star(x + 1e3, zeta=zeta)) == pytest.approx(score, abs=1e-9)
    assert float(isoscore_star(7 * x, zeta=0)) == pytest.approx(float(isoscore_star(x, zeta=0)))


def test_the_identity_hides_the_shape_of_unit_vectors_and_their_own_covariance_does_not(rng):
    x = gaussian(rng, 100, 64) * torch.logspace(0, -2, 64)
    unit = x / x.norm(dim=1, keepdim=True)
    own = float(isoscore_star(unit, zeta=0))
    assert own < 0.3
    assert float(isoscore_star(unit, zeta=0.2)) > 0.95
    mixed = isoscore_star(unit, zeta=0.2, shrinkage_covariance=unit.T.cov())
    assert float(mixed) == pytest.approx(own)


# --- laws of every regulariser -----------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REGULARISER))
def test_the_gradient_agrees_with_finite_differences(rng, name):
    x = (gaussian(rng, 6, 4) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(REGULARISER[name], (x,))
    shrinkage = gaussian(rng, 9, 4).T.cov()
    with_own = partial(istar, zeta=0.3, shrinkage_covariance=shrinkage)
    assert torch.autograd.gradcheck(with_own, (x,))


@pytest.mark.parametrize("name", sorted(REGULARISER))
def test_the_order_of_the_batch_changes_nothing_and_a_step_down_spreads_it(rng, name):
    regulariser = REGULARISER[name]
    x = gaussian(rng, 20, 8) * torch.logspace(0, -1, 8) + 1
    before = float(regulariser(x))
    assert float(regulariser(x.flip(0))) == pytest.approx(before, abs=1e-12)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(regulariser(x), x)
    after = x.detach() - 1e-2 * gradient / gradient.norm()
    assert float(regulariser(after)) < before


@pytest.mark.parametrize("name", sorted(REGULARISER))
def test_half_precision_and_autocast_are_computed_in_float32(rng, name):
    x = gaussian(rng, 20, 8, dtype=torch.float32) + 1
    value = REGULARISER[name](x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(REGULARISER[name](x)) == float(value)
    half = REGULARISER[name](x.bfloat16())
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(value), rel=0.02)


def test_the_tied_token_table_of_a_language_model_is_spread(rng):
    table = torch.nn.Embedding(300, 16)
    with torch.no_grad():
        table.weight += 1
    step = torch.optim.SGD(table.parameters(), lr=300)
    before = cosines(table.weight.detach()).mean()
    for _ in range(5):
        step.zero_grad()
        cosreg(table.weight).backward()
        step.step()
    assert cosines(table.weight.detach()).mean() < before - 0.1


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REGULARISER))
def test_a_batch_without_spread_is_refused(rng, name):
    with pytest.raises(ValueError, match=r"2 embeddings or more, got 1: .*dataloader_drop_last"):
        REGULARISER[name](gaussian(rng, 1, 4))
    x = gaussian(rng, 5, 4)
    for value in (float("nan"), float("inf")):
        x[3, 1] = value
        with pytest.raises(ValueError, match=r"embedding 3 of 5 \(1 such\) is not finite: check"):
            REGULARISER[name](x)
    for shapeless in (x[0], torch.ones(3, 4, dtype=torch.long), x.numpy()):
        with pytest.raises(TypeError, match="embeddings"):
            REGULARISER[name](shapeless)


@pytest.mark.parametrize("name", ["cosreg", "gor"])
def test_a_zero_vector_has_no_cosine(name):
    x = torch.ones(4, 3)
    x[[1, 2]] = 0
    with pytest.raises(ValueError, match=r"embedding 1 of 4 \(2 such\) is zero and has no cosine"):
        REGULARISER[name](x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zeta": -0.1}, "0 to 1; got -0.1"),
        ({"zeta": 1.1}, "0 to 1; got 1.1"),
        ({"zeta": float("nan")}, "0 to 1; got nan"),
        ({"zeta": 0.5, "shrinkage_covariance": torch.eye(3)}, r"\(4, 4\).*got \(3, 3\)"),
        ({"zeta": 0.5, "shrinkage_covariance": torch.ones(4)}, r"\(4, 4\).*got \(4,\)"),
        ({"zeta": 0.5, "shrinkage_covariance": torch.ones(4, 4).triu()}, "symmetric finite"),
        ({"zeta": 0.5, "shrinkage_covariance": torch.full((4, 4), torch.nan)}, "symmetric finite"),
    ],
)
def test_impossible_settings_of_isoscore_star_are_refused(rng, settings, message):
    with pytest.raises(ValueError, match=message):
        isoscore_star(gaussian(rng, 6, 4), **settings)


def test_isoscore_of_equal_rows_or_of_one_dimension_is_undefined(rng):
    equal = gaussian(rng, 1, 4).repeat(7, 1)
    with pytest.raises(ValueError, match="all 7 embeddings are equal: IsoScore needs zeta > 0"):
        isoscore_star(equal, zeta=0)
    assert float(isoscore_star(equal, zeta=0.1)) == pytest.approx(1)
    with pytest.raises(ValueError, match="several dimensions; got embeddings of 1"):
        isoscore_star(gaussian(rng, 6, 1), zeta=0)


# --- the loss ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama():
    return models.load("random:llama", device="cpu")


def texts(rng, n):
    return [" ".join(rng.choice(WORDS.split(), 4)) for _ in range(n)]


def features(model, rng, columns, n=6):
    return [model.preprocess(texts(rng, n)) for _ in range(columns)]


FLOATS, CLASSES = torch.linspace(0, 1, 6), torch.tensor([0, 1, 0, 1, 0, 1])
BASES = {  # what is needed to try it: the columns, the labels
    "CoSENTLoss": (2, FLOATS),
    "AnglELoss": (2, FLOATS),
    "BatchAllTripletLoss": (1, CLASSES),
    "BatchHardSoftMarginTripletLoss": (1, CLASSES),
    "BatchHardTripletLoss": (1, CLASSES),
    "BatchSemiHardTripletLoss": (1, CLASSES),
    "ContrastiveLoss": (2, CLASSES),
    "CosineSimilarityLoss": (2, FLOATS),
    "DistillKLDivLoss": (3, torch.rand(6, 2)),
    "GlobalOrthogonalRegularizationLoss": (2, None),
    "MarginMSELoss": (3, FLOATS),
    "MultipleNegativesRankingLoss": (3, None),
    "OnlineContrastiveLoss": (2, CLASSES),
    "TripletLoss": (3, None),
}


@pytest.mark.parametrize("name", BASES)
def test_the_terms_are_the_base_loss_and_weight_times_the_regulariser(llama, rng, name):
    columns, labels = BASES[name]
    base = getattr(losses, name)(llama)
    batch = features(llama, rng, columns)
    expected = base([dict(column) for column in batch], labels)
    terms = Regularised(base, cosreg, -0.5)([dict(column) for column in batch], labels)
    embeddings = [llama(dict(column))["sentence_embedding"] for column in batch]
    mean = torch.stack([cosreg(column) for column in embeddings]).mean()
    torch.testing.assert_close(terms.pop("cosreg"), -0.5 * mean)
    expected = expected if isinstance(expected, dict) else {"base": expected}
    torch.testing.assert_close(terms, expected)


def test_a_base_that_cannot_be_given_embeddings_is_refused_with_those_that_can(llama):
    refused = [
        losses.CachedMultipleNegativesRankingLoss(llama),
        losses.SoftmaxLoss(llama, embedding_dimension=64, num_labels=2),
        losses.MSELoss(llama),
        losses.EmbedDistillLoss(llama),
        losses.MatryoshkaLoss(llama, losses.CoSENTLoss(llama), [32]),
    ]
    for loss in refused:
        with pytest.raises(TypeError, match=f"^{type(loss).__name__} does not compute") as error:
            Regularised(loss, cosreg, 0.1)
        able = str(error.value).split("these do: ")[1].split(", ")
        # The symmetric loss is an alias of MultipleNegativesRankingLoss that warns.
        assert set(able) == {*BASES, "MultipleNegativesSymmetricRankingLoss"}


def test_each_column_passes_the_model_once(llama, rng):
    calls = []
    handle = llama.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        both = Regularised(losses.CoSENTLoss(llama), cosreg, 1)
        Regularised(both, partial(istar, zeta=0.1), 1)(features(llama, rng, 2), FLOATS)
    finally:
        handle.remove()
    assert len(calls) == 2


def test_a_regularised_loss_can_be_regularised_again_by_another(llama, rng):
    base, batch = losses.CoSENTLoss(llama), features(llama, rng, 2)
    once = Regularised(base, cosreg, 1)
    twice = Regularised(once, partial(istar, zeta=0.1), -2)
    assert list(twice([dict(column) for column in batch], FLOATS)) == ["base", "cosreg", "istar"]
    with pytest.raises(ValueError, match="has a term 'cosreg' already"):
        Regularised(once, cosreg, 1)([dict(column) for column in batch], FLOATS)


def test_where_chooses_the_columns(llama, rng):
    embeddings = [gaussian(rng, 6, 8) for _ in range(3)]
    base = losses.MultipleNegativesRankingLoss(llama)

    def term(where):
        loss = Regularised(base, cosreg, 2, where=where)
        return float(loss.compute_loss_from_embeddings(embeddings, None)["cosreg"])

    values = [2 * float(cosreg(column)) for column in embeddings]
    assert term(None) == pytest.approx(np.mean(values))
    assert term((1,)) == pytest.approx(values[1])
    assert term([0, 2]) == pytest.approx((values[0] + values[2]) / 2)
    for wrong in ((3,), (-1,), ()):
        with pytest.raises(ValueError, match=r"where=\(.*\) of 3 columns, counted from 0"):
            term(wrong)


def test_a_weight_or_a_term_that_is_not_finite_is_refused(llama, rng):
    base = losses.CoSENTLoss(llama)
    for weight in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight of a regulariser is a finite number; got"):
            Regularised(base, cosreg, weight)
    nan = losses.CosineSimilarityLoss(llama)
    with pytest.raises(FloatingPointError, match=r"not finite, \{'base': nan\}: check the data"):
        Regularised(nan, cosreg, 1)(features(llama, rng, 2), FLOATS * float("nan"))


# --- with the trainer --------------------------------------------------------------------------


@pytest.fixture
def trained(rng, tmp_path):
    """A function (regulariser, weight) -> (trainer, embeddings of the anchors after a few steps).

    Model, data, seed and steps are the same each time.
    """
    data = Dataset.from_dict({"anchor": texts(rng, 48), "positive": texts(rng, 48)})

    def train(regulariser, weight, **settings):
        model = models.load("random:llama", device="cpu")
        loss = Regularised(losses.MultipleNegativesRankingLoss(model), regulariser, weight)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=16,
            learning_rate=1e-3,
            seed=1,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **{"max_steps": 6, **settings},
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=data, loss=loss
        )
        trainer.train()
        return trainer, torch.tensor(model.encode(data["anchor"], show_progress_bar=False))

    return train


def test_a_positive_weight_raises_isotropy_and_a_negative_one_lowers_it(trained):
    penalty = partial(istar, zeta=0.2)
    scores = [
        float(isoscore_star(trained(penalty, weight)[1], zeta=0)) for weight in (-1.0, 0.0, 1.0)
    ]
    assert scores[0] < scores[1] - 0.005
    assert scores[2] > scores[1] + 0.005


@pytest.mark.parametrize("regulariser", [cosreg, gor])
def test_a_positive_weight_lowers_the_average_cosine_and_a_negative_one_raises_it(
    trained, regulariser
):
    mean = [cosines(trained(regulariser, weight)[1]).mean() for weight in (-1.0, 0.0, 1.0)]
    assert mean[0] > mean[1] > mean[2]


def test_the_trainer_adds_and_logs_the_terms_and_the_model_card_names_them(trained, tmp_path):
    trainer, _ = trained(partial(istar, zeta=0.2), -0.5, max_steps=2)
    for log in trainer.state.log_history[:2]:
        assert log["loss"] == pytest.approx(log["base"] + log["istar"], abs=2e-4)
        assert -0.5 < log["istar"] < 0 < log["base"]
    batch = next(iter(trainer.get_train_dataloader()))
    columns, labels = trainer.collect_features(dict(batch))
    with torch.no_grad():
        total = trainer.compute_loss(trainer.model, dict(batch))
        embeddings = [trainer.model(dict(column))["sentence_embedding"] for column in columns]
        base = trainer.loss.loss.compute_loss_from_embeddings(embeddings, labels)
        terms = [istar(column, zeta=0.2) for column in embeddings]
    torch.testing.assert_close(total, base - 0.5 * (terms[0] + terms[1]) / 2)
    trainer.model.save_pretrained(str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert '"regulariser": "istar"' in card and '"zeta": 0.2' in card and '"weight": -0.5' in card
