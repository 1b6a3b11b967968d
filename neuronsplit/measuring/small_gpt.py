"""A small GPT that knows nothing of splits, and the text it reads: the source of Python's standard library."""

import hashlib
import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD, CONTEXT, N_BLOCKS = 8, 64, 2  # channels of a head, bytes that a prediction can see, and blocks


class Block(nn.Module):
    """Attention and a hidden layer, each behind an RMSNorm."""

    def __init__(self, width: int, n_heads: int, hidden: int):
        super().__init__()
        self.n_heads = n_heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q, self.k, self.v = (nn.Linear(width, n_heads * HEAD, bias=False) for _ in range(3))
        self.out = nn.Linear(n_heads * HEAD, width, bias=False)
        self.up, self.down = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, width)
        h = self.norm_1(x)
        q, k, v = (f(h).unflatten(-1, (self.n_heads, HEAD)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, heads, T, HEAD)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """N_BLOCKS blocks between one matrix that embeds the bytes and reads them out.

    rng: draws the matrices, with variance 1 / columns.
    """

    def __init__(self, width: int, n_heads: int, hidden: int, rng: torch.Generator):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width, n_heads, hidden) for _ in range(N_BLOCKS))
        self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, 256, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=rng)

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) bytes → (B, T, 256) logits
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Text(NamedTuple):
    """Bytes (N,) to train on and to validate on, the number of files, and what tells versions of the text apart."""

    training: Tensor
    validation: Tensor
    n_files: int
    version: dict[str, str]


def standard_library() -> Text:
    """Read the source of the standard library of the Python that runs this; every tenth file is for validation."""
    sources = [path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py"))]
    training, validation = (
        torch.frombuffer(bytearray(b"".join(part)), dtype=torch.uint8)
        for part in ([one for n, one in enumerate(sources) if n % 10], sources[::10])
    )
    version = {"sha256": hashlib.sha256(b"".join(sources)).hexdigest(), "python": platform.python_version()}
    return Text(training, validation, len(sources), version)


def windows(data: Tensor, starts: Tensor) -> Tensor:
    """Return the sequences (B, CONTEXT + 1) of a text that begin at some places (B,), with their last targets."""
    return data[starts[:, None] + torch.arange(CONTEXT + 1)].long()


def evenly_spaced(data: Tensor, count: int) -> Tensor:
    """Return so many sequences (count, CONTEXT + 1), spread over the whole text."""
    return windows(data, torch.linspace(0, len(data) - CONTEXT - 1, count).long())


def loss_of(net: nn.Module, sequences: Tensor) -> Tensor:
    """Return the mean loss per byte, in nats, of sequences (B, CONTEXT + 1)."""
    return F.cross_entropy(net(sequences[:, :-1]).flatten(0, 1), sequences[:, 1:].flatten())
