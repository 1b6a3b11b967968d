"""Compute the study in plain loops over networks and neurons, with torch.nn and torch.optim."""

from collections.abc import Callable

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


def decaying_sgd(parameters, lr: float, weight_decay: float, momentum: float) -> torch.optim.SGD:
    """SGD whose weights decay apart from the gradient, before its step."""
    optimizer = torch.optim.SGD(parameters, lr, momentum=momentum)

    @torch.no_grad()
    def decay(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.copy_(p - group["lr"] * weight_decay * p)

    optimizer.register_step_pre_hook(decay)
    return optimizer


OPTIMIZERS = {
    "sgd": lambda parameters, lr, weight_decay=0.0: decaying_sgd(parameters, lr, weight_decay, 0.0),
    "momentum": lambda parameters, lr, weight_decay=0.0: decaying_sgd(parameters, lr, weight_decay, 0.9),
    "adam": lambda parameters, lr, weight_decay=0.0: torch.optim.AdamW(parameters, lr, weight_decay=weight_decay),
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


def learning_rates(experiment) -> list[float]:
    """The learning rate of each epoch, without splits."""
    if experiment.rate_schedule == "constant":
        return [experiment.learning_rate] * experiment.epochs
    optimizer, rates = torch.optim.SGD([torch.zeros(1)], experiment.learning_rate), []
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=experiment.epochs)
    for _ in range(experiment.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def keep(seed: int, step: int, layer: int, width: int, batch_size: int, dropout: float) -> torch.Tensor:
    """What dropout keeps of a layer's activations (B, H) at a step, neuron by neuron."""
    rng = stream(seed, "dropout", step // 16, layer)
    draws = [rng.random((16, batch_size), dtype=np.float32)[step % 16] for _ in range(width)]
    return torch.from_numpy(np.stack(draws, axis=1)) >= dropout


def forward(net: nn.Sequential, images, kept: list[torch.Tensor], dropout: float) -> torch.Tensor:
    """The logits of a network where some activations are dropped, and the rest is scaled."""
    kept = iter(kept)
    for layer in net:
        images = layer(images)
        if isinstance(layer, nn.ReLU):
            images = torch.where(next(kept), images / (1 - dropout), 0)
    return images


def train_epoch(
    net: nn.Sequential, permutation, train, batch_size: int, optimizer, dropout: float = 0, kept: Callable | None = None
) -> dict[str, float]:
    """An epoch in the order of a permutation: return the mean loss and accuracy of each mini-batch before its step.

    kept: a function that returns, by the number of the step, what dropout keeps of each hidden layer.
    """
    losses, accuracies = [], []
    for step, index in enumerate(permutation.split(batch_size)):
        if len(index) == batch_size:
            images = train.images[index]
            logits = forward(net, images, kept(step), dropout) if dropout else net(images)
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
    optimizer = OPTIMIZERS[experiment.optimizer](net.parameters(), experiment.learning_rate, experiment.weight_decay)
    rows, splits_left = [], 0 if control else experiment.splits
    for epoch in range(1, experiment.epochs + 1):
        permutation = torch.from_numpy(order.permutation(len(dataset.train.labels)))
        set_rate(optimizer, experiment, epoch, any(row["split_neuron"] for row in rows))
        trained = train_regularized(net, permutation, dataset.train, experiment, optimizer, seed, epoch)
        row, parents = {"epoch": epoch} | trained | evaluate("val", net, *dataset.validation), []
        due = splits_due(experiment.schedule, epoch, [row["val_loss"] for row in rows], experiment.splits)
        for _ in range(min(due, splits_left)):
            parents.append(choose(experiment.policy, net, *dataset.validation, draws))
            net, optimizer = split_with_optimizer(net, optimizer, parents[-1], experiment, coefficients)
            if experiment.state == "reset":
                reset_last_neuron(net, optimizer)
        splits_left -= len(parents)
        row |= {"split_neuron": " ".join(map(str, parents)) or None} | size_of(net)
        rows.append(row | evaluate("test", net, *dataset.test))
    return rows


def set_rate(optimizer, experiment, epoch: int, grown: bool) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rates(experiment)[epoch - 1] * (experiment.rate_after_split if grown else 1)


def train_regularized(net: nn.Sequential, permutation, train, experiment, optimizer, seed: int, epoch: int):
    """An epoch of an experiment with its dropout."""
    width, size = net[0].out_features, experiment.batch_size
    before = (epoch - 1) * (len(train.labels) // size)
    p = experiment.dropout
    return train_epoch(
        net, permutation, train, size, optimizer, p, lambda step: [keep(seed, before + step, 0, width, size, p)]
    )


@torch.no_grad()
def reset_last_neuron(net: nn.Sequential, optimizer) -> None:
    """Set the running means of gradients to 0, and those of squares to the average of the other neurons."""
    for p, axis in ((net[0].weight, 0), (net[0].bias, 0), (net[2].weight, 1)):
        for name, running in optimizer.state[p].items():
            if name in ("momentum_buffer", "exp_avg"):
                running.select(axis, -1).zero_()
            if name == "exp_avg_sq":
                others = [running.select(axis, j) for j in range(running.shape[axis] - 1)]
                running.select(axis, -1).copy_(sum(others) / len(others))


def split_with_optimizer(net: nn.Sequential, optimizer, neuron: int, experiment, rng):
    """Split a neuron as an experiment says; return the network and its optimiser."""
    if experiment.optimizer == "sgd":
        net = split(net, neuron, SPLIT_RULES[experiment.growth].draw(rng, net[2].out_features))
        decay = getattr(experiment, "weight_decay", 0.0)
        return net, OPTIMIZERS["sgd"](net.parameters(), experiment.learning_rate, decay)
    images = torch.zeros(1, net[0].in_features)
    # The optimiser's state is split by split_neuron, which has tests of its own.
    split_neuron(net, "0", neuron, example_inputs=images, optimizer=optimizer, rule=experiment.growth, rng=rng)
    return net, optimizer


def run_greedily(experiment, dataset, seed: int) -> list[dict]:
    """One seed of SGD that trains every split for an epoch and goes on with the best one: a row per epoch."""
    dataset = split_by_seed(dataset, seed)
    sizes = (dataset.train.images.shape[1], experiment.width, len(dataset.classes))
    nets, rows = [network(MLP(sizes, [seed]), 0)], []
    order, coefficients = (stream(seed, name) for name in ("order", "coefficients"))
    for epoch in range(1, experiment.epochs + 1):
        permutation = torch.from_numpy(order.permutation(len(dataset.train.labels)))
        trained = []
        for net in nets:
            optimizer = OPTIMIZERS["sgd"](net.parameters(), experiment.learning_rate, experiment.weight_decay)
            set_rate(optimizer, experiment, epoch, epoch > 1 and experiment.splits > 0)
            parts = permutation, dataset.train, experiment, optimizer, seed, epoch
            trained.append(train_regularized(net, *parts))
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
