"""R independent dense ReLU networks of one shape, as one tensor program."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor

from neuronsplit.core.matmul import merge_replicas
from neuronsplit.core.seeds import stream
from neuronsplit.core.split import Coefficients, split_layer


class MLP:
    """R dense ReLU networks of the same sizes; replica r is the network of seeds[r].

    sizes: the numbers of inputs, of neurons in one or more hidden layers, and of outputs, such as (784, 10, 10).
    seeds: a whole number from 0 for each network.

    weights[k]: those of layer k, (R, n_out, n_in), with a row per neuron.
    biases[k]: those of layer k, (R, n_out, 1).
    epochs_since_split: (R, H) for the last hidden layer. Neurons that were never split count from the start.

    Weights start Xavier-uniform (Glorot & Bengio 2010, eq. 16), and biases start at 0.
    Raises ValueError for sizes or seeds that are not allowed.
    """

    def __init__(self, sizes: tuple[int, ...], seeds: Sequence[int] = (0,)):
        if len(sizes) < 3 or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ValueError(f"sizes {tuple(sizes)}: allowed are three or more whole numbers from 1")
        if not (
            isinstance(seeds, Sequence) and seeds and all(isinstance(s, int | np.integer) and s >= 0 for s in seeds)
        ):
            raise ValueError(f"seeds {seeds!r}: allowed is a list of one or more whole numbers from 0")
        networks = [_xavier(sizes, stream(seed, "weights")) for seed in seeds]
        self.weights = [torch.stack(layer) for layer in zip(*networks)]
        self.biases = [torch.zeros(len(seeds), n_out, 1) for n_out in sizes[1:]]
        self.epochs_since_split = torch.zeros(len(seeds), sizes[-2])

    @classmethod
    def for_dataset(cls, dataset, width: int, seeds: Sequence[int]) -> "MLP":
        """Make networks with one hidden layer of this width, one per seed, that fit a `Dataset`."""
        return cls((dataset.test.images.shape[-1], width, len(dataset.classes)), seeds)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of inputs, of neurons in each hidden layer, and of outputs."""
        return (self.weights[0].shape[2], *(w.shape[1] for w in self.weights))

    @property
    def width(self) -> int:
        """The number of neurons in the last hidden layer, which is the one that policies score."""
        return self.sizes[-2]

    @property
    def n_replicas(self) -> int:
        """The number of networks, R."""
        return len(self.weights[0])

    def parameters(self) -> list[Tensor]:
        """Return the weights of all layers, then their biases."""
        return [*self.weights, *self.biases]

    def n_parameters(self) -> int:
        """Return the number of weights and biases of one replica."""
        return sum(p[0].numel() for p in self.parameters())

    def to(self, *where: torch.device | torch.dtype) -> "MLP":
        """Return the same networks on another device or with another dtype."""
        return self._map(lambda p: p.to(*where))

    def __getitem__(self, replicas: slice | list[int]) -> "MLP":
        """Return copies of some replicas; a list may name one several times."""
        if isinstance(replicas, int):
            raise TypeError(f"replicas {replicas}: allowed are slices and lists")
        return self._map(lambda p: p[replicas].clone(memory_format=torch.contiguous_format))

    def zeros_like(self) -> "MLP":
        """Return networks of the same shape with every weight and bias 0."""
        return self._map(torch.zeros_like)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "MLP":
        made = copy(self)
        made.weights, made.biases = ([function(p) for p in layers] for layers in (self.weights, self.biases))
        made.epochs_since_split = function(self.epochs_since_split)
        return made

    def hidden(self, images: Tensor, masks: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the activations (R, N, H) of each hidden layer.

        images: (N, n_in) for all replicas, or (S, N, n_in) where each of S sets serves R / S consecutive replicas.
        masks: for dropout, factors (R, H, N) of the activations of each hidden layer.
        """
        activations = [images]
        for k, (w, b) in enumerate(zip(self.weights[:-1], self.biases[:-1])):
            activations.append(_dense(w, b, activations[-1]).relu_())
            if masks:
                activations[-1].mT.mul_(masks[k])
        return activations[1:]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (R, N, n_out) for activations (R, N, H) of the last hidden layer."""
        return _dense(self.weights[-1], self.biases[-1], hidden)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (R, N, n_out) for images of the shapes that `hidden` takes."""
        return self.logits(self.hidden(images)[-1])

    def gradients(
        self, images: Tensor, hidden: list[Tensor], logits: Tensor, labels: Tensor, masks: Sequence[Tensor] = ()
    ) -> Iterator[tuple]:
        """Back-propagate each replica's mean cross-entropy, layer by layer from the last one.

        images, masks, hidden, logits: what `hidden` takes, and what it and `logits` return. labels: (N,) or (R, N).
        Yields (k, grad_out, inputs) for each layer k: the gradient of its output (R, N, n_out) and its inputs. The
        inputs are the images or activations (R, N, n_in). The gradient of weights[k] is grad_outᵀ inputs, and that of
        biases[k] is grad_out summed over N.

        With logits z and one-hot labels y, the last grad_out is (softmax(z) − y) / N. Each layer passes grad_out W back
        to those neurons that fired. The caller may change grad_out and the weights of a layer once it was yielded.
        """
        # Inside, tensors are (R, n_out, N): products with few neurons and many inputs are faster in this layout.
        grad = logit_gradient(logits, labels).mT
        for k, inputs in reversed(list(enumerate([images, *hidden]))):
            # relu'(z) is the sign of relu(z): 1 or 0. It is used before the yield, after which weights[k] may change.
            grad_in = torch.bmm(self.weights[k].mT, grad).mul_(inputs.mT.sign()) if k else grad
            if k and masks:
                grad_in.mul_(masks[k - 1])
            yield k, grad.mT, inputs
            grad = grad_in

    def split(self, neurons: Tensor | int, coefficients: list[Coefficients], layer: int = -1) -> None:
        """Split neuron neurons[r] of replica r in one hidden layer, by default the last one.

        neurons: (R,), or one number for all replicas. coefficients: one per replica.
        Raises IndexError for a layer or a neuron that does not exist.
        Raises ValueError unless there is one set of coefficients per replica.
        """
        n_hidden = len(self.weights) - 1
        if not -n_hidden <= layer < n_hidden:
            raise IndexError(f"layer {layer}: allowed are {-n_hidden} to {n_hidden - 1}")
        k = range(n_hidden)[layer]
        replicas, width = self.weights[k].shape[:2]
        neurons = torch.as_tensor(neurons).expand(replicas)
        if not ((0 <= neurons) & (neurons < width)).all():
            raise IndexError(f"neuron {neurons.tolist()}: allowed are 0 to {width - 1}")
        if len(coefficients) != replicas:
            raise ValueError(f"{len(coefficients)} coefficients: allowed is one for each of {replicas} replicas")
        parts = split_layer(self.weights[k], self.biases[k], self.weights[k + 1], neurons.tolist(), coefficients)
        self.weights[k], self.biases[k], self.weights[k + 1], source = parts
        if k == n_hidden - 1:
            self.epochs_since_split = self.epochs_since_split.take_along_dim(source, 1)
            self.epochs_since_split[source == neurons.to(source)[:, None]] = 0

    def append(self, w_in: Tensor, bias: Tensor, w_out: Tensor) -> None:
        """Append K neurons to the last hidden layer: w_in (R, K, n_in), bias (R, K, 1), w_out (R, n_out, K)."""
        self.weights[-2] = torch.cat([self.weights[-2], w_in], dim=1)
        self.biases[-2] = torch.cat([self.biases[-2], bias], dim=1)
        self.weights[-1] = torch.cat([self.weights[-1], w_out], dim=2)
        self.epochs_since_split = torch.cat([self.epochs_since_split, torch.zeros_like(bias[:, :, 0])], dim=1)

    def neurons(self, numbers: slice) -> list[Tensor]:
        """Return views of what some neurons of the last hidden layer have: (R, K, n_in), (R, K, 1), (R, n_out, K)."""
        return [self.weights[-2][:, numbers], self.biases[-2][:, numbers], self.weights[-1][:, :, numbers]]


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient (R, N, C) of each replica's mean cross-entropy by its logits (R, N, C).

    labels: (N,) or (R, N).
    """
    grad = logits.mT.softmax(1)
    grad.scatter_(1, labels.expand(len(grad), -1)[:, None], -1, reduce="add")
    return grad.div_(grad.shape[2]).mT


def _dense(w: Tensor, b: Tensor, inputs: Tensor) -> Tensor:
    """Return inputs Wᵀ + b as (R, N, n_out), a view of (R, n_out, N), which is the faster layout."""
    return torch.matmul(merge_replicas(w, inputs), inputs.mT).view(*w.shape[:2], -1).add_(b).mT


def _xavier(sizes: tuple[int, ...], rng: np.random.Generator) -> list[Tensor]:
    """Draw the weights of one network, (n_out, n_in) per layer.

    Each neuron has a stream of its own. So a wider network starts with the weights of a narrower one, scaled by the
    ratio of their Xavier bounds.
    """
    weights = []
    for n_in, n_out, layer in zip(sizes, sizes[1:], rng.spawn(len(sizes) - 1)):
        bound = math.sqrt(6 / (n_in + n_out))
        draws = np.stack([neuron.random(n_in) for neuron in layer.spawn(n_out)])  # (n_out, n_in)
        weights.append(torch.from_numpy(bound * (2 * draws - 1)).float())
    return weights
