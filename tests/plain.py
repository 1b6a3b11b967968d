"""The study the plain way: one network at a time, torch.nn and torch.optim, one neuron removed at a time."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softplus

from neuronsplit.model import MLP
from neuronsplit.seeds import stream
from neuronsplit.split import RULES
from neuronsplit.surgery import split_neuron


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


def gradients(net: nn.Sequential, images, labels) -> list[torch.Tensor]:
    """Of the mean loss, by fan-in (H, n_in), bias (H,), fan-out (n_out, H) and output bias."""
    with torch.enable_grad():
        return torch.autograd.grad(cross_entropy(net(images), labels), list(net.parameters()))


@torch.no_grad()
def importances(net: nn.Sequential, images, labels) -> list[float]:
    fan_in, bias, fan_out, _ = gradients(net, images, labels)
    return [
        (net[0].weight[j] * fan_in[j]).abs().sum().item()
        + (net[0].bias[j] * bias[j]).abs().item()
        + (net[2].weight[:, j] * fan_out[:, j]).abs().sum().item()
        for j in range(net[0].out_features)
    ]


def splitting_matrix(net: nn.Sequential, neuron: int, images, labels) -> torch.Tensor:
    """The Hessian (n_in + 1, n_in + 1), by autograd, of Σ ∂L/∂a · softplus(z) by the neuron's (w, b), ∂L/∂a held."""
    activation = net[1](net[0](images)).detach().requires_grad_()
    back = torch.autograd.grad(cross_entropy(net[2](activation), labels), activation)[0][:, neuron]  # (N,)

    def loss(theta):
        return (back * softplus(images @ theta[:-1] + theta[-1], beta=3)).sum()

    theta = torch.cat([net[0].weight[neuron], net[0].bias[neuron : neuron + 1]]).detach()
    return torch.autograd.functional.hessian(loss, theta)


def nearest(net: nn.Sequential, images, labels) -> list[float]:
    """The largest correlation of each activation with another's; 0 for one that is constant or alone."""
    activation = net[1](net[0](images)).detach().double().numpy()
    width, found = activation.shape[1], []
    for j in range(width):
        others = [0.0] if width == 1 else []
        for k in [k for k in range(width) if k != j]:
            both = activation[:, j].std() * activation[:, k].std()
            product = (activation[:, j] - activation[:, j].mean()) * (activation[:, k] - activation[:, k].mean())
            others.append(product.mean() / both if both > 0 else 0.0)
        found.append(max(others))
    return found


def incoming(net: nn.Sequential, images, labels) -> list[float]:
    fan_in, bias, _, _ = gradients(net, images, labels)
    return [torch.cat([fan_in[j], bias[j : j + 1]]).norm().item() for j in range(net[0].out_features)]


SCORES = {
    "importance": importances,
    "gradient": lambda net, x, y: gradients(net, x, y)[2].norm(dim=0).tolist(),
    "variance": lambda net, x, y: net[1](net[0](x)).var(dim=0, correction=0).tolist(),
    "eigenvalue": lambda net, x, y: [
        torch.linalg.eigvalsh(splitting_matrix(net, j, x, y))[0].item() for j in range(net[0].out_features)
    ],
    "incoming": incoming,
    "nearest": nearest,
    "fan-in": lambda net, x, y: [
        torch.cat([net[0].weight[j], net[0].bias[j : j + 1]]).norm().item() for j in range(net[0].out_features)
    ],
    "fan-out": lambda net, x, y: [net[2].weight[:, j].norm().item() for j in range(net[0].out_features)],
}


def first(best: np.ndarray) -> int:
    """The lowest index among those that hold the best value to 1e-6."""
    return next(i for i, value in enumerate(best) if value >= max(best) - 1e-6)


def choose(policy: str, net: nn.Sequential, images, labels, rng) -> int:
    if policy == "random":
        return int(rng.random() * net[0].out_features)
    if policy.endswith("fire"):
        rates = np.array(fire_rates(net, images))
        return first({"max": rates, "min": -rates, "half": -abs(rates - 0.5)}[policy[:-5]])
    score = policy.removeprefix("max-").removeprefix("min-").removesuffix("-probs")
    scores = np.array((SCORES | {"loss": losses_after_removal})[score](net, images, labels))
    if policy.endswith("probs"):
        odds = np.exp(10 * (scores - scores.max()))
        return int((rng.random() >= (odds / odds.sum()).cumsum()).sum())
    return first(scores if policy.startswith("max") else -scores)


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


