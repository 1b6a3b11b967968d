"""Policies that were fitted to splits whose effect was measured by further training: `measuring` fits them.

The learned policies are small networks, which predict how much each possible split lowers the loss. The ridge policies
and the rank sum are linear. Their inputs do not depend on scale: they are ranks, shares and the width of the network.
So they can choose neurons in networks of any width.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuronsplit.core.mlp import MLP
from neuronsplit.growing.scores import FEATURES, Activations

FILE = Path(__file__).with_name("learned.npz")
RANK_FEATURES = (
    "ablation_loss importance incoming_gradient_norm outgoing_gradient_norm activation_variance smallest_eigenvalue "
    "incoming_norm outgoing_norm"
).split()
NETWORK_FEATURES = ("width", "max_epochs_since_split")  # the same for all neurons of a network
FEATURE_NAMES = (*RANK_FEATURES, "fire_rate", "max_correlation", "epochs_since_split", *NETWORK_FEATURES)
Weights = dict[str, np.ndarray]  # the parameters of a policy, the scales of a network, and the seeds it was fitted to


def features(scores: dict[str, Tensor]) -> Tensor:
    """Return the inputs of fitted policies (R, H, len(FEATURE_NAMES)).

    scores: the scores in FEATURES by name, (R, H) each.
    Ranks run from −½ to ½, and equal scores share their mean rank. The fire rate and the correlation stay as they are.
    The epochs since a neuron's split are divided by their maximum in the network. That maximum and the width are
    logarithms.
    """
    ranks = [_rank(scores[name]) for name in RANK_FEATURES]
    since = scores["epochs_since_split"]  # (R, H)
    oldest = since.amax(1, keepdim=True).expand_as(since)
    width = torch.full_like(since, since.shape[1])
    rest = [scores["fire_rate"], scores["max_correlation"], since / oldest.clamp(min=1), width.log(), oldest.log1p()]
    return torch.stack([column.float() for column in [*ranks, *rest]], dim=2)


def _rank(values: Tensor) -> Tensor:
    above = (values[:, :, None] > values[:, None]).double() + 0.5 * (values[:, :, None] == values[:, None])  # (R, H, H)
    return (above.sum(2) - 0.5) / max(values.shape[1] - 1, 1) - 0.5 * (values.shape[1] > 1)


def predict(weights: Weights, x: Tensor) -> Tensor:
    """Predict how much lower the validation loss ends with each split than without it, (R, H).

    weights: of a fitted policy. x: what `features` returns.
    A learned policy predicts a value, common to all neurons, plus the advantage of each neuron. The mean advantage is
    0. This is a dueling head (Wang et al. 2016, arXiv 1511.06581, eq. 9). A linear policy only ranks the neurons of a
    network: its prediction is the sum of the inputs, each times its coefficient.
    """
    w = {name: torch.from_numpy(array).to(x) for name, array in weights.items()}
    if "coefficients" in w:
        return x @ w["coefficients"]
    value, advantage = value_and_advantage(w, (x - w["mean"]) / w["sd"])
    return value * w["value"] + advantage * w["advantage"]


def value_and_advantage(w: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a network with weights w makes of scaled inputs x: a value (R, 1), and advantages (R, H)."""
    hidden = torch.relu(x @ w["w_in"] + w["bias"])  # (R, H, units)
    value, advantage = (hidden @ w["w_out"]).unbind(2)  # (R, H) each
    return value.mean(1, keepdim=True), advantage - advantage.mean(1, keepdim=True)


@cache
def weights() -> dict[str, Weights]:
    """Return the weights that come with the package, by policy; notebook 12 fits them. Reading them runs no code."""
    fitted: dict[str, Weights] = {}
    with np.load(FILE, allow_pickle=False) as file:
        for key, values in file.items():  # a key is a policy, "/" and the name of a parameter
            policy, name = key.split("/")
            fitted.setdefault(policy, {})[name] = values
    return fitted


def predicted_gain(policy: str, mlp: MLP, blocks: list[Activations]) -> Tensor:
    """Predict by a fitted policy what each split gains, (R, H)."""
    return predict(weights()[policy], features({feature.__name__: feature(mlp, blocks) for feature in FEATURES}))
