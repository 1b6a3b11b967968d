"""R independent dense ReLU networks of one shape, as one tensor program."""

import math
from collections.abc import Callable, Iterator
from copy import copy

import numpy as np
import torch
from torch import Tensor

from neuronsplit.seeds import stream
from neuronsplit.split import Coefficients, twins


class MLP:
    """Dense ReLU networks with a leading replica axis; replica r is the network of seed + r.

    sizes: inputs, one or more hidden widths, outputs, such as (784, 10, 10).
    weights[k] is (R, n_out, n_in) and biases[k] is (R, n_out, 1): the k-th layer of every replica, a row a neuron.
    ages (R, H): epochs since a neuron of the last hidden layer was split, or began.
    Weights are Xavier-uniform (Glorot & Bengio 2010, eq. 16), biases zero. Raises ValueError for a bad shape.
    """

    def __init__(self, sizes: tuple[int, ...], replicas: int = 1, seed: int = 0):
        if len(sizes) < 3 or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ValueError(f"sizes {tuple(sizes)}: allowed are three or more whole numbers from 1")
        if not (isinstance(replicas, int) and replicas > 0):
            raise ValueError(f"replicas {replicas!r}: allowed are whole numbers from 1")
        if not (isinstance(seed, int) and seed >= 0):
            raise ValueError(f"seed {seed!r}: allowed are whole numbers from 0")
        networks = [_xavier(sizes, stream(seed + r, "weights")) for r in range(replicas)]
        self.weights = [torch.stack(layer) for layer in zip(*networks)]
        self.biases = [torch.zeros(replicas, n_out, 1) for n_out in sizes[1:]]
        self.ages = torch.zeros(replicas, sizes[-2])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, hidden widths, outputs."""
        return (self.weights[0].shape[2], *(w.shape[1] for w in self.weights))

    @property
    def width(self) -> int:
        """Neurons in the last hidden layer: the one that policies score."""
        return self.sizes[-2]

    def parameters(self) -> list[Tensor]:
        """The weights of all layers, then their biases."""
        return [*self.weights, *self.biases]

    def to(self, *where: torch.device | torch.dtype) -> "MLP":
        """The same networks on another device, or of another dtype."""
        return self._of(lambda p: p.to(*where))

    def n_parameters(self) -> int:
        """Weights and biases of one replica."""
        return sum(p[0].numel() for p in self.parameters())

    def __getitem__(self, replicas: slice | list[int]) -> "MLP":
        """Some of the replicas, or one several times, copied."""
        if isinstance(replicas, int):
            raise TypeError(f"replicas {replicas}: allowed are slices and lists")
        return self._of(lambda p: p[replicas].clone(memory_format=torch.contiguous_format))

    def zeros(self) -> "MLP":
        """Networks of the same shape whose every weight and bias is 0."""
        return self._of(torch.zeros_like)

    def _of(self, parameter: Callable[[Tensor], Tensor]) -> "MLP":
        """Networks whose parameters are made of these ones' each."""
        made = copy(self)
        made.weights, made.biases = ([parameter(p) for p in layers] for layers in (self.weights, self.biases))
        made.ages = parameter(self.ages)
        return made

    def hidden(self, images: Tensor) -> list[Tensor]:
        """Activations (R, N, H) of each hidden layer.

        images (N, n_in) are shared by all replicas, (R, N, n_in) are each replica's own; of (S, N, n_in), the first are
        shared by the first R / S replicas, and so on.
        """
        activations = [images]
        for w, b in zip(self.weights[:-1], self.biases[:-1]):
            activations.append(_dense(w, b, activations[-1]).relu_())
        return activations[1:]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (R, N, n_out) from the last hidden layer's activations (R, N, H)."""
        return _dense(self.weights[-1], self.biases[-1], hidden)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (R, N, n_out) from images, as `hidden` takes them."""
        return self.logits(self.hidden(images)[-1])

    def gradients(self, images: Tensor, hidden: list[Tensor], logits: Tensor, labels: Tensor) -> Iterator[tuple]:
        """The gradient of each replica's mean cross-entropy, layer by layer from the last, by back-propagation.

        Yields k, d, a: the gradient by weights[k] is the product d a, that by biases[k] is Σ d over the images.
        d (R, n_out, N) is what is sent back to the layer, a what it received: images, or activations (R, N, n_in).
        With z the logits and y the one-hot labels, the last d is (softmax(z) − y) / N; each layer sends back Wᵀd, where
        the neuron before it fired. labels are (N,) or (R, N). A layer's weights may change once its turn has come.
        """
        d = logits.mT.softmax(1)  # (R, n_out, N)
        d.scatter_(1, labels.expand(len(d), -1)[:, None], -1, reduce="add")
        d /= d.shape[2]
        for k, a in reversed(list(enumerate([images, *hidden]))):
            sent = torch.bmm(self.weights[k].mT, d).mul_(a.mT.sign()) if k else d  # (R, n_in, N); the sign is 1 or 0
            yield k, d, a
            d = sent

    def split(self, neurons: Tensor | int, coefficients: list[Coefficients], layer: int = -1) -> None:
        """Split neuron neurons[r] of replica r in one hidden layer (the last one unless told otherwise).

        coefficients: one draw a replica. Raises IndexError for a layer that the network does not have, or a neuron
        that the layer does not.
        """
        layers = len(self.weights) - 1
        if not -layers <= layer < layers:
            raise IndexError(f"layer {layer}: allowed are {-layers} to {layers - 1}")
        k = range(layers)[layer]
        fan_in, bias, fan_out = self.weights[k], self.biases[k], self.weights[k + 1]
        (replicas, width), n_out = fan_in.shape[:2], fan_out.shape[1]
        neurons = torch.as_tensor(neurons).expand(replicas)
        if not ((0 <= neurons) & (neurons < width)).all():
            raise IndexError(f"neuron {neurons.tolist()}: allowed are 0 to {width - 1}")
        if len(coefficients) != replicas:
            raise ValueError(f"{len(coefficients)} coefficients: allowed is one for each of {replicas} replicas")
        each = [twins(width, n_out, [neuron], [drawn]) for neuron, drawn in zip(neurons.tolist(), coefficients)]
        source, gain, share = (torch.stack(parts).to(fan_in.device) for parts in zip(*each))
        rows, gain = source[:, :, None], gain[:, :, None].to(fan_in)  # (R, H + 1, 1)
        self.weights[k] = fan_in.take_along_dim(rows, 1) * gain  # (R, H + 1, n_in)
        self.biases[k] = bias.take_along_dim(rows, 1) * gain  # (R, H + 1, 1)
        self.weights[k + 1] = fan_out.take_along_dim(source[:, None], 2) * share.to(fan_out)  # (R, n_out, H + 1)
        if k == layers - 1:
            self.ages = self.ages.take_along_dim(source, 1)
            self.ages[source == neurons.to(source)[:, None]] = 0

    def append(self, fan_in: Tensor, bias: Tensor, fan_out: Tensor) -> None:
        """Append K neurons to the last hidden layer: fan_in (R, K, n_in), bias (R, K, 1), fan_out (R, n_out, K)."""
        self.weights[-2] = torch.cat([self.weights[-2], fan_in], dim=1)
        self.biases[-2] = torch.cat([self.biases[-2], bias], dim=1)
        self.weights[-1] = torch.cat([self.weights[-1], fan_out], dim=2)
        self.ages = torch.cat([self.ages, torch.zeros_like(bias[:, :, 0])], dim=1)


def wide(rows: Tensor, a: Tensor) -> Tensor:
    """Rows (R, M, ·) as one matrix for all replicas that share their inputs: (S, R / S · M, ·) for a (S, N, n_in).

    So they are multiplied with them at once: a large product comes nearer to the machine's full speed.
    """
    sets = len(a) if a.dim() == 3 else 1
    if len(rows) % sets:
        raise ValueError(f"{sets} sets of images: allowed are divisors of the {len(rows)} replicas")
    return rows.view(sets, -1, rows.shape[2])


def _dense(w: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """a Wᵀ + b as (R, N, n_out), a view of (R, n_out, N): the faster way round for few neurons and many inputs."""
    return torch.matmul(wide(w, a), a.mT).view(*w.shape[:2], -1).add_(b).mT


def _xavier(sizes: tuple[int, ...], rng: np.random.Generator) -> list[Tensor]:
    """One network's weights, (n_out, n_in) a layer.

    Neuron j of a layer has its own stream, and its i-th incoming weight is the i-th draw of it. So a wider
    network begins with the weights of a narrower one, up to Xavier's scale, which knows the width.
    """
    weights = []
    for n_in, n_out, layer in zip(sizes, sizes[1:], rng.spawn(len(sizes) - 1)):
        bound = math.sqrt(6 / (n_in + n_out))
        draws = np.stack([neuron.random(n_in) for neuron in layer.spawn(n_out)])  # (n_out, n_in)
        weights.append(torch.from_numpy(bound * (2 * draws - 1)).float())
    return weights
