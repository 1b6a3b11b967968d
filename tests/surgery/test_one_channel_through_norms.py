"""One channel of a residual axis splits alone, through RMSNorm and LayerNorm: by rules that are written out here anew.

h channels become h + 1. Through RMSNorm, the twins have α² + β² = 1. Through LayerNorm, the new one is the mean of all.
"""

import copy
import json
import math

import pytest
import torch
from language_models import CASES, EPS, IDS, OTHER, RMS, eps_of, model
from networks import EXACT, outputs, relative_change, rng
from sampling import one_in
from torch import nn

from neuronsplit.surgery import attempt, scales
from neuronsplit.surgery.split_neuron import replay, split_neuron
from neuronsplit.surgery.splittable import splittable


@pytest.mark.parametrize("name, tied", one_in(3, CASES))
def test_it_is_exact_on_other_inputs_under_all_rules_and_replayed(name, tied):
    net = model(name, tied)
    before = outputs(net, OTHER)
    for rule in EXACT if name in ("RMSNorm", "LayerNorm") else ["scaled", "outgoing"]:
        split, fresh = copy.deepcopy(net), copy.deepcopy(net)
        record = split_neuron(split, "embed", 3, example_inputs=IDS, rule=rule, rng=rng())
        assert relative_change(before, outputs(split, OTHER)) <= 1e-12
        assert split.embed.weight.shape == (11, 7) and split.down.weight.shape == (7, 10) and split.q.in_features == 7
        assert (split.head.weight is split.embed.weight) == tied
        replay(json.loads(json.dumps([record])), fresh)
        assert relative_change(outputs(split, OTHER), outputs(fresh, OTHER)) == 0


@pytest.mark.parametrize("name, tied", one_in(2, CASES))
def test_the_entries_are_those_of_the_rule(name, tied):
    net, shrunk = model(name, tied), math.sqrt(6 / 7)
    old = copy.deepcopy(net)
    ((alpha, beta, gamma, delta),) = split_neuron(net, "down", 3, example_inputs=IDS, rng=rng()).coefficients
    wider = [0, 1, 2, 3, 4, 5, 3]

    def grown(weight, axis, first, second):
        new = weight.index_select(axis, torch.tensor(wider)).transpose(0, axis).clone()
        new[3], new[6] = new[3] * first, second if isinstance(second, torch.Tensor) else new[6] * second
        return new.transpose(0, axis)

    if name in RMS:
        assert alpha**2 + beta**2 == pytest.approx(1) and alpha * gamma + beta * delta == pytest.approx(1)
        assert alpha != beta
    makers = {"embed": 1, "o": 0, "down": 0}
    for layer, axis in makers.items():
        weight, mean = old.get_submodule(layer).weight, old.get_submodule(layer).weight.mean(axis)
        expected = grown(weight, axis, alpha, beta if name in RMS else mean)
        torch.testing.assert_close(net.get_submodule(layer).weight, expected)
    torch.testing.assert_close(net.o.bias, grown(old.o.bias, 0, alpha, beta if name in RMS else old.o.bias.mean()))
    whole = shrunk if "without a gain" in name else 1
    for layer in ("q", "k", "v", "gate", "up", *(() if tied else ("head",))):
        expected = whole * grown(old.get_submodule(layer).weight, 1, gamma, delta)
        torch.testing.assert_close(net.get_submodule(layer).weight, expected)
    for norm, before in ((net.first, old.first), (net.second, old.second), (net.last, old.last)):
        assert eps_of(norm) == pytest.approx(eps_of(before) * 6 / 7)
        if before.weight is not None:
            torch.testing.assert_close(norm.weight, shrunk * before.weight[wider])
        if getattr(before, "bias", None) is not None:
            torch.testing.assert_close(norm.bias, torch.cat([before.bias, torch.zeros(1)]).double())


def set_eps(net):
    for norm in (net.first, net.second, net.last):
        setattr(norm, "eps" if hasattr(norm, "eps") else "variance_epsilon", EPS)


