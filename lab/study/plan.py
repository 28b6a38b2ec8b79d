"""What a study is: designs, data, recipe and seeds, as ``lab.study.reading`` reads them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab import results
from lab.models.attention import MODES
from lab.models.heads import read_over
from lab.poolers import POOLERS
from lab.pooling import LAYER_MIXES, POOLINGS
from lab.registry import unknown
from lab.training.adapters import Lora
from lab.training.recipe import LARGEST_SEED, Recipe

SETTINGS = {"sink", "max_length", "dtype", "train", "held_out", "evaluate", "data_seed"}
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class Strict(BaseModel):
    """A part of a study file: no other key than these, never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Design(Strict):
    """One point of attention x token pooling x layer mix, as ``lab.models.load`` takes it.

    Attributes:
        attention: a name in ``lab.models.attention.MODES``.
        pooling: a token pooling, fixed (``POOLINGS``) or trainable (``POOLERS``).
        layers: a layer mix, fixed, "learned" or trainable (``POOLERS``); "last" for the last layer.
        pooler: options of the trainable one.
        name: in tables and figures, where attention / pooling / layers does not tell it apart.
        reported: the setting of ``data/reported.csv`` that this design reproduces, if any.
    """

    attention: str
    pooling: str = "mean"
    layers: str = "last"
    pooler: dict[str, Any] = Field(default_factory=dict)
    name: str | None = None
    reported: str | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        for kind, name, known in (
            ("attention", self.attention, [*MODES]),
            ("pooling", self.pooling, [*POOLINGS, *POOLERS]),
            ("layer mix", self.layers, [*LAYER_MIXES, "learned", *POOLERS]),
        ):
            if name not in known:
                raise ValueError(unknown(kind, name, known))
        if self.pooler and not self.trained:
            raise ValueError(f"{self.label} has nothing to train, so no options {self.pooler}")
        if "over" in self.pooler:
            read_over(self.pooler["over"])
        return self

    @property
    def label(self) -> str:
        """The name in tables: its own, else "attention / pooling / layers"."""
        place = {"attention": self.attention, "pooling": self.pooling, "layer_mix": self.layers}
        return self.name or results.setting(place)

    @property
    def trained(self) -> bool:
        """Whether the design itself has weights to train, whatever the backbone does."""
        return self.pooling in POOLERS or self.layers in POOLERS or self.layers == "learned"

    @property
    def settings(self) -> dict[str, Any]:
        """The design as keyword arguments of ``models.load`` and ``models.variant``."""
        layers = None if self.layers == "last" else self.layers
        pooler = {"pooler": self.pooler} if self.pooler else {}
        return {"attention": self.attention, "pooling": self.pooling, "layers": layers, **pooler}


class Part(Strict):
    """Some rows of a data set: all of a split, or ``n`` drawn by the study's seed.

    ``options`` go to the probe that judges on it, such as the ``size`` of clustering.
    """

    name: str
    split: str
    n: Count | None = None
    full_corpus: bool = False
    options: dict[str, Any] = Field(default_factory=dict)


