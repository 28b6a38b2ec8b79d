"""The axis vocabulary of the lab, checked at the boundary of every array function.

========  ==========================================================================
layer     hidden states: 0 = embeddings, 1 .. L = transformer layers (L after the final norm)
batch     texts
seq       token positions of a padded batch
dim       features of a token state or of an embedding
========  ==========================================================================

``@checked`` compares every annotated array with these axes at run time and names the parameter,
its actual shape and the axes bound so far. It is for public functions, not for inner loops;
``JAXTYPING_DISABLE=1`` turns it off.
"""

from beartype import beartype
from jaxtyping import Bool, Float, Int, jaxtyped
from torch import Tensor

Hidden = Float[Tensor, "*layer batch seq dim"]
Mask = Bool[Tensor, "batch seq"]
TokenIds = Int[Tensor, "batch seq"]
Weights = Float[Tensor, "batch seq"]
Pooled = Float[Tensor, "*layer batch dim"]
LayerEmbeddings = Float[Tensor, "batch layer dim"]
Embeddings = Float[Tensor, "batch dim"]

checked = jaxtyped(typechecker=beartype)
