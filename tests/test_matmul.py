import pytest
import torch

from neuronsplit.core import matmul
from neuronsplit.core.matmul import use_onednn_matmul

setting = getattr(torch.backends.mkldnn, "matmul", None)
pytestmark = pytest.mark.skipif(setting is None, reason="this torch has no such setting")


@pytest.fixture(autouse=True)
def untried():
    is_exact = matmul.is_exact  # a test may replace it
    is_exact.cache_clear()
    yield
    is_exact.cache_clear()


@pytest.mark.parametrize("rows", [1, 10, 35, 60, 245, 420])
def test_products_keep_the_precision_of_float32(rows):
    """Against float64, within the bound of a sum of n products (Higham 2002, eq. 3.5)."""
    g = torch.Generator().manual_seed(rows)
    for n, columns in ((784, 32), (32, 784), (784, 1000), (60, 32)):
        a, b = torch.randn(5, rows, n, generator=g), torch.randn(5, n, columns, generator=g)
        with use_onednn_matmul():
            found = [torch.bmm(a, b), torch.bmm(a, b.mT.contiguous().mT), torch.matmul(a, b[0])]
        for product, other in zip(found, (b, b, b[0])):
            bound = n * torch.finfo(torch.float32).eps * (a.double().abs() @ other.double().abs())
            assert ((product - a.double() @ other.double()).abs() <= bound).all()
            mean = (product - a.double() @ other.double()).abs().mean() / (a.double() @ other.double()).abs().mean()
            assert mean < 1e-5  # bfloat16 has 1e-3


def test_the_setting_is_restored_also_after_an_error(monkeypatch):
    before = setting.fp32_precision
    monkeypatch.setattr(matmul, "is_exact", lambda: True)
    with pytest.raises(KeyError), use_onednn_matmul():
        assert setting.fp32_precision == "bf16"
        raise KeyError
    assert setting.fp32_precision == before


def test_where_bits_are_lost_nothing_is_set(monkeypatch):
    exact = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: exact(a.bfloat16().float(), b.bfloat16().float()))
    before = setting.fp32_precision
    assert not matmul.is_exact()
    with use_onednn_matmul():
        assert setting.fp32_precision == before
