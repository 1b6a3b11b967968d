"""Products of float32 matrices on the CPU, by the faster of the two libraries that PyTorch has for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@contextmanager
def fast_products() -> Iterator[None]:
    """Within it, float32 products on the CPU are oneDNN's where it loses no precision by it, else MKL's as usual.

    MKL does not use AVX-512 on processors of AMD, where oneDNN is twice as fast. PyTorch hands float32 to oneDNN by the
    setting that allows it bfloat16 inside, which it makes use of only on processors that have AMX: there the setting is
    left as it was.
    """
    setting = getattr(torch.backends.mkldnn, "matmul", None)  # from torch 2.9
    if setting is None or not _loses_nothing():
        yield
        return
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


@cache
def _loses_nothing() -> bool:
    """Whether products so set give back every bit of numbers that they take times 1: bfloat16 keeps 8 of 24."""
    setting = torch.backends.mkldnn.matmul
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        return all(map(_keeps_every_bit, (10, 60, 420)))
    finally:
        setting.fp32_precision = before


def _keeps_every_bit(rows: int) -> bool:
    """Try products of the shapes that training has, with so many rows."""
    w = torch.rand(2, rows, 784, generator=torch.Generator().manual_seed(0))
    some, back = torch.eye(784)[:, :32].expand(2, -1, -1), torch.eye(rows, 32).expand(2, -1, -1)  # ones and zeros
    forward, added = torch.bmm(w, some), torch.baddbmm(torch.zeros_like(w), back, w[:, :1].expand(-1, 32, -1))
    alone = torch.mm(w[0], some[0])
    return bool((forward == w[:, :, :32]).all() and (added[:, 0] == w[:, 0]).all() and (alone == w[0, :, :32]).all())
