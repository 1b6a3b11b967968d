"""Compute the study in plain loops over networks and neurons, with torch.nn and torch.optim."""

import numpy as np
import torch
from reference_scores import choose
from torch import nn
from torch.nn.functional import cross_entropy

from neuronsplit.core.mlp import MLP
from neuronsplit.core.seeds import stream
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.data.datasets import Subset
from neuronsplit.surgery.split_neuron import split_neuron

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9),
    "adam": torch.optim.Adam,
}


def split_by_seed(dataset, seed: int):
    """The data of one seed: training and validation examples are drawn anew from all of both."""
    images, labels = (torch.cat(tensors) for tensors in zip(dataset.train, dataset.validation))
    order = torch.from_numpy(stream(seed, "split").permutation(len(labels)))
    images, labels, n_train = images[order], labels[order], len(dataset.train.labels)
    train, validation = Subset(images[:n_train], labels[:n_train]), Subset(images[n_train:], labels[n_train:])
    return dataset._replace(train=train, validation=validation)


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


def parameters_of(net: nn.Sequential) -> list[torch.Tensor]:
    """The weights of all layers, then their biases as columns, as MLP.parameters has them for one replica."""
    linears = [layer for layer in net if isinstance(layer, nn.Linear)]
    return [*(linear.weight for linear in linears), *(linear.bias[:, None] for linear in linears)]


@torch.no_grad()
def split(net: nn.Sequential, neuron: int, coefficients) -> nn.Sequential:
    """A new network that is wider by one neuron."""
    alpha, beta, gamma, delta = (torch.as_tensor(np.array(c)).float() for c in coefficients)
    n_in, width, n_out = net[0].in_features, net[0].out_features, net[2].out_features
    grown = nn.Sequential(nn.Linear(n_in, width + 1), nn.ReLU(), nn.Linear(width + 1, n_out))
    grown[0].weight[:width], grown[0].bias[:width] = net[0].weight, net[0].bias
    grown[2].weight[:, :width], grown[2].bias[:] = net[2].weight, net[2].bias
    for twin, scale, share in ((neuron, alpha, gamma), (width, beta, delta)):
        grown[0].weight[twin], grown[0].bias[twin] = scale * net[0].weight[neuron], scale * net[0].bias[neuron]
        grown[2].weight[:, twin] = share * net[2].weight[:, neuron]
    return grown


