"""Dropout: what a training step keeps of the activations of hidden layers."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor

from neuronsplit.core.mlp import MLP
from neuronsplit.core.seeds import stream

STEPS = 16  # whose masks are drawn together, because to make a stream takes as long as to draw a mask


def draw_masks(mlp: MLP, dropout: Tensor, seeds: list[int], step: int, n_images: int) -> Iterator[list[Tensor]]:
    """Draw masks (R, H, N) for the hidden layers at every step from this one on; none if no replica drops anything.

    dropout: the probabilities (R, 1, 1) with which an activation is dropped. n_images: the size of a mini-batch, N.
    seeds: each has R / S consecutive replicas.

    A mask is 0 for what is dropped, and 1 / (1 − dropout) for the rest. So the expected activation stays the same.
    Source: Srivastava et al. 2014, JMLR 15, section 10. What a neuron draws depends on its number, its layer, the seed
    and the step alone. So networks of other widths and probabilities drop the same, as far as they can.
    """
    widths = mlp.sizes[1:-1] if dropout.any() else ()
    for n_steps in count(step):
        part, place = divmod(n_steps, STEPS)
        if n_steps == step or not place:
            draws = [_draw(seeds, (part, layer), (width, STEPS, n_images)) for layer, width in enumerate(widths)]
        yield [_mask(of_layer[:, :, place], dropout) for of_layer in draws]


def _draw(seeds: list[int], place: tuple[int, int], shape: tuple[int, int, int]) -> Tensor:
    """Draw uniform numbers (S, H, STEPS, N). Those of a neuron come one after another, so H does not change them."""
    draws = [stream(seed, "dropout", *place).random(shape, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(draws))


def _mask(draws: Tensor, dropout: Tensor) -> Tensor:
    draws = draws.to(dropout).repeat_interleave(len(dropout) // len(draws), dim=0)  # (R, H, N)
    return (draws >= dropout) / (1 - dropout)
