"""A normalizing flow: an invertible map to a standard normal, fitted by maximum likelihood.

torch and zuko are imported where they are used: the other repairs need neither.
"""

from typing import TYPE_CHECKING

import numpy as np

from lab.repairs.checks import refuse_constant, whole
from lab.repairs.estimator import Arrays, repair

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from zuko.flows import RealNVP

STATE = "flow."  # begins the names of the network's arrays


def to_gaussian(rows: np.ndarray, arrays: Arrays) -> np.ndarray:
    """The latent vectors (n, d) of the rows: standard normal where the flow fits."""
    import torch

    with torch.no_grad():
        return _rebuilt(arrays)().transform(_scaled(rows, arrays)).numpy()


def from_gaussian(latent: np.ndarray, arrays: Arrays) -> np.ndarray:
    """The rows (n, d) of these latent vectors: the inverse of :func:`to_gaussian`."""
    import torch

    with torch.no_grad():
        scaled = _rebuilt(arrays)().transform.inv(torch.from_numpy(latent)).numpy()
    return scaled * arrays["scale"] + arrays["mean"]


def log_likelihood(rows: np.ndarray, arrays: Arrays) -> np.ndarray:
    """(n,) the log-density of each row under the flow, in nats."""
    import torch

    with torch.no_grad():
        scaled = _rebuilt(arrays)().log_prob(_scaled(rows, arrays)).numpy()
    return scaled - np.log(arrays["scale"]).sum()


@repair(to_gaussian)
def flow(
    rows: np.ndarray,
    *,
    transforms: int = 8,
    hidden: int = 64,
    epochs: int = 100,
    patience: int = 5,
    batch: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Arrays:
    """The latent vectors of a RealNVP flow to N(0, I), fitted by maximum likelihood.

    The idea of BERT-flow (Li et al. 2020, arXiv:2011.05864) with zuko's RealNVP (arXiv:1605.08803)
    in place of its Glow. What differs: affine couplings behind random masks, where its released
    configurations have additive ones and a fixed reversal of the channels; one z-scoring before the
    flow for an actnorm in every step; no latent is split off between levels; early stopping. As in
    Glow the last layer of every coupling starts at zero, so the flow starts as a z-score and keeps
    the epoch that a tenth of the rows, held out, is likeliest under. On a CPU, in float64: the same
    rows and seed give the same flow. ``arrays_["held_out"]`` is the mean log-likelihood of the
    held-out rows, z-scored, before training and after every epoch.

    Args:
        rows: the embeddings.
        transforms: how many couplings.
        hidden: width of the two hidden layers in each.
        epochs: at most.
        patience: epochs without improvement after which training stops.
        batch: rows a step.
        learning_rate: of Adam.
        seed: of the weights, the masks, the held-out rows and the batches.

    Raises:
        ValueError: fewer than 20 rows; d = 1; a dimension that is constant in the rows trained on;
            impossible options.
        FloatingPointError: the likelihood diverged.
    """
    import torch

    n, d = rows.shape
    if n < 20 or d < 2:
        raise ValueError(f"a flow is fitted on 20 rows or more with d >= 2; got {n} rows, d = {d}")
    sizes = {"transforms": transforms, "hidden": hidden, "batch": batch, "patience": patience}
    for option, value in sizes.items():
        whole(option, value, 2**31, "any rows")
    whole("epochs", epochs, 2**31, "any rows", least=0)
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is a positive number; got {learning_rate!r}")
    generator = torch.Generator().manual_seed(int(seed))
    order = torch.randperm(n, generator=generator).numpy()
    held, kept = rows[order[: n // 10]], rows[order[n // 10 :]]
    refuse_constant(kept, "no scale")
    arrays = {"mean": kept.mean(0), "scale": kept.std(0), "size": np.array([transforms, hidden])}
    model = _untrained(d, transforms, hidden, seed)
    with torch.enable_grad():
        arrays["held_out"] = _train(
            model,
            _scaled(kept, arrays),
            _scaled(held, arrays),
            epochs=epochs,
            patience=patience,
            batch=batch,
            learning_rate=learning_rate,
            generator=generator,
        )
    state = {f"{STATE}{name}": value.numpy() for name, value in model.state_dict().items()}
    return {**arrays, **state}


def _scaled(rows: np.ndarray, arrays: Arrays) -> "Tensor":
    import torch

    return torch.from_numpy((rows - arrays["mean"]) / arrays["scale"])


def _untrained(d: int, transforms: int, hidden: int, seed: int) -> "RealNVP":
    """A flow in float64 that is the identity; torch's own generator is left as it was."""
    import torch
    from zuko.flows import RealNVP

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        model = RealNVP(
            d, transforms=int(transforms), randmask=True, hidden_features=[int(hidden)] * 2
        ).double()
    for coupling in model.transform.transforms:
        torch.nn.init.zeros_(coupling.hyper[-1].weight)
        torch.nn.init.zeros_(coupling.hyper[-1].bias)
    return model


def _rebuilt(arrays: Arrays) -> "RealNVP":
    """The flow of these arrays."""
    import torch

    transforms, hidden = arrays["size"]
    model = _untrained(len(arrays["mean"]), transforms, hidden, seed=0)
    state = {
        name.removeprefix(STATE): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(STATE)
    }
    model.load_state_dict(state)
    return model


def _train(
    model: "RealNVP",
    kept: "Tensor",
    held: "Tensor",
    *,
    epochs: int,
    patience: int,
    batch: int,
    learning_rate: float,
    generator: "Generator",
) -> np.ndarray:
    """The held-out mean log-likelihood per epoch; the model is left in its best one."""
    import torch

    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history: list[float] = []
    best = {}
    for epoch in range(epochs + 1):
        for chosen in torch.randperm(len(kept), generator=generator).split(batch) if epoch else ():
            loss = -model().log_prob(kept[chosen]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            history.append(float(model().log_prob(held).mean()))
        if not np.isfinite(history[-1]):
            raise FloatingPointError(
                f"the likelihood diverged in epoch {epoch}; lower learning_rate ({learning_rate})"
            )
        if history[-1] == max(history):
            best = {name: value.clone() for name, value in model.state_dict().items()}
        if epoch - int(np.argmax(history)) >= patience:
            break
    model.load_state_dict(best)
    return np.array(history)
