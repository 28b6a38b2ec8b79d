"""The trainer of sentence-transformers with what a lab run adds: guards, small checkpoints, a log.

Everything else (optimiser, schedule, autocast, order of batches, resumption) is the library's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.training_args import (
    SentenceTransformerTrainingArguments,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from lab.training import checkpoints
from lab.training.batches import ROW, Apart, rows_of
from lab.training.callbacks import Intervals, Progress
from lab.training.guards import check_finite, described
from lab.training.pairs import COLUMNS, Pairs
from lab.training.recipe import Recipe


class Loop(SentenceTransformerTrainer):
    """One run of a recipe over a model; :func:`lab.training.trainer.train` is the way in.

    Args:
        model: what is trained; the parameters that take gradients are chosen already.
        pairs: the rows.
        recipe: the settings.
        folder: where checkpoints go.
        mine: what they are marked with; None: none are written.
        held_out: pairs for the held-out loss.
        idle: modules that stay in evaluation mode.
        preprocess: texts to the features of the first module.
        progress: show a bar.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        pairs: Pairs,
        recipe: Recipe,
        folder: Path,
        *,
        mine: checkpoints.Configuration | None,
        held_out: Pairs | None,
        idle: Sequence[nn.Module],
        preprocess: Callable[..., dict[str, Any]],
        progress: bool,
    ) -> None:
        self.pairs, self.recipe, self.folder, self.mine = pairs, recipe, folder, mine
        self.idle, self.rows, self.saving_in = idle, list[int](), folder
        super().__init__(
            model,
            arguments(model, recipe, folder, saves=mine is not None, evaluates=bool(held_out)),
            train_dataset=rows_of(pairs),
            eval_dataset=rows_of(held_out) if held_out else None,
            loss=loss_of(model, recipe),
            data_collator=SentenceTransformerDataCollator(
                preprocess, valid_label_columns=[ROW], max_length=recipe.max_length
            ),
            callbacks=[Intervals(), *([Progress()] if progress else [])],
        )
        self.processing_class = None  # the trainer would write its special tokens into the config
        self.remove_callback(PrinterCallback)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: it reads the data and asks the hub for what it finds."""

    # --- steps -------------------------------------------------------------------------------

    def collect_features(
        self, inputs: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], Tensor | None]:
        """The features of each column, whatever their names, and the row numbers.

        Raises:
            ValueError: texts in several windows, which mini-batches would tear apart.
        """
        columns = [
            {
                key.removeprefix(f"{column}_"): value
                for key, value in inputs.items()
                if key.startswith(f"{column}_")
            }
            for column in COLUMNS
        ]
        if self.recipe.mini_batch and any("windows" in features for features in columns):
            raise ValueError(
                f"mini_batch={self.recipe.mini_batch} splits a batch by rows, and this model's "
                "extension makes several windows a text: set mini_batch=None or another extension"
            )
        return [features for features in columns if features], inputs[ROW]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch; frozen modules compute as in evaluation, without dropout.

        Raises:
            FloatingPointError: it is not finite.
        """
        self.rows = inputs[ROW].tolist()
        for module in self.idle:
            module.eval()
        result = super().compute_loss(model, inputs, *args, **kwargs)
        check_finite("loss", result[0] if isinstance(result, tuple) else result)
        return result

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """The norm of the gradient before it is cut to at most 1.

        Raises:
            FloatingPointError: it is not finite; no step was taken.
        """
        norm = super()._clip_grad_norm(model)
        check_finite("norm of the gradient", norm)
        return norm

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The held-out pairs in batches that are the same in every run, and draw on no generator.

        Otherwise evaluation would shift the random numbers of training.
        """
        batches = Apart(
            self.eval_dataset,
            self.recipe.batch,
            drop_last=True,
            valid_label_columns=[ROW],
            generator=torch.Generator(),
        )
        return DataLoader(
            self.eval_dataset,  # type: ignore[arg-type]  # datasets' own class of that name
            batch_sampler=batches,
            collate_fn=self.data_collator,
            generator=torch.Generator(),
        )

    @property
    def where(self) -> str:
        """Where the run is, and which pairs it is at."""
        step, steps = self.state.global_step, self.recipe.steps
        if not self.model.training:
            return f"held-out pairs after step {step} of {steps}"
        return (
            f"step {step + 1} of {steps}, which was not taken, {described(self.rows, self.pairs)}"
        )

    # --- checkpoints -------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.saving_in)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The library's checkpoint, written beside its place and then moved there."""

        def write(beside: Path) -> Path:
            self.saving_in = beside
            try:
                super(Loop, self)._save_checkpoint(model, trial)
            finally:
                self.saving_in = self.folder
            return beside / f"checkpoint-{self.state.global_step}"

        assert self.mine is not None  # it is asked to save only with a configuration
        checkpoints.write_whole(self.folder, self.mine, write)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None  # of a checkpoint; nothing else asks
        checkpoints.write_weights(self.model, Path(output_dir))

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override]
        checkpoints.restore(self.model, Path(checkpoint_path))

    def take(self, checkpoint: Path) -> None:
        """The weights and the log of a checkpoint, without training on."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))


# --- parts ---------------------------------------------------------------------------------------


def loss_of(model: SentenceTransformer, recipe: Recipe) -> nn.Module:
    """InfoNCE over the positives and negatives of the batch, cached if the recipe says so."""
    scale = 1 / recipe.loss_temperature
    if recipe.mini_batch is None:
        return MultipleNegativesRankingLoss(model, scale=scale)
    return CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=recipe.mini_batch)


def arguments(
    model: SentenceTransformer, recipe: Recipe, folder: Path, *, saves: bool, evaluates: bool
) -> SentenceTransformerTrainingArguments:
    """The recipe in the words of the trainer."""
    on_gpu = model.device.type != "cpu"
    chosen = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch,
        per_device_eval_batch_size=recipe.batch,
        dataloader_drop_last=True,
        dataloader_pin_memory=on_gpu,
        batch_sampler=Apart,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        seed=recipe.seed,
        data_seed=recipe.seed,
        bf16=recipe.precision == "bfloat16",
        use_cpu=not on_gpu,
        use_cache=bool(getattr(model.config, "use_cache", False)),  # as it is in the config
        logging_steps=1,
        eval_strategy="steps" if evaluates else "no",
        eval_on_start=evaluates,
        eval_steps=recipe.evaluate_every or recipe.steps,
        save_strategy="steps" if saves else "no",
        save_steps=recipe.save_every or recipe.steps,
        disable_tqdm=True,
        report_to="none",
    )
    chosen._n_gpu = min(chosen.n_gpu, 1)  # on several, DataParallel would split batches
    return chosen