def splits_due(schedule: str, epoch: int, losses: list[float], splits: int) -> int:
    """Return how many of all `splits` are made at the end of an epoch, given the validation losses of all epochs."""
    if schedule == "plateau":
        return int(epoch > 2 and losses[epoch - 2] > 0.99 * losses[epoch - 3])
    epochs_of_splits = {
        "every-epoch": range(1, splits + 1),
        "all-at-1": [1] * splits,
        "all-at-10": [10] * splits,
        "all-at-half": [-(-splits // 2)] * splits,
        "5-per-5-epochs": sorted([*range(5, 10 * splits, 5)] * 5)[:splits],
    }
    return list(epochs_of_splits[schedule]).count(epoch)


def train_epoch(net: nn.Sequential, permutation, train, batch_size: int, optimizer) -> dict[str, float]:
    """An epoch in the order of a permutation: return the mean loss and accuracy of each mini-batch before its step."""
    losses, accuracies = [], []
    for index in permutation.split(batch_size):
        if len(index) == batch_size:
            logits = net(train.images[index])
            loss = cross_entropy(logits, train.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            accuracies.append((logits.argmax(1) == train.labels[index]).float().mean().item())
    return {"train_loss": np.mean(losses), "train_accuracy": np.mean(accuracies)}


def train_epoch_by_sgd(net: nn.Sequential, permutation, train, experiment) -> dict[str, float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=experiment.learning_rate)
    return train_epoch(net, permutation, train, experiment.batch_size, optimizer)


@torch.no_grad()
def evaluate(name: str, net: nn.Sequential, images, labels) -> dict[str, float]:
    logits = net(images)
    correct = (logits.argmax(1) == labels).float()
    return {f"{name}_loss": cross_entropy(logits, labels).item(), f"{name}_accuracy": correct.mean().item()}


def size_of(net: nn.Sequential) -> dict[str, int]:
    return {"hidden": net[0].out_features, "parameters": sum(p.numel() for p in net.parameters())}


def run(experiment, dataset, seed: int) -> list[dict]:
    """One seed of an experiment: a row per epoch."""
    dataset = split_by_seed(dataset, seed)
    control = experiment.policy in ("no-split", "stay-narrow")
    width = experiment.width + (experiment.splits if experiment.policy == "no-split" else 0)
    sizes = (dataset.train.images.shape[1], width, len(dataset.classes))
    net = network(MLP(sizes, [seed]), 0)
    order, coefficients, draws = (stream(seed, name) for name in ("order", "coefficients", "draws"))
    optimizer = OPTIMIZERS[experiment.optimizer](net.parameters(), lr=experiment.learning_rate)
    rows, splits_left = [], 0 if control else experiment.splits
    for epoch in range(1, experiment.epochs + 1):
        permutation = torch.from_numpy(order.permutation(len(dataset.train.labels)))
        trained = train_epoch(net, permutation, dataset.train, experiment.batch_size, optimizer)
        row, parents = {"epoch": epoch} | trained | evaluate("val", net, *dataset.validation), []
        due = splits_due(experiment.schedule, epoch, [row["val_loss"] for row in rows], experiment.splits)
        for _ in range(min(due, splits_left)):
            parents.append(choose(experiment.policy, net, *dataset.validation, draws))
            net, optimizer = split_with_optimizer(net, optimizer, parents[-1], experiment, coefficients)
        splits_left -= len(parents)
        row |= {"split_neuron": " ".join(map(str, parents)) or None} | size_of(net)
        rows.append(row | evaluate("test", net, *dataset.test))
    return rows


def split_with_optimizer(net: nn.Sequential, optimizer, neuron: int, experiment, rng):
    """Split a neuron as an experiment says; return the network and its optimiser."""
    if experiment.optimizer == "sgd":
        net = split(net, neuron, SPLIT_RULES[experiment.growth].draw(rng, net[2].out_features))
        return net, torch.optim.SGD(net.parameters(), lr=experiment.learning_rate)
    images = torch.zeros(1, net[0].in_features)
    # The optimiser's state is split by split_neuron, which has tests of its own.
    split_neuron(net, "0", neuron, example_inputs=images, optimizer=optimizer, rule=experiment.growth, rng=rng)
    return net, optimizer


def run_greedily(experiment, dataset, seed: int) -> list[dict]:
    """One seed of plain SGD that trains every split for an epoch and goes on with the best one: a row per epoch."""
    dataset = split_by_seed(dataset, seed)
    sizes = (dataset.train.images.shape[1], experiment.width, len(dataset.classes))
    nets, rows = [network(MLP(sizes, [seed]), 0)], []
    order, coefficients = (stream(seed, name) for name in ("order", "coefficients"))
    for epoch in range(1, experiment.epochs + 1):
        permutation = torch.from_numpy(order.permutation(len(dataset.train.labels)))
        trained = [train_epoch_by_sgd(net, permutation, dataset.train, experiment) for net in nets]
        losses = [evaluate("val", net, *dataset.validation)["val_loss"] for net in nets]
        best = int(np.argmin(losses))
        if len(nets) > 1:
            rows[-1]["split_neuron"] = str(best)
        net = nets[best]
        row = {"epoch": epoch, "split_neuron": None} | trained[best] | evaluate("val", net, *dataset.validation)
        row |= evaluate("test", net, *dataset.test)
        nets = [net]
        if epoch <= experiment.splits:
            drawn = SPLIT_RULES[experiment.growth].draw(coefficients, sizes[-1])
            nets = [split(net, neuron, drawn) for neuron in range(net[0].out_features)]
        rows.append(row | size_of(nets[0]))
    return rows
