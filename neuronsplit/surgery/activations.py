"""A forward hook on one layer of any network, for the scores of its neurons."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_flatten, tree_unflatten

CHANNELS_LAST = (
    nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention, nn.RNNBase,
)  # fmt: skip


class Activations:
    """A forward hook that notes the activations of a layer, or sets those of one neuron to 0.

    axis: that of the channels in the layer's output; None stands for the one that its kind has.
    sizes: the numbers of examples in batches, of which the last is the one that runs.
    """

    def __init__(self, where: str, axis: int | None, sizes: list[int]):
        self.where, self.axis, self.sizes = where, axis, sizes
        self.has_run = False

    def run(self, loss: Callable[[], Tensor], without: int | None = None) -> Tensor:
        """Compute the loss without one neuron, or with all; `calls` then has what the layer did."""
        self.without, self.calls = without, []
        return loss()

    def __call__(self, module: nn.Module, inputs: tuple, output: object) -> object:
        self.has_run, recurrent = True, isinstance(module, nn.RNNBase)
        leaves, spec = tree_flatten(output)
        numbers = [i for i, t in enumerate(leaves) if isinstance(t, Tensor) and t.is_floating_point() and t.dim()]
        if not numbers or recurrent and isinstance(output[0], PackedSequence):
            kind = type(output[0] if recurrent else output).__name__
            raise ValueError(f"{self.where!r} returns {kind}: allowed are tensors of numbers, in tuples or dicts")
        n_directions = 1 + (recurrent and module.bidirectional)
        new = leaves[numbers[0]] = self._changed(leaves[numbers[0]], module, n_directions)
        if recurrent and len(leaves) > 1:  # h_n of the last layer repeats activations
            time = 1 if module.batch_first and new.dim() == 3 else 0
            ends = [new.select(time, step).chunk(n_directions, -1) for step in (-1, 0)]
            leaves[1] = torch.cat([leaves[1][:-n_directions], *(ends[d][d][None] for d in range(n_directions))])
        return tree_unflatten(leaves, spec)

    def _changed(self, given: Tensor, module: nn.Module, n_directions: int) -> Tensor:
        """Note the activations and return them, or return them without those of one neuron."""
        axis = _channel_axis(self.where, module, given) if self.axis is None else self.axis
        n_axes = given.dim()
        of_examples = self.axis is not None and n_axes > 1 and len(given) == self.sizes[-1]  # the first axis has them
        allowed = [one for one in range(-n_axes, n_axes) if one % n_axes or not of_examples]
        if axis not in allowed:
            raise ValueError(f"axis {axis!r} of {self.where!r}: allowed are {', '.join(map(str, allowed))}")

        def neurons_last(tensor: Tensor) -> Tensor:  # a view (…, n)
            return tensor.movedim(axis, -1).unflatten(-1, (n_directions, -1))

        if self.without is not None:
            masked = given.clone()
            neurons_last(masked)[..., self.without] = 0
            return masked
        shift = torch.zeros_like(given, requires_grad=True)  # the gradient by it is that by the activations
        self.calls.append((neurons_last, given.detach().clone(), shift))
        return given + shift


def _channel_axis(where: str, module: nn.Module, given: Tensor) -> int:
    if isinstance(module, _ConvNd | _BatchNorm | nn.GroupNorm):
        return -1 - len(module.kernel_size) if isinstance(module, _ConvNd) else 1
    if isinstance(module, CHANNELS_LAST) or given.dim() <= 2:
        return -1
    raise ValueError(f"axis of {where!r}, with {tuple(given.shape)}: allowed are axis=1 after convolutions, or axis=-1")
