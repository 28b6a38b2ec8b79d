"""The bench of a study: one backbone, its designs as heads or adapters, trained and evaluated."""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sentence_transformers import SentenceTransformer

from lab import manifest, models
from lab.models import EmbeddingModel, architecture
from lab.poolers import POOLERS, parameters, within
from lab.probes import PROBES
from lab.stats import Score
from lab.store.state_store import StateStore
from lab.study.material import Material
from lab.study.plan import Design, Study
from lab.study.stored import Finished, Planned
from lab.training import frozen
from lab.training.hidden_states import states_of
from lab.training.trainer import train
from lab.training.wanted import wanted_by


@dataclass(frozen=True)
class Bench:
    """What all cells of a call share."""

    study: Study
    material: Material
    folder: Path
    store: StateStore | None
    device: str | None
    progress: bool
    _truncated: dict[str, int] = field(default_factory=dict, repr=False)

    @cached_property
    def machine(self) -> dict[str, Any]:
        """Versions and hardware, for the record."""
        return manifest.environment({}, torch.get_num_threads())

    def makers(self, cells: Iterable[Planned]) -> Iterator[tuple[Planned, Callable[[], Finished]]]:
        """Every cell with what trains and evaluates it."""
        frozen_backbone = self.study.recipe_of(self.study.seeds[0]).backbone == "frozen"
        return self._frozen(cells) if frozen_backbone else self._tuned(cells)

    def _frozen(self, cells: Iterable[Planned]) -> Iterator[tuple[Planned, Callable[[], Finished]]]:
        """On stored hidden states, for which the backbone makes one pass per attention."""
        by_attention = sorted(cells, key=lambda cell: cell.design.attention)
        for attention, group in groupby(by_attention, key=lambda cell: cell.design.attention):
            listed, base = list(group), self.backbone(attention)
            variants = [self.variant(base, cell.design, cell.seed) for cell in listed]
            wanted = [wanted_by(variant) for variant in variants]
            kinds = list(dict.fromkeys(wanted))
            trains = any(self.study.trains(cell.design) for cell in listed)
            texts = self.material.texts if trains else self.material.judged
            states = states_of(base, texts, kinds, store=self.store, progress=self.progress)
            by_kind = dict(zip(kinds, states, strict=True))
            for cell, variant, kind in zip(listed, variants, wanted, strict=True):
                looked_up = frozen.model(by_kind[kind], *list(variant)[1:])
                yield cell, partial(self.finish, cell, variant, looked_up)

    def _tuned(self, cells: Iterable[Planned]) -> Iterator[tuple[Planned, Callable[[], Finished]]]:
        """On a backbone of its own."""
        for cell in cells:
            model = self.variant(self.backbone(cell.design.attention), cell.design, cell.seed)
            yield cell, partial(self.finish, cell, model, model)

    def backbone(self, attention: str) -> EmbeddingModel:
        """The language model under an attention, as the study reads it."""
        study = self.study
        return models.load(
            study.checkpoint,
            attention=attention,
            sink=study.sink,
            max_length=study.max_length,
            dtype=study.dtype,
            device=self.device,
        )

    def variant(self, base: EmbeddingModel, design: Design, seed: int) -> EmbeddingModel:
        """The same backbone under a design, with first weights drawn by ``seed``."""
        settings = {key: value for key, value in design.settings.items() if key != "attention"}
        kind = next((name for name in (design.pooling, design.layers) if name in POOLERS), None)
        if kind is None:
            return models.variant(base, **settings)
        drawn = models.variant(base, **settings, seed=seed)
        head, budget = drawn.head, self.study.budget
        if budget is None or parameters(head) <= budget:
            return drawn
        fixed = {key: value for key, value in design.pooler.items() if key != "over"}
        fitting = within(kind, head.dim, budget, items=head.items, **fixed)
        return models.variant(
            base, **{**settings, "pooler": {**design.pooler, **fitting}}, seed=seed
        )

    def finish(
        self, cell: Planned, model: EmbeddingModel, trainable: SentenceTransformer
    ) -> Finished:
        """The cell, trained and evaluated."""
        study, log, seconds, count = self.study, pd.DataFrame(), 0.0, 0
        recipe = study.recipe_of(cell.seed)
        work = self.folder / "checkpoints" / cell.path.stem
        about = models.settings(model)
        if study.trains(cell.design):
            trained = train(
                trainable,
                self.material.train,
                recipe,
                folder=work,
                held_out=self.material.held_out,
                progress=self.progress,
            )
            log, seconds, count = trained.log, trained.seconds, trained.parameters
        begun = time.monotonic()
        scores = self.evaluate(model, trainable)
        shutil.rmtree(work, ignore_errors=True)
        training = f"{recipe.backbone}, {recipe.steps} steps" if len(log) else None
        columns = {"design": cell.design.label, "training": training, "parameters": count}
        return Finished(
            {
                "columns": {**about, **columns, "seed": cell.seed},
                "plan": cell.plan,
                "identity": cell.identity,
                "last": architecture.depth(model.encoder.model),
                "truncated": self.truncated(model),
                "splits": {name: one.split for name, one in self.material.evaluate.items()},
                "spent": {
                    "parameters": count,
                    "steps": recipe.steps if len(log) else 0,
                    "seconds": seconds,
                    "evaluation": time.monotonic() - begun,
                },
                "machine": self.machine,
                "device": str(model.device),
            },
            log,
            scores,
        )

    def evaluate(self, model: EmbeddingModel, encoder: SentenceTransformer) -> dict[str, Score]:
        """The score on every data set of evaluation; every text is encoded once."""
        sets = self.material.evaluate
        texts = self.material.judged
        vectors = encoder.encode(texts, batch_size=128, show_progress_bar=False)
        row = {text: place for place, text in enumerate(texts)}
        return {
            name: PROBES[one.kind](
                one,
                vectors[[row[text] for text in one.texts]],
                seed=self.study.data_seed,
                **self.material.options[name],
            )
            for name, one in sets.items()
        }

    def truncated(self, model: EmbeddingModel) -> dict[str, int]:
        """How many texts of each evaluation set are cut at the study's length, in every design."""
        if not self._truncated:
            tokenise = model.encoder.tokenise
            for name, one in self.material.evaluate.items():
                self._truncated[name] = sum(text.cut > 0 for text in tokenise(one.texts))
        return dict(self._truncated)