def splits_after(schedule: str, epoch: int, losses: list[float], splits: int) -> int:
    if schedule == "plateau":
        return int(epoch > 2 and losses[epoch - 2] > 0.99 * losses[epoch - 3])
    at = {
        "every-epoch": range(1, splits + 1),
        "at-first": [1] * splits,
        "at-tenth": [10] * splits,
        "at-once": [-(-splits // 2)] * splits,
    }
    at["5-every-5"] = sorted([*range(5, 10 * splits, 5)] * 5)[:splits]
    return list(at[schedule]).count(epoch)


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9),
    "adam": torch.optim.Adam,
}


def run(experiment, dataset, seed: int) -> list[dict]:
    """One repeat: a row an epoch."""
    control = experiment.policy in ("no-split", "stay-narrow")
    width = experiment.width + (experiment.splits if experiment.policy == "no-split" else 0)
    sizes = (dataset.train.images.shape[1], width, len(dataset.classes))
    net = network(MLP(sizes, seed=seed), 0)
    order, coefficients, draws = (stream(seed, name) for name in ("order", "coefficients", "draws"))
    optimizer = OPTIMIZERS[experiment.optimizer](net.parameters(), lr=experiment.learning_rate)
    rows, done = [], 0
    for epoch in range(1, experiment.epochs + 1):
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
        row, chosen = {"epoch": epoch} | evaluate("val", net, *dataset.validation), []
        wanted = splits_after(experiment.schedule, epoch, [row["val_loss"] for row in rows], experiment.splits)
        for _ in range(0 if control else min(wanted, experiment.splits - done)):
            chosen.append(choose(experiment.policy, net, *dataset.validation, draws))
            if experiment.optimizer == "sgd":
                net = split(net, chosen[-1], RULES[experiment.rule](coefficients, sizes[-1]))
                optimizer = torch.optim.SGD(net.parameters(), lr=experiment.learning_rate)
            else:  # the way of split_neuron, which has tests of its own
                split_neuron(
                    net, "0", chosen[-1], example_inputs=images, optimizer=optimizer, rule=experiment.rule,
                    rng=coefficients,
                )  # fmt: skip
        done += len(chosen)
        row |= {"split_neuron": " ".join(map(str, chosen)) or None, "hidden": net[0].out_features}
        row |= {"parameters": sum(p.numel() for p in net.parameters())}
        row |= {"train_loss": np.mean(losses), "train_accuracy": np.mean(hits)}
        rows.append(row | evaluate("test", net, *dataset.test))
    return rows


def run_greedily(experiment, dataset, seed: int) -> list[dict]:
    """One repeat of plain SGD that trains every split for an epoch and goes on with the best: a row an epoch."""
    sizes = (dataset.train.images.shape[1], experiment.width, len(dataset.classes))
    nets, rows = [network(MLP(sizes, seed=seed), 0)], []
    order, coefficients = (stream(seed, name) for name in ("order", "coefficients"))
    for epoch in range(1, experiment.epochs + 1):
        permutation = torch.from_numpy(order.permutation(len(dataset.train.labels)))
        trained = [epoch_of(net, permutation, dataset.train, experiment) for net in nets]
        losses = [evaluate("val", net, *dataset.validation)["val_loss"] for net in nets]
        best = int(np.argmin(losses))
        if len(nets) > 1:
            rows[-1]["split_neuron"] = str(best)
        net = nets[best]
        row = {"epoch": epoch, "split_neuron": None} | trained[best] | evaluate("val", net, *dataset.validation)
        row |= evaluate("test", net, *dataset.test)
        nets = [net]
        if epoch <= experiment.splits:
            drawn = RULES[experiment.rule](coefficients, sizes[-1])
            nets = [split(net, neuron, drawn) for neuron in range(net[0].out_features)]
        row |= {"hidden": nets[0][0].out_features, "parameters": sum(p.numel() for p in nets[0].parameters())}
        rows.append(row)
    return rows


def epoch_of(net, permutation, train, experiment) -> dict[str, float]:
    """An epoch of plain SGD in such an order: the means of what each mini-batch met."""
    optimizer = torch.optim.SGD(net.parameters(), lr=experiment.learning_rate)
    losses, hits = [], []
    for batch in permutation.split(experiment.batch_size):
        if len(batch) == experiment.batch_size:
            logits = net(train.images[batch])
            loss = cross_entropy(logits, train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            hits.append((logits.argmax(1) == train.labels[batch]).float().mean().item())
    return {"train_loss": np.mean(losses), "train_accuracy": np.mean(hits)}


@torch.no_grad()
def evaluate(name: str, net: nn.Sequential, images, labels) -> dict[str, float]:
    logits = net(images)
    hits = (logits.argmax(1) == labels).float()
    return {f"{name}_loss": cross_entropy(logits, labels).item(), f"{name}_accuracy": hits.mean().item()}
