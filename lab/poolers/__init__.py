"""Trainable poolings: functions of hidden states with weights of their own.

>>> pooler = build("cross_attention", dim=576, latents=32)
>>> pooler(states, mask).shape            # (batch, token, dim) and (batch, token)
>>> build("cross_attention", dim=576, items=30)    # over the pooled states of 30 layers
>>> within("latent_attention", dim=576, budget=1_000_000)    # options for an equal comparison

:class:`lab.models.trained_pooling.TrainedPooling` makes one a module of a model
(``lab.models.load(..., pooling="cross_attention")``). Poolings without weights: ``lab.pooling``.

To add one, write a subclass of :class:`Pooler` in a module that is imported here, and decorate it
with ``@POOLERS.named("its_name")``; the contract tests (tests/test_poolers.py) apply by themselves.
"""

from lab.poolers.attention import NV_EMBED, PAPER_CODE
from lab.poolers.budget import build, parameters, within
from lab.poolers.pooler import POOLERS, Pooler
from lab.poolers.weights import LowRankAttention, TokenWeights

__all__ = [
    "NV_EMBED",
    "PAPER_CODE",
    "POOLERS",
    "LowRankAttention",
    "Pooler",
    "TokenWeights",
    "build",
    "parameters",
    "within",
]
