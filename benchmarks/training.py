"""A training step of the lab against one of plain sentence-transformers: time and peak memory.

    python benchmarks/training.py [--quick] [--out FILE] [--threads N]

Same checkpoint, pairs, batch, loss (InfoNCE, pairs with a common text apart) and LoRA adapter, on
both sides in float32. How pairs are measured: side_by_side.py. A step is what lies between the
ends of two steps, so setting up is left out; both sides have the same clock. Memory is measured in
a fresh process a side, above the loaded model. Exit code 1: a bound is missed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from side_by_side import Ratio, in_child, main, peak_above, ratio

MODELS = {"minilm-l6": 32, "smollm2-135m": 16}  # pairs a batch
STEPS, MEMORY_STEPS, REPEATS, MEMORY_REPEATS = 12, 3, 5, 3
RATE, RANK, ALPHA, DROPOUT, SCALE = 1e-4, 16, 32, 0.1, 20.0
BOUND = 1.05


def pairs() -> Any:
    """Words with their definitions."""
    from lab import data
    from lab.training.pairs import from_dataset

    return from_dataset(data.load("wordnet-definitions", "dev"))


# --- the sides ---------------------------------------------------------------------------------


def ours(name: str) -> Callable[[int], object]:
    """A function that trains a lab model for so many steps."""
    from lab import models
    from lab.training.adapters import Lora
    from lab.training.recipe import Recipe
    from lab.training.trainer import train

    model, rows = models.load(name, pooling="mean", device="cpu"), pairs()
    lora = Lora(rank=RANK, alpha=ALPHA, dropout=DROPOUT)

    def run(steps: int) -> object:
        recipe = Recipe(steps, batch=MODELS[name], learning_rate=RATE, warmup=0, backbone="lora",
                        lora=lora, loss_temperature=1 / SCALE)  # fmt: skip
        return train(model, rows, recipe, progress=False)

    return run


def theirs(name: str) -> Callable[[int], object]:
    """A function that trains the same checkpoint in plain sentence-transformers."""
    from datasets import Dataset
    from read_outs import stock

    model, frame = adapted(stock(name)), pairs().rows
    rows = Dataset.from_dict({column: frame[column].tolist() for column in frame})
    return lambda steps: plain_training(model, rows, steps, MODELS[name])


def adapted(model: Any) -> Any:
    """The model with an adapter on the linear modules of its layers."""
    from peft import LoraConfig
    from torch import nn

    from lab.models.architecture import layers

    transformer = model[0].model
    inside = {id(module) for layer in layers(transformer) for module in layer.modules()}
    targets = [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside
    ]
    transformer.add_adapter(
        LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=targets)
    )
    return model


def plain_training(model: Any, rows: Any, steps: int, batch: int) -> None:
    """Train the adapter of a model."""
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import (
        SentenceTransformerTrainingArguments,
    )
    from transformers import PrinterCallback

    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model,
            SentenceTransformerTrainingArguments(
                folder,
                max_steps=steps,
                per_device_train_batch_size=batch,
                learning_rate=RATE,
                weight_decay=0.01,
                batch_sampler="no_duplicates",
                dataloader_drop_last=True,
                dataloader_pin_memory=False,
                use_cpu=True,
                save_strategy="no",
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=rows,
            loss=MultipleNegativesRankingLoss(model, scale=SCALE),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


SIDES = {"ours": ours, "theirs": theirs}


# --- time --------------------------------------------------------------------------------------


def clocked(run: Callable[[int], object], steps: int) -> dict[str, float]:
    """Seconds a step, of CPU and of wall time, and wall seconds of the whole call."""
    import transformers.trainer
    from transformers import TrainerCallback

    ends: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append((time.process_time(), time.perf_counter()))

    begun = time.perf_counter()
    transformers.trainer.DEFAULT_CALLBACKS.append(Clock)
    try:
        run(steps)
    finally:
        transformers.trainer.DEFAULT_CALLBACKS.remove(Clock)
    (cpu, wall), (cpu_end, wall_end) = ends[0], ends[-1]
    between = len(ends) - 1
    return {
        "cpu s a step": (cpu_end - cpu) / between,
        "wall s a step": (wall_end - wall) / between,
        "wall s a call": time.perf_counter() - begun,
    }


def times(name: str, repeats: int) -> Iterator[Ratio]:
    """The step time of one checkpoint, and that of a call with everything around the steps."""
    sides = [side(name) for side in SIDES.values()]
    for run in sides:
        run(2)  # lazy imports
    measured = [[clocked(run, STEPS) for run in sides] for _ in range(repeats)]
    for quantity in measured[0][0]:
        found = [(one[quantity], other[quantity]) for one, other in measured]
        bound = BOUND if quantity.startswith("cpu") else None
        yield ratio(f"LoRA, batch {MODELS[name]}", name, quantity, found, bound)


# --- memory ------------------------------------------------------------------------------------


def child(side: str, name: str) -> float:
    """MB that training needs at its peak above the loaded model, which has trained before."""
    run = SIDES[side](name)
    run(1)
    return peak_above(partial(run, MEMORY_STEPS))


def memory(name: str, repeats: int) -> Ratio:
    """Peak memory of some steps."""
    found = [
        (in_child(__file__, "ours", name), in_child(__file__, "theirs", name))
        for _ in range(repeats)
    ]
    return ratio(f"LoRA, batch {MODELS[name]}", name, "peak MB", found, BOUND)


def measure(options: argparse.Namespace) -> Iterator[Ratio]:
    """All ratios, as they come."""
    repeats, memory_repeats = (2, 1) if options.quick else (REPEATS, MEMORY_REPEATS)
    for name in list(MODELS)[: None if options.large else 1]:
        yield from times(name, repeats)
        yield memory(name, memory_repeats)


if __name__ == "__main__":
    sys.exit(main(__doc__, measure, child, {"quick": "fewer repeats", "large": "smollm2-135m too"}))
