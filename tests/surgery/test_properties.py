"""Any network drawn from pieces is split exactly or refused by one line, and never wrong."""

import copy
import json
from collections import Counter

import pytest
import torch
from drawn import PIECES, draw_network
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import EXACT, outputs, relative_change, rng, settle
from sampling import one_in
from torch import nn

from neuronsplit.surgery.split_neuron import replay, split_neuron

BOUND = 1e-10
N_EXAMPLES = settings.default.max_examples


def rounding(net, x, before):
    """How much the output changes if the parameters do in a late digit: ill-conditioned ones are skipped."""
    noisy = copy.deepcopy(net)
    with torch.no_grad():
        for p in noisy.parameters():
            p.mul_(1 + 1e-13)
    return relative_change(before, outputs(noisy, x))


def in_training(net, x):
    """The output in training mode; None where a norm has a single number to normalise, which torch refuses."""
    try:
        with torch.no_grad():
            return copy.deepcopy(net).train()(x)
    except ValueError:
        return None


def check_exact_or_refused(net, where, options, inputs):
    """Split a network in eval mode; where it succeeds, compare in eval and training mode, and replay."""
    settle(net)
    fresh, before = copy.deepcopy(net), [outputs(net, x) for x in inputs]
    training = in_training(net, inputs[1])
    held, state = [id(p) for p in net.parameters()], copy.deepcopy(net.state_dict())
    try:
        record = split_neuron(net, where, example_inputs=inputs[0], rng=rng(), **options)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        assert [id(p) for p in net.parameters()] == held
        assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), state.values()))
        return "refused"
    for x, old in zip(inputs, before):
        if rounding(fresh, x, old) < BOUND / 10:
            assert relative_change(old, outputs(net, x)) <= BOUND
    replay(json.loads(json.dumps([record])), fresh)
    assert relative_change(outputs(net, inputs[1]), outputs(fresh, inputs[1])) <= BOUND
    if training is not None:
        assert relative_change(training, in_training(net, inputs[1])) <= 1e-8
    return "split"


def draw_split(data, net):
    """A layer or parameter, a neuron, and options."""
    names = sorted({n.removesuffix(".weight").removesuffix(".bias") for n, _ in net.named_parameters()})
    where = data.draw(st.sampled_from(names[:1] + names))
    options = {
        "neuron": data.draw(st.integers(0, 5)), "rule": data.draw(st.sampled_from(EXACT)),
        "together": data.draw(st.booleans()), "unscaled": data.draw(st.booleans()),
    }  # fmt: skip
    return where, options


@settings(max_examples=N_EXAMPLES // 3)
@given(data=st.data())
def test_a_drawn_network_is_split_exactly_or_refused(data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    net = draw_network(data.draw)
    where, options = draw_split(data, net)
    inputs = [torch.randn(n, 4, 3).double() for n in (2, 2, 3)]
    check_exact_or_refused(net, where, options, inputs)


@pytest.mark.long
@settings(max_examples=N_EXAMPLES // 3)
@given(data=st.data())
def test_so_it_is_if_the_example_shows_nearly_nothing(data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    net = draw_network(data.draw, n_pieces=3)
    where, options = draw_split(data, net)
    example = data.draw(st.sampled_from([torch.zeros(2, 4, 3), 0.01 * torch.ones(2, 4, 3)])).double()
    check_exact_or_refused(net, where, options, [example, torch.randn(2, 4, 3).double(), torch.randn(3, 4, 3).double()])


@pytest.mark.long
@settings(max_examples=5 * N_EXAMPLES)
@given(data=st.data())
def test_many_drawn_networks_are_split_exactly_or_refused(data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    net = draw_network(data.draw, n_pieces=8)
    where, options = draw_split(data, net)
    check_exact_or_refused(net, where, options, [torch.randn(n, 4, 3).double() for n in (2, 2, 3)])


@pytest.mark.parametrize("make", one_in(2, dict.fromkeys(PIECES)), ids=lambda make: make.__name__)
def test_most_first_layers_are_split_in_front_of_each_piece(make):
    found = Counter()

    @settings(max_examples=8, database=None, derandomize=True)
    @given(data=st.data())
    def check(data):
        torch.manual_seed(data.draw(st.integers(0, 1000)))
        piece = make(data.draw, 4, 4).eval()
        width = piece(torch.randn(2, 4, 4)).shape[2]
        net = nn.Sequential(nn.Linear(3, 4), piece, nn.Linear(width, 3))
        options = {"neuron": 0, "rule": "outgoing", "together": True}
        found[check_exact_or_refused(net, "0", options, [torch.randn(n, 4, 3).double() for n in (2, 2, 3)])] += 1

    check()
    assert found["split"] >= found["refused"]