class Study(Strict):
    """Designs trained the same way and evaluated on the same texts.

    Attributes:
        question: what the study is to answer.
        checkpoint: the backbone, as ``lab.models.load`` takes it.
        sink: a token in front of every text, as in ``lab.models.load``.
        max_length: tokens after which every text is cut, in training and evaluation.
        dtype: of the backbone's weights.
        budget: trainable parameters that every trainable pooling is fitted into; None: as given.
        designs: listed ones, then those of the grid, each label once.
        without: labels that are left out, where a profile can't have them.
        baseline: the label that the others are compared with.
        seeds: of the first weights, the order of batches and dropout; one trained model each.
        train: text pairs, joined; ``held_out`` is the share of them kept for the loss curve.
        evaluate: data sets of the probes.
        recipe: how long and how; the fields of ``lab.training.recipe.Recipe``.
        data_seed: draws rows, and is the probes' seed.
    """

    name: str
    question: str
    checkpoint: str
    sink: bool | str | None = None
    max_length: Count | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    budget: Count | None = None
    designs: list[Design]
    without: list[str] = Field(default_factory=list)
    baseline: str
    seeds: Annotated[list[Seed], Field(min_length=1)]
    train: Annotated[list[Part], Field(min_length=1)]
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    evaluate: Annotated[list[Part], Field(min_length=1)]
    recipe: dict[str, Any]
    data_seed: Seed = 0

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for label in self.without:
            self.design(label)
        kept = [design for design in self.designs if design.label not in self.without]
        object.__setattr__(self, "designs", kept)
        labels = Counter(design.label for design in self.designs)
        twice = [label for label, count in labels.items() if count > 1]
        if twice:
            raise ValueError(f"two designs are called {twice[0]!r}; give one of them a name")
        if self.baseline not in labels:
            raise ValueError(unknown("design to be the baseline", self.baseline, labels))
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"every seed once; got {self.seeds}")
        self.recipe_of(self.seeds[0])
        return self

    def recipe_of(self, seed: int) -> Recipe:
        """The recipe of one seed.

        Raises:
            TypeError, ValueError, LookupError: no steps; a field that a recipe or its adapter
                does not have; a value that is none for it.
        """
        given = dict(self.recipe)
        _known("recipe", given, {field.name for field in fields(Recipe)} - {"seed"})
        if "steps" not in given:
            raise ValueError("recipe: steps is missing, how many updates of the weights")
        if isinstance(given.get("lora"), Mapping):
            _known("recipe's lora", given["lora"], {field.name for field in fields(Lora)})
            given["lora"] = Lora(**given["lora"])
        return Recipe(**given, seed=seed)

    def design(self, label: str) -> Design:
        """The design of that label.

        Raises:
            LookupError: there is none (with the nearest).
        """
        found = {design.label: design for design in self.designs}
        if label not in found:
            raise LookupError(unknown("design", label, found))
        return found[label]

    def only(self, labels: list[str]) -> "Study":
        """The same study of these designs, in this order.

        Raises:
            LookupError: an unknown design (with the nearest).
        """
        kept = [self.design(label) for label in dict.fromkeys(labels)]
        return self.model_copy(update={"designs": kept})

    def labels(self, attention: str | None = None) -> list[str]:
        """The labels of the designs, or of those under one attention."""
        return [one.label for one in self.designs if attention in (None, one.attention)]

    def trainable(self) -> list[str]:
        """The labels of the designs in which anything is trained."""
        return [one.label for one in self.designs if self.trains(one)]

    def sized(self, *, train: int | None = None, share: float = 1.0) -> "Study":
        """The same study on ``train`` pairs of each training set and a share of each evaluation.

        Raises:
            ValueError: a share outside (0, 1], or of a part that is taken whole.
        """
        if not 0 < share <= 1:
            raise ValueError(f"a share lies in (0, 1]; got {share}")
        whole = [part.name for part in self.evaluate if part.n is None]
        if share < 1 and whole:
            raise ValueError(f"{whole[0]} is evaluated whole; give it an n to take a share of it")
        evaluate = [
            part.model_copy(update={"n": part.n and max(2, round(share * part.n))})
            for part in self.evaluate
        ]
        learned = [part.model_copy(update={"n": train or part.n}) for part in self.train]
        return self.model_copy(update={"train": learned, "evaluate": evaluate})

    def cells(self) -> list[tuple[Design, int, str]]:
        """Every (design, seed, digest of its settings); what is not trained has the one seed 0.

        Names play no part in a digest, nor do data and weights, which only a run knows.
        """
        shared = self.model_dump(mode="json", include=SETTINGS)
        shared["checkpoint"] = Path(self.checkpoint).name
        cells = []
        for design in self.designs:
            about = shared | design.model_dump(mode="json", exclude={"name", "reported"})
            if not self.trains(design):
                cells.append((design, 0, digest(about)))
                continue
            for seed in self.seeds:
                recipe = {"recipe": self.recipe_of(seed).fingerprint(), "budget": self.budget}
                cells.append((design, seed, digest(about | recipe)))
        return cells

    def trains(self, design: Design) -> bool:
        """Whether anything is trained in this design: then every seed is a cell, else one is."""
        return design.trained or self.recipe_of(self.seeds[0]).backbone != "frozen"


def digest(content: Mapping[str, Any]) -> str:
    """The sha256 of settings: equal content, equal digest."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _known(of: str, given: Iterable[str], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise ValueError(unknown(f"field of a {of}", key, known))
