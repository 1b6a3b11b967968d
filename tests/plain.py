"""The study the plain way: one network at a time, torch.nn and torch.optim, one neuron removed at a time."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from neuronsplit.model import MLP
from neuronsplit.seeds import stream
from neuronsplit.split import RULES


def network(mlp: MLP, replica: int) -> nn.Sequential:
    """One replica as a torch.nn network."""
    layers = []
    for w, b in zip(mlp.weights, mlp.biases):
        linear = nn.Linear(w.shape[2], w.shape[1], dtype=w.dtype)
        with torch.no_grad():
            linear.weight.copy_(w[replica])
            linear.bias.copy_(b[replica, :, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def losses_after_removal(net: nn.Sequential, images, labels) -> list[float]:
    """Removal as the original did it: the activation set to 0, all activations times H / (H - 1)."""
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


def first(best: np.ndarray) -> int:
    """The lowest index among those that hold the best value to 1e-6."""
    return next(i for i, value in enumerate(best) if value >= max(best) - 1e-6)


def choose(policy: str, net: nn.Sequential, images, labels, rng) -> int:
    if policy == "random":
        return int(rng.random() * net[0].out_features)
    if policy.endswith("fire"):
        rates = np.array(fire_rates(net, images))
        return first({"max": rates, "min": -rates, "half": -abs(rates - 0.5)}[policy[:-5]])
    losses = np.array(losses_after_removal(net, images, labels))
    if policy == "loss-probs":
        odds = np.exp(10 * (losses - losses.max()))
        return int((rng.random() >= (odds / odds.sum()).cumsum()).sum())
    return first(losses if policy == "max-loss" else -losses)


@torch.no_grad()
def split(net: nn.Sequential, neuron: int, coefficients) -> nn.Sequential:
    """A new network, wider by one neuron."""
    alpha, beta, gamma, delta = (torch.as_tensor(np.array(c)).float() for c in coefficients)
    n_in, width, n_out = net[0].in_features, net[0].out_features, net[2].out_features
    grown = nn.Sequential(nn.Linear(n_in, width + 1), nn.ReLU(), nn.Linear(width + 1, n_out))
    grown[0].weight[:width], grown[0].bias[:width] = net[0].weight, net[0].bias
    grown[2].weight[:, :width], grown[2].bias[:] = net[2].weight, net[2].bias
    for place, scale, share in ((neuron, alpha, gamma), (width, beta, delta)):
        grown[0].weight[place], grown[0].bias[place] = scale * net[0].weight[neuron], scale * net[0].bias[neuron]
        grown[2].weight[:, place] = share * net[2].weight[:, neuron]
    return grown


def run(experiment, dataset, seed: int) -> list[dict]:
    """One repeat: a row an epoch."""
    control = experiment.policy == "no-split"
    width = experiment.width + (experiment.splits if control else 0)
    sizes = (dataset.train.images.shape[1], width, len(dataset.classes))
    net = network(MLP(sizes, seed=seed), 0)
    order, coefficients, draws = (stream(seed, name) for name in ("order", "coefficients", "draws"))
    rows = []
    for epoch in range(1, experiment.epochs + 1):
        optimizer = torch.optim.SGD(net.parameters(), lr=experiment.learning_rate)
        losses, hits = [], []
        permutation = torch.from_numpy(order.permutation(len(dataset.train.labels)))
        for batch in permutation.split(experiment.batch_size):
            if len(batch) < experiment.batch_size:
                continue
            images, labels = dataset.train.images[batch], dataset.train.labels[batch]
            logits = net(images)
            loss = cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            hits.append((logits.argmax(1) == labels).float().mean().item())
        neuron = None
        if epoch <= experiment.splits and not control:
            neuron = choose(experiment.policy, net, *dataset.validation, draws)
            net = split(net, neuron, RULES[experiment.rule](coefficients, sizes[-1]))
        row = {"epoch": epoch, "split_neuron": neuron, "hidden": net[0].out_features}
        row |= {"parameters": sum(p.numel() for p in net.parameters())}
        row |= {"train_loss": np.mean(losses), "train_accuracy": np.mean(hits)}
        with torch.no_grad():
            for name, (images, labels) in {"val": dataset.validation, "test": dataset.test}.items():
                logits = net(images)
                row[f"{name}_loss"] = cross_entropy(logits, labels).item()
                row[f"{name}_accuracy"] = (logits.argmax(1) == labels).float().mean().item()
        rows.append(row)
    return rows
