"""What a masked language model reads and predicts: blocks of tokens, some of them masked."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from lab.models.architecture import positions
from lab.models.texts import check_texts

if TYPE_CHECKING:
    from lab.models import EmbeddingModel

Block = dict[str, list[int]]


@dataclass(frozen=True)
class Masking:
    """Which tokens are to be predicted, and what stands in their place.

    Attributes:
        share: of all tokens, drawn anew each time a block is read; special ones are never drawn.
        masked: share of those drawn that become the mask token.
        random: share of those drawn that become a random token; the rest stay as they are.
        token: the mask token, where the tokenizer has none of its own. LLM2Vec's code takes "_".

    Raises:
        ValueError: a share out of range.
    """

    share: float = 0.2
    masked: float = 0.8
    random: float = 0.1
    token: str = "_"

    def __post_init__(self) -> None:
        """Check the shares."""
        if not 0 < self.share <= 1:
            raise ValueError(
                f"the share of tokens to predict is above 0 and at most 1; got {self.share}"
            )
        if not (self.masked >= 0 and self.random >= 0 and self.masked + self.random <= 1):
            raise ValueError(
                "masked and random are shares of the tokens to predict, 0 or more and at most 1 "
                f"together; got {self.masked} and {self.random}"
            )


LLAMA_MASKING = Masking()  # LLM2Vec's code for Llama 2, Llama 3 and S-LLaMA
MISTRAL_MASKING = Masking(share=0.8, masked=1.0, random=0.0)  # and for Mistral


def blocks(model: "EmbeddingModel", texts: Sequence[str], max_length: int | None) -> list[Block]:
    """``input_ids`` and ``special_tokens_mask`` of blocks of ``max_length`` tokens.

    As in LLM2Vec's code: texts with their special tokens, one after the other, without the rest.
    None: blocks of the model's length.

    Raises:
        TypeError, ValueError: something is no text, or blank; no whole block; one too long.
    """
    check_texts(texts)
    length = max_length or model.encoder.max_seq_length
    most = positions(model.encoder.model)
    if not 2 <= length <= (most or length):
        raise ValueError(
            f"blocks have 2 tokens or more and at most {most}, the positions of the model; got "
            f"max_length={length}"
        )
    read = model.tokenizer(list(texts), return_special_tokens_mask=True, verbose=False)
    joined = {key: list(chain(*read[key])) for key in ("input_ids", "special_tokens_mask")}
    tokens = len(joined["input_ids"])
    if tokens < length:
        raise ValueError(
            f"{len(texts)} texts have {tokens} tokens, fewer than one block of {length}: take more "
            "texts or a smaller max_length"
        )
    starts = range(0, tokens - length + 1, length)
    return [{key: row[at : at + length] for key, row in joined.items()} for at in starts]


def collator(model: "EmbeddingModel", masking: Masking, seed: int) -> Any:
    """The ``DataCollatorForLanguageModeling`` of a masking, which draws from ``seed``.

    Raises:
        ValueError: the mask token is none of the tokenizer's.
    """
    from transformers import DataCollatorForLanguageModeling

    tokenizer = copy.deepcopy(model.tokenizer)  # the model's own keeps its special tokens
    if tokenizer.mask_token is None:
        known: Any = tokenizer.convert_tokens_to_ids(masking.token)
        if known is None or known == tokenizer.unk_token_id:
            raise ValueError(
                f"the mask token {masking.token!r} is no token of this tokenizer; name one that is"
            )
        tokenizer.mask_token = masking.token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.mask_token  # asked for, and of no use to equal lengths
    return DataCollatorForLanguageModeling(
        tokenizer,
        mlm_probability=masking.share,
        mask_replace_prob=masking.masked,
        random_replace_prob=masking.random,
        seed=seed,
    )
