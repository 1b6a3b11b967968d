"""Matrix products: in one piece for networks that share inputs, and by the faster library that PyTorch carries."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


@contextmanager
def use_onednn_matmul() -> Iterator[None]:
    """Within this context, float32 products on the CPU run in oneDNN if that keeps every bit, otherwise in MKL.

    MKL is PyTorch's default. It does not use AVX-512 on AMD processors, where oneDNN is twice as fast. PyTorch has no
    public switch for the library. But it hands float32 products to oneDNN under the setting that allows bfloat16
    arithmetic, and oneDNN uses bfloat16 only on processors with AMX. On those, `is_exact` returns False, and the
    setting is left as it was.
    """
    setting = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    if setting is None or not is_exact():
        yield
        return
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


@cache
def is_exact() -> bool:
    """Return whether oneDNN's products with ones and zeros return all 24 bits of float32; bfloat16 has 8."""
    setting = torch.backends.mkldnn.matmul
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        return all(map(_keeps_every_bit, (10, 60, 420)))
    finally:
        setting.fp32_precision = before


def _keeps_every_bit(n_rows: int) -> bool:
    """Try products of the shapes that training uses, with this many rows, as oneDNN chooses its kernel by the shape."""
    w = torch.rand(2, n_rows, 784, generator=torch.Generator().manual_seed(0))
    columns, rows = torch.eye(784)[:, :32].expand(2, -1, -1), torch.eye(n_rows, 32).expand(2, -1, -1)
    product, update = torch.bmm(w, columns), torch.baddbmm(torch.zeros_like(w), rows, w[:, :1].expand(-1, 32, -1))
    single = torch.mm(w[0], columns[0])
    return bool((product == w[:, :, :32]).all() and (update[:, 0] == w[:, 0]).all() and (single == w[0, :, :32]).all())


def merge_replicas(rows: Tensor, inputs: Tensor) -> Tensor:
    """View rows (R, M, ·) as one matrix per set of shared inputs: (S, R / S · M, ·) for inputs (S, N, n_in).

    The result shares its memory with the rows. One large matrix product is faster than many small ones.
    Raises ValueError where S does not divide R.
    """
    n_sets = len(inputs) if inputs.dim() == 3 else 1
    if n_sets == len(rows):
        return rows
    if len(rows) % n_sets:
        raise ValueError(f"{n_sets} sets of images: allowed are divisors of the {len(rows)} replicas")
    return rows.view(n_sets, -1, rows.shape[2])
