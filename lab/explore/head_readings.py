"""One text read by every head: attention maps, and what each head does in numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lab import results
from lab.collapse.filter_rate import of_maps
from lab.models.architecture import backbone, depth
from lab.models.attention_maps import read_maps
from lab.models.texts import TextError
from lab.plotting.heads import Heads

if TYPE_CHECKING:
    from lab.models import EmbeddingModel

MOST_WEIGHTS = 1_000_000  # in all maps of a text: what a browser redraws without a pause


def read_heads(model: "EmbeddingModel", text: str, *, most: int = MOST_WEIGHTS) -> Heads:
    """The maps of every head for one text, with filter rate, entropy and spread of the logits.

    Args:
        model: a lab model, under whose attention and temperature the text is read.
        text: one text; special tokens are part of the maps.
        most: weights in all maps together, n^2 x heads x layers, that are read.

    Raises:
        TypeError, ValueError: no string, an empty text, one that is longer than the model or has
            more weights than ``most``, an architecture without attention maps.
    """
    import torch

    encoder = model.eval().encoder
    try:
        (tokenised,) = encoder.tokenise([text])
    except TextError as error:
        raise ValueError(f"the text {error.why}") from None
    n = len(tokenised.ids) + tokenised.cut
    heads, layers = int(backbone(encoder.model).config.num_attention_heads), depth(encoder.model)
    limit = min(int((most / (heads * layers)) ** 0.5), encoder.max_length or n)
    if n > limit:
        raise ValueError(
            f"the text has {n} tokens and its {layers * heads} maps (layers x heads) would hold "
            f"{n * n * layers * heads:,} weights; the view takes texts of up to {limit} tokens of "
            f"{model.lab_name}: shorten the text"
        )
    device = model.device
    features = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in encoder.collate([tokenised]).items()
    }
    found: list[Any] = []
    with torch.inference_mode():
        read_maps(model, features, lambda layer, maps, values: found.append(maps[0].float().cpu()))
        maps = torch.stack(found)
        measured = of_maps(maps)
    place = np.indices(maps.shape[:2]).reshape(2, -1)
    numbers = pd.DataFrame({
        "layer": place[0] + 1, "head": place[1],
        **{name: values.flatten().double().numpy() for name, values in measured.items()},
    })  # fmt: skip
    return Heads(_shown(encoder.tokenizer, tokenised.ids), maps.numpy(), numbers)


def tabulate(
    readings: Mapping[str, Mapping[float, Heads]], checkpoint: str, **about: Any
) -> pd.DataFrame:
    """The tidy table of the numbers of all heads: probe "attention", the head in column "bin".

    A head without a spread (a map of a single token, or one-hot) has no row for it.
    """
    rows = [
        {"probe": "attention", "checkpoint": checkpoint, "attention": attention,
         "temperature": str(temperature), "layer": int(row["layer"]),
         "bin": f"head {int(row['head'])}", "length": len(read.tokens), "metric": metric,
         "value": float(row[metric]), **about}
        for attention, under in readings.items()
        for temperature, read in under.items()
        for row in read.numbers.to_dict("records")
        for metric in ("filter_rate", "entropy", "spread")
        if np.isfinite(row[metric])
    ]  # fmt: skip
    return results.table(rows)


def _shown(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Tokens as a reader may see them: blanks as a dot, line ends as an arrow."""
    return [
        tokenizer.decode([one]).replace("\n", "⏎").replace(" ", "·")
        or str(tokenizer.convert_ids_to_tokens(one))
        for one in ids
    ]
