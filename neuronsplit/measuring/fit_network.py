"""Fit a learned policy, which is a network with one hidden layer, to the gains of measured splits."""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from neuronsplit.growing.learned import Weights, value_and_advantage


def fit_network(
    networks: list[tuple[Tensor, Tensor]],
    rng: torch.Generator,
    n_units: int = 16,
    n_steps: int = 100,
    weight_decay: float = 1.0,
) -> Weights:
    """Fit the weights of the learned policy to the gains of splits.

    networks: for each network, what `features` returns (1, H, ·) and the gains (1, H) of its splits.
    rng: draws the initial weights. n_units: hidden units. n_steps, weight_decay: of the optimiser, AdamW (Loshchilov &
        Hutter 2019, arXiv 1711.05101).

    The loss is the squared error of a network's mean gain, plus that of the gains' differences from it. The second part
    is in units of their standard deviation, so that all networks have the same influence.
    Raises ValueError for a gain that is not finite, which a network that diverged has.
    """
    scales, targets = _scales(networks)
    n_features, bound = len(scales["mean"]), len(scales["mean"]) ** -0.5
    w = {
        "w_in": (2 * torch.rand(n_features, n_units, generator=rng) - 1) * bound,
        "bias": torch.zeros(n_units),
        "w_out": (2 * torch.rand(n_units, 2, generator=rng) - 1) * n_units**-0.5,
    }
    optimizer = torch.optim.AdamW([p.requires_grad_() for p in w.values()], lr=0.01, weight_decay=weight_decay)
    batches = _batches_by_width(networks, targets, scales)
    for _ in range(n_steps):
        optimizer.zero_grad()
        for x, value_target, advantage_target in batches:
            value, advantage = value_and_advantage(w, x)
            loss = mse_loss(value, value_target) + mse_loss(advantage, advantage_target)
            (loss * (len(x) / len(networks))).backward()
        optimizer.step()
    return {name: array.detach().numpy() for name, array in (w | scales).items()}


def spreads(gains: list[Tensor]) -> Tensor:
    """Return the standard deviations (N,) of the gains of N networks; where there is none, a thousandth of their mean.

    Raises ValueError for a gain that is not finite, which a network that diverged has.
    """
    if not all(gain.isfinite().all() for gain in gains):
        raise ValueError("gains of nan or inf: allowed are gains of networks that did not diverge")
    found = torch.stack([gain.std(correction=0) for gain in gains])
    return found.clamp(min=1e-3 * found.mean().item() or 1)


def _scales(networks: list[tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """Return the scales of inputs and outputs, and the targets of each network: value (1,) and advantages (1, H)."""
    x = torch.cat([one.flatten(0, 1) for one, _ in networks])
    values, sds = torch.stack([gain.mean() for _, gain in networks]), spreads([gain for _, gain in networks])
    scale = values.abs().mean()
    scales = {"mean": x.mean(0), "sd": x.std(0).clamp(min=0.01), "value": scale, "advantage": sds.mean()}
    targets = [(v[None] / scale, (gain - v) / s) for (_, gain), v, s in zip(networks, values, sds)]
    return scales, targets


def _batches_by_width(networks: list, targets: list, scales: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return inputs (B, H, ·), values (B, 1) and advantages (B, H) of networks of the same width, batch by batch."""
    by_width = {}
    for (x, _), (value, advantage) in zip(networks, targets):
        by_width.setdefault(x.shape[1], []).append(((x - scales["mean"]) / scales["sd"], value, advantage))
    return [
        (torch.cat(x), torch.stack(value), torch.cat(adv)) for x, value, adv in (zip(*b) for b in by_width.values())
    ]
