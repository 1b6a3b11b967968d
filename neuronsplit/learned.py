"""The network that decides: what a split of each neuron would bring, learned from splits that were made.

It sees what is known of the neurons of a network, made free of scale, so that one network decides for others of any
width: their ranks among the neurons, shares, and the width and age of the network.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from neuronsplit.model import MLP
from neuronsplit.scores import FEATURES, Seen

FILE = Path(__file__).with_name("learned.npz")
RANKED = (
    "loss_after_removal importance incoming_gradient outgoing_gradient activation_variance smallest_eigenvalue "
    "fan_in fan_out"
).split()
INPUTS = (*RANKED, "fire_rate", "nearest", "since_split", "width", "age")
Weights = dict[str, np.ndarray]  # of the network, and the scales of what goes in and comes out


def inputs(known: dict[str, Tensor]) -> Tensor:
    """What the network sees of every neuron (R, H, INPUTS), from FEATURES (R, H) by their names.

    Ranks from −½ to ½, the mean one for equals; fire rate and correlation as they are; epochs since its split as a
    share of those of the oldest neuron; logarithms of the width and of one more than the oldest neuron's age.
    """
    ranks = [_rank(known[name]) for name in RANKED]
    since = known["since_split"]  # (R, H)
    oldest = since.amax(1, keepdim=True).expand_as(since)
    width = torch.full_like(since, since.shape[1])
    rest = [known["fire_rate"], known["nearest"], since / oldest.clamp(min=1), width.log(), oldest.log1p()]
    return torch.stack([column.float() for column in [*ranks, *rest]], dim=2)


def _rank(values: Tensor) -> Tensor:
    above = (values[:, :, None] > values[:, None]).double() + 0.5 * (values[:, :, None] == values[:, None])  # (R, H, H)
    return (above.sum(2) - 0.5) / max(values.shape[1] - 1, 1) - 0.5 * (values.shape[1] > 1)


def predict(weights: Weights, x: Tensor) -> Tensor:
    """How much lower a network ends by each split than unsplit, in validation loss (R, H), from `inputs` (R, H, ·).

    The sum of what a split brings whatever the neuron, and of what the neuron makes of it, which is 0 in the mean.
    """
    w = {name: torch.from_numpy(values).to(x) for name, values in weights.items()}
    worth, choice = _outputs(w, (x - w["mean"]) / w["sd"])
    return worth * w["worth"] + choice * w["choice"]


def _outputs(w: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    hidden = torch.relu(x @ w["fan_in"] + w["bias"])  # (R, H, units)
    worth, choice = (hidden @ w["fan_out"]).unbind(2)  # (R, H) each
    return worth.mean(1, keepdim=True), choice - choice.mean(1, keepdim=True)


def fit(
    networks: list[tuple[Tensor, Tensor]], rng: torch.Generator, units: int = 16, steps: int = 100, decay: float = 1.0
) -> Weights:
    """Train the network on others: of each its `inputs` (1, H, ·) and the gain (1, H) of every split over none.

    Squared errors, with equal weight, of the mean gain of a network and of the gains about it, these on the scale of
    their own spread, so that every network counts alike. By AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101). Raises
    ValueError for a gain that is not finite, as of a network that diverged.
    """
    if not all(gain.isfinite().all() for _, gain in networks):
        raise ValueError("gains of nan or inf: allowed are those of networks that did not diverge")
    x = torch.cat([one.flatten(0, 1) for one, _ in networks])
    mean, sd = x.mean(0), x.std(0).clamp(min=0.01)
    worths = torch.stack([gain.mean() for _, gain in networks])
    spreads = torch.stack([gain.std(correction=0) for _, gain in networks])
    spreads = spreads.clamp(min=1e-3 * spreads.mean().item() or 1)  # of one neuron, or of equals, there is none
    scale = worths.abs().mean()
    bound = x.shape[1] ** -0.5
    w = {
        "fan_in": (2 * torch.rand(x.shape[1], units, generator=rng) - 1) * bound,
        "bias": torch.zeros(units),
        "fan_out": (2 * torch.rand(units, 2, generator=rng) - 1) * units**-0.5,
    }
    optimizer = torch.optim.AdamW([p.requires_grad_() for p in w.values()], lr=0.01, weight_decay=decay)
    by_width = {}  # networks of one width at once
    for (one, gain), worth, spread in zip(networks, worths, spreads):
        target = (worth[None] / scale, (gain - worth) / spread)
        by_width.setdefault(one.shape[1], []).append(((one - mean) / sd, *target))
    batches = [[torch.cat([parts[0] for parts in of]), torch.stack([p[1] for p in of]), torch.cat([p[2] for p in of])]
               for of in by_width.values()]  # fmt: skip
    for _ in range(steps):
        optimizer.zero_grad()
        for seen, worth, about in batches:
            found_worth, choice = _outputs(w, seen)
            loss = mse_loss(found_worth, worth) + mse_loss(choice, about)
            (loss * (len(seen) / len(networks))).backward()
        optimizer.step()
    scales = {"mean": mean, "sd": sd, "worth": scale, "choice": spreads.mean()}
    return {name: values.detach().numpy() for name, values in (w | scales).items()}


@cache
def weights() -> Weights:
    """Those that the package has, made by the notebook 10_a_network_that_decides; nothing in the file is code."""
    with np.load(FILE, allow_pickle=False) as file:
        return dict(file)


def predicted_gain(mlp: MLP, seen: list[Seen]) -> Tensor:
    """How much lower the networks would end by each split than unsplit (R, H), in validation loss after ten epochs."""
    known = {feature.__name__: feature(mlp, seen) for feature in FEATURES}
    return predict(weights(), inputs(known))