WRONG = {
    "a share of what reads": lambda net: net.q.weight[:, 6].mul_(1.01),
    "a row of what makes": lambda net: net.down.weight[6].add_(0.01),
    "an entry of the embedding": lambda net: net.embed.weight[:, 6].add_(0.01),
    "the gain of a norm": lambda net: net.last.weight.mul_(math.sqrt(7 / 6)),
    "eps": set_eps,
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name, tied", [("RMSNorm", False), ("as in Llama", True), ("LayerNorm", True)])
def test_with_one_of_its_parts_wrong_it_is_not_exact(name, tied, what):
    if (name, what) == ("LayerNorm", "a share of what reads"):
        pytest.skip("free: the new channel is normalised to 0")
    net = model(name, tied)
    before = outputs(net, OTHER)
    split_neuron(net, "embed", 3, example_inputs=IDS, rng=rng())
    with torch.no_grad():
        WRONG[what](net)
    assert relative_change(before, outputs(net, OTHER)) > 1e-5


def test_the_check_finds_a_wrong_share_and_a_wrong_eps(monkeypatch):
    net, by_squares = model("RMSNorm", False), scales.by_squares
    for module, name, wrong in (
        (scales, "by_squares", lambda drawn: by_squares(drawn)._replace(alpha=0.8, beta=0.61)),
        (attempt, "eps_factors", lambda *_: {}),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, wrong)
            with pytest.raises(ValueError, match="^a neuron of 'embed' has no exact split alone .*it would change the"):
                split_neuron(net, "embed", 3, example_inputs=IDS, rng=rng())
    assert net.embed.weight.shape == (11, 6) and net.first.eps == EPS


NORMS = {
    "RMSNorm": lambda: nn.RMSNorm(5),
    "LayerNorm": lambda: nn.LayerNorm(5),
    "no gain": lambda: nn.LayerNorm(5, elementwise_affine=False),
    "no gain, RMSNorm": lambda: nn.RMSNorm(5, elementwise_affine=False),
}


class CenteredByHand(nn.Module):
    def forward(self, x):
        return x - x.mean((1, 2, 3), keepdim=True)


OVER_IMAGES = {
    "LayerNorm": lambda: nn.LayerNorm([5, 3, 3]),
    "RMSNorm": lambda: nn.RMSNorm([5, 3, 3]),
    "GroupNorm": lambda: nn.GroupNorm(1, 5),
    "by hand": CenteredByHand,
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
}


@pytest.mark.parametrize("norm", OVER_IMAGES)
def test_the_table_says_what_splits_next_to_a_norm_over_whole_images(norm):
    """No channel more can be the mean over channels and places, and a window of channels has other ones with copies."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), OVER_IMAGES[norm](), nn.ReLU(), nn.Conv2d(5, 2, 3))
    x = torch.randn(4, 2, 5, 5)
    row = splittable(net, x).set_index("layer").loc["0"]
    assert row.splits_together == {"LocalResponseNorm": 0, "RMSNorm": 1}.get(norm, 5)
    for together in (False, True):
        options = {"example_inputs": x, "rule": row["rule"] or "even", "together": together}
        if row.splits_together == 1 or (row.splits_together == 5 and together):
            split_neuron(copy.deepcopy(net), "0", 2, **options)
        else:
            with pytest.raises(ValueError, match="has no exact split alone .*together=True|avg_pool3d in '1', over"):
                split_neuron(copy.deepcopy(net), "0", 2, **options)


@pytest.mark.parametrize("order", ["norm, f", "f, norm", "f, norm, f"])
@pytest.mark.parametrize("f", one_in(3, [nn.ReLU, nn.GELU, nn.Dropout]), ids=lambda f: f.__name__)
@pytest.mark.parametrize("norm", NORMS)
def test_the_table_says_whether_a_channel_splits_alone_next_to_a_norm(norm, f, order):
    between = [{"norm": NORMS[norm], "f": f}[name]() for name in order.split(", ")]
    net, x = nn.Sequential(nn.Linear(4, 5), *between, nn.Linear(5, 4)), torch.randn(7, 4)
    row = splittable(net, x).set_index("layer").loc["0"]
    for rule in (row["rule"], "outgoing"):
        if row.splits_together == 1:
            split_neuron(copy.deepcopy(net), "0", 2, example_inputs=x, rule=rule)
        else:
            assert row.splits_together == 5
            with pytest.raises(ValueError, match="has no exact split alone .*together=True|is not exact through"):
                split_neuron(copy.deepcopy(net), "0", 2, example_inputs=x, rule=rule)
            split_neuron(copy.deepcopy(net), "0", 2, example_inputs=x, rule=rule, together=True)
