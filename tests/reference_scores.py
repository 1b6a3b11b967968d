"""Compute scores and policies in plain loops over neurons, with torch.nn and autograd."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softplus


@torch.no_grad()
def ablation_losses(net: nn.Sequential, images, labels) -> list[float]:
    """Ablation as the 2021 study did it: the activation is set to 0, and all activations are scaled by H / (H - 1)."""
    activation = net[1](net[0](images))
    width = activation.shape[1]
    losses = []
    for neuron in range(width):
        rest = activation.clone()
        rest[:, neuron] = 0
        rest *= width / (width - 1) if width > 1 else 1
        losses.append(cross_entropy(net[2](rest), labels).item())
    return losses


@torch.no_grad()
def fire_rates(net: nn.Sequential, images) -> list[float]:
    activation = net[1](net[0](images))
    return [(activation[:, neuron] > 0).float().mean().item() for neuron in range(activation.shape[1])]


def gradients(net: nn.Sequential, images, labels) -> list[torch.Tensor]:
    """Gradients by incoming weights (H, n_in), biases (H,), outgoing weights (n_out, H) and output biases (n_out,)."""
    with torch.enable_grad():
        return torch.autograd.grad(cross_entropy(net(images), labels), list(net.parameters()))


@torch.no_grad()
def importances(net: nn.Sequential, images, labels) -> list[float]:
    by_w_in, by_bias, by_w_out, _ = gradients(net, images, labels)
    return [
        (net[0].weight[j] * by_w_in[j]).abs().sum().item()
        + (net[0].bias[j] * by_bias[j]).abs().item()
        + (net[2].weight[:, j] * by_w_out[:, j]).abs().sum().item()
        for j in range(net[0].out_features)
    ]


def splitting_matrix(net: nn.Sequential, neuron: int, images, labels) -> torch.Tensor:
    """The Hessian (n_in + 1, n_in + 1) of Σ ∂L/∂a · softplus(z) by the neuron's (w, b), with ∂L/∂a held constant."""
    activation = net[1](net[0](images)).detach().requires_grad_()
    gradient = torch.autograd.grad(cross_entropy(net[2](activation), labels), activation)[0][:, neuron]  # (N,)

    def loss(theta):
        return (gradient * softplus(images @ theta[:-1] + theta[-1], beta=3)).sum()

    theta = torch.cat([net[0].weight[neuron], net[0].bias[neuron : neuron + 1]]).detach()
    return torch.autograd.functional.hessian(loss, theta)


def max_correlations(net: nn.Sequential, images, labels) -> list[float]:
    """The largest correlation of each activation with another one; 0 for one that is constant or alone."""
    activation = net[1](net[0](images)).detach().double().numpy()
    width, largest = activation.shape[1], []
    for j in range(width):
        of_others = [0.0] if width == 1 else []
        for k in [k for k in range(width) if k != j]:
            sd_product = activation[:, j].std() * activation[:, k].std()
            product = (activation[:, j] - activation[:, j].mean()) * (activation[:, k] - activation[:, k].mean())
            of_others.append(product.mean() / sd_product if sd_product > 0 else 0.0)
        largest.append(max(of_others))
    return largest


def incoming_gradient_norms(net: nn.Sequential, images, labels) -> list[float]:
    by_w_in, by_bias, _, _ = gradients(net, images, labels)
    return [torch.cat([by_w_in[j], by_bias[j : j + 1]]).norm().item() for j in range(net[0].out_features)]


def incoming_norms(net: nn.Sequential, images, labels) -> list[float]:
    return [torch.cat([net[0].weight[j], net[0].bias[j : j + 1]]).norm().item() for j in range(net[0].out_features)]


def smallest_eigenvalues(net: nn.Sequential, images, labels) -> list[float]:
    matrices = [splitting_matrix(net, j, images, labels) for j in range(net[0].out_features)]
    return [torch.linalg.eigvalsh(matrix)[0].item() for matrix in matrices]


SCORES = {  # by the names of the functions of neuronsplit
    "ablation_loss": ablation_losses,
    "fire_rate": lambda net, x, y: fire_rates(net, x),
    "importance": importances,
    "incoming_gradient_norm": incoming_gradient_norms,
    "outgoing_gradient_norm": lambda net, x, y: gradients(net, x, y)[2].norm(dim=0).tolist(),
    "activation_variance": lambda net, x, y: net[1](net[0](x)).var(dim=0, correction=0).tolist(),
    "smallest_eigenvalue": smallest_eigenvalues,
    "incoming_norm": incoming_norms,
    "outgoing_norm": lambda net, x, y: [net[2].weight[:, j].norm().item() for j in range(net[0].out_features)],
    "max_correlation": max_correlations,
}
SCORE_OF_POLICY = {  # policies without their pick
    "loss": "ablation_loss", "importance": "importance", "gradient": "outgoing_gradient_norm",
    "variance": "activation_variance", "eigenvalue": "smallest_eigenvalue",
}  # fmt: skip


def first_best(scores: np.ndarray) -> int:
    """Return the first index whose score is within 1e-6 of the highest one."""
    return next(i for i, score in enumerate(scores) if score >= max(scores) - 1e-6)


def choose(policy: str, net: nn.Sequential, images, labels, rng) -> int:
    if policy == "random":
        return int(rng.random() * net[0].out_features)
    if policy.endswith("fire"):
        rates = np.array(fire_rates(net, images))
        return first_best({"max": rates, "min": -rates, "half": -abs(rates - 0.5)}[policy[:-5]])
    name = policy.removeprefix("max-").removeprefix("min-").removesuffix("-probs")
    scores = np.array(SCORES[SCORE_OF_POLICY[name]](net, images, labels))
    if policy.endswith("probs"):
        odds = np.exp(10 * (scores - scores.max()))
        return int((rng.random() >= (odds / odds.sum()).cumsum()).sum())
    return first_best(scores if policy.startswith("max") else -scores)
