"""One way to train a model on pairs: a head on a frozen backbone, an adapter, or all weights.

>>> recipe = Recipe(steps=200, backbone="lora", learning_rate=2e-4, save_every=50)
>>> trained = train(model, pairs, recipe, folder="runs/lora", held_out=held_out)
>>> trained.log.plot("step", "held_out_loss")
"""

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab.training import checkpoints, guards, session
from lab.training.pairs import Pairs
from lab.training.recipe import Recipe

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lab.training.loop import Loop


@dataclass(frozen=True)
class Trained:
    """What a run did.

    Attributes:
        log: step, loss (of the batch, before its update) and held_out_loss (of the weights after
            this many updates; step 0 is the model as it came), NaN where not measured.
        seconds: wall time of this call.
        parameters: how many numbers were trained.
        steps: updates in all, those of earlier calls that were resumed included.
        repeated: rows of the pairs that share a text with another row; such rows never stand in
            one batch, where each would be a false negative of the other.
    """

    log: pd.DataFrame
    seconds: float
    parameters: int
    steps: int
    repeated: int


def train(
    model: "SentenceTransformer",
    pairs: Pairs,
    recipe: Recipe,
    *,
    folder: str | Path | None = None,
    held_out: Pairs | None = None,
    resume: bool = True,
    progress: bool = True,
) -> Trained:
    """Train a model in place with the trainer of sentence-transformers, and say how it went.

    The loss is InfoNCE on cosines with in-batch and, if the pairs have them, hard negatives (ST's
    ``MultipleNegativesRankingLoss``); gradients are cut to norm 1. The same recipe, pairs and model
    give the same weights to the last bit on CPU, through interruptions too.

    Afterwards the model is in evaluation mode, an adapter is folded in, all parameters take
    gradients that did before, and the global random generators are as they were. After an error it
    holds the weights of the last step without the adapter: load it anew.

    Args:
        model: any sentence-transformers model, such as a lab model.
        pairs: what to train on.
        recipe: how.
        folder: where checkpoints go, every ``save_every`` steps and at the end; None: none.
        held_out: pairs with other texts, for a loss in fixed batches, without dropout, at step 0,
            every ``evaluate_every`` steps and at the end; pairs that fill no batch are left out.
        resume: go on from the last whole checkpoint in ``folder``; False: remove those and begin
            again.
        progress: show a bar after two seconds (not under LAB_MODE=batch).

    Raises:
        ValueError: what the data, the weights or the settings can't give (see lab.training.guards);
            pairs that can't be kept apart in batches; a checkpoint of another configuration.
        FloatingPointError: a loss or gradient that is not finite: step, rows, last good checkpoint.
        MemoryError: memory ran out; what to lower.
        RuntimeError: gradient checkpointing under transformers before 5.23.

    Warns:
        TruncationWarning: texts longer than the model, unless ``max_length`` is given.
        CheckpointWarning: a checkpoint that is not whole was passed over.
    """
    begun = time.perf_counter()
    guards.check_data(pairs, held_out, recipe)
    guards.check_gradient_checkpointing(recipe)
    if folder is None and recipe.save_every is not None:
        raise ValueError(f"save_every={recipe.save_every} needs a folder for the checkpoints")
    mine = None if folder is None else checkpoints.configuration(model, pairs, recipe)
    with ExitStack() as stack:
        preprocess = stack.enter_context(session.counting_cuts(model, recipe))
        place = Path(folder or stack.enter_context(tempfile.TemporaryDirectory()))
        found = _found(place, mine, resume)
        stack.enter_context(session.own_generators(model.device))
        stack.enter_context(session.chosen_parameters(model, recipe))
        guards.check_weights(model, recipe)
        stack.enter_context(session.recomputing(model, recipe.gradient_checkpointing))
        from lab.training.loop import Loop

        loop = Loop(
            model,
            pairs,
            recipe,
            place,
            mine=mine,
            held_out=held_out,
            idle=[model[0]] if recipe.backbone == "frozen" else [],
            preprocess=preprocess,
            progress=progress and os.environ.get("LAB_MODE") != "batch",
        )
        _run(loop, found)
        count = sum(tensor.numel() for tensor in checkpoints.trainable(model).values())
        log = _log(loop.state.log_history)
    return Trained(log, time.perf_counter() - begun, count, recipe.steps, pairs.repeated)


def _found(folder: Path, mine: checkpoints.Configuration | None, resume: bool) -> Path | None:
    """The checkpoint to go on from, if any."""
    if mine is None:
        return None
    if not resume:
        checkpoints.discard(folder)
    return checkpoints.latest(folder, mine)


def _run(loop: "Loop", found: Path | None) -> None:
    """Train from the beginning or from a checkpoint, and explain what goes wrong."""
    loop.args.eval_on_start = loop.args.eval_on_start and found is None
    try:
        if found and checkpoints.step_of(found) == loop.recipe.steps:
            loop.take(found)  # the trainer would take one step more
        else:
            loop.train(resume_from_checkpoint=str(found) if found else None)
    except FloatingPointError as error:
        last = loop.state.global_step
        saved = checkpoints.checkpoints(loop.folder) if loop.mine else []
        good = [path for path in saved if checkpoints.step_of(path) < last]
        raise guards.stopped(error, loop.where, good) from error
    except (MemoryError, RuntimeError) as error:
        if not guards.out_of_memory(error):
            raise
        raise guards.too_much(error, loop.where, loop.recipe) from error


def _log(history: list[dict[str, Any]]) -> pd.DataFrame:
    """The trainer's log as a frame with one row a step."""
    losses, held_out = (
        {entry["step"]: entry[key] for entry in history if key in entry}
        for key in ("loss", "eval_loss")
    )
    steps = sorted(losses | held_out)
    return pd.DataFrame(
        {
            "step": steps,
            "loss": [losses.get(step, np.nan) for step in steps],
            "held_out_loss": [held_out.get(step, np.nan) for step in steps],
        }
    )
