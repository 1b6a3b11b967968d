"""A channel that split alone through norms: its gradients and optimisers, several at once, refusals, configurations."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_models import CASES, EPS, IDS, LAYER, NORMS, OTHER, RMS, Lm, by_hand, eps_in_code, gemma, model
from networks import Custom, outputs, relative_change, rng, settle
from sampling import one_in
from torch import nn
from torch.nn import functional as F

from neuronsplit.surgery.split_neuron import split_neuron, widen
from neuronsplit.surgery.splittable import splittable


def loss(net):
    return F.cross_entropy(net(OTHER)[:, :-1].flatten(0, 1), OTHER[:, 1:].flatten())


@pytest.mark.parametrize("name, tied", one_in(2, [case for case in CASES if case[0] in RMS]))
@pytest.mark.parametrize("together", [False, True])
def test_carried_gradients_are_those_that_the_split_network_has(name, tied, together):
    net = model(name, tied)
    loss(net).backward()
    split_neuron(net, "embed", 3, example_inputs=IDS, rule="even", together=together)
    carried = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    loss(net).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(carried[name], parameter.grad, rtol=1e-8, atol=1e-12, msg=name)


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("name, tied", [("RMSNorm", False), ("as in Llama", True), ("LayerNorm", True)])
def test_training_goes_on_and_the_channel_learns(name, tied, state):
    net = model(name, tied)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        loss(net).backward()
        optimizer.step()

    step()
    before = loss(net).item()
    moments = copy.deepcopy(optimizer.state[net.q.weight])
    split_neuron(net, "embed", 3, example_inputs=IDS, optimizer=optimizer, state=state, rng=rng())
    assert loss(net).item() == pytest.approx(before, rel=1e-12)
    assert {id(p) for p in net.parameters()} == {id(p) for group in optimizer.param_groups for p in group["params"]}
    for parameter, of in optimizer.state.items():
        assert of["exp_avg"].shape == of["exp_avg_sq"].shape == parameter.shape and of["exp_avg"].isfinite().all()
    after = optimizer.state[net.q.weight]["exp_avg"]
    torch.testing.assert_close(after[:, [0, 1, 2, 4, 5]], moments["exp_avg"][:, [0, 1, 2, 4, 5]])
    assert (after[:, 6] == 0).all() == (state == "reset" or name in LAYER)  # what reads 0 has no gradient
    new = net.down.weight[6].clone()
    for _ in range(20):
        step()
    assert loss(net).item() < before and (net.down.weight[6] - new).abs().min() > 0
    assert net.q.weight.grad[:, 6].abs().min() > 0


@pytest.mark.parametrize("name, tied", [("RMSNorm", False), ("as in Llama", True), ("LayerNorm", True)])
def test_several_at_once_one_after_another_and_to_any_width(name, tied):
    net = model(name, tied)
    before = outputs(net, OTHER)
    split_neuron(net, "embed", neurons=[3, 0, 3], example_inputs=IDS, rng=rng())
    split_neuron(net, "o", 8, example_inputs=IDS, rng=rng())
    assert net.embed.embedding_dim == 10 and relative_change(before, outputs(net, OTHER)) <= 1e-12
    widen(net, {"embed": 13, "up": 13}, example_inputs=IDS)
    assert net.embed.embedding_dim == 13 and net.down.in_features == 13
    assert relative_change(before, outputs(net, OTHER)) <= 1e-12
    with pytest.raises(ValueError, match="width 12 of 'embed'"):
        widen(net, {"embed": 12}, example_inputs=IDS)


@pytest.mark.parametrize("name, tied", one_in(2, CASES))
def test_the_whole_axis_splits_where_it_is_asked_for(name, tied):
    net = model(name, tied)
    before = outputs(net, OTHER)
    split_neuron(net, "embed", 3, example_inputs=IDS, rule="outgoing", together=True, rng=rng())
    assert net.embed.embedding_dim == 12 and relative_change(before, outputs(net, OTHER)) <= 1e-12


def test_a_table_says_that_one_channel_splits():
    table = splittable(model("RMSNorm", True), IDS).set_index("layer")
    assert table.splits_together[["embed", "o", "down", "up"]].tolist() == [1, 1, 1, 1]
    assert {"embed.weight", "first.weight", "last.weight", "down.weight", "o.bias"} < set(table.changes["embed"])


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_width_norm_and_channels(data):
    name, tied = data.draw(st.sampled_from(CASES))
    width = data.draw(st.integers(2, 9))
    net, channels = model(name, tied, width), data.draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=3))
    before = outputs(net, OTHER)
    split_neuron(net, "embed", neurons=channels, example_inputs=IDS, rng=rng(data.draw(st.integers(0, 99))))
    assert net.embed.embedding_dim > width and relative_change(before, outputs(net, OTHER)) <= 1e-12


def after_each_sum(d, norm=nn.LayerNorm):
    """Post-norm, as in BERT: what a norm gives is added to, and normalised again."""

    def forward(n, ids):
        h = n.norm(n.embed(ids))
        return n.head(n.last(h + n.down(torch.tanh(n.up(h)))))

    return Custom(forward, embed=nn.Embedding(11, d), norm=norm(d), last=norm(d), up=nn.Linear(d, 5),
                  down=nn.Linear(5, d), head=nn.Linear(d, 3))  # fmt: skip


def read_beside(d):
    """The last layer reads the channels without a norm."""
    return Custom(lambda n, ids: n.head((h := n.embed(ids)) + n.down(torch.tanh(n.up(n.norm(h))))),
                  embed=nn.Embedding(11, d), norm=nn.LayerNorm(d), up=nn.Linear(d, 5), down=nn.Linear(5, d),
                  head=nn.Linear(d, 3))  # fmt: skip


REFUSALS = {
    "eps in the code": (lambda: Lm(by_code, False), "alone .*with the eps of '.*' as it is"),
    "eps in the code, tied": (lambda: Lm(by_code, True), "known .*with the eps of '.*' as it is"),
    "a gain of 1 + w": (lambda: Lm(lambda d: by_hand(gemma, d), False), "alone .*'.*weight' is read through add"),
    "no gain, tied": (
        lambda: Lm(NORMS["RMSNorm without a gain"], True),
        "'embed.weight' makes channels and reads those",
    ),
    "LayerNorm after each sum": (lambda: after_each_sum(6), "alone .*'up.weight' reads channels whose mean is taken"),
    "LayerNorm, and a reader without": (lambda: read_beside(6), "alone .*'.*' reads channels whose mean is taken"),
}


def by_code(d):
    norm = by_hand(eps_in_code, d)
    del norm.variance_epsilon
    return norm


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_names_what_lets_no_channel_through(name):
    make, message = REFUSALS[name]
    net = settle(make())
    held = {name: (id(p), p.clone()) for name, p in net.named_parameters()}
    with pytest.raises(ValueError, match=message) as error:
        split_neuron(net, "embed", 3, example_inputs=IDS, rule="even")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert all(id(p) == held[name][0] and torch.equal(p, held[name][1]) for name, p in net.named_parameters())


def test_rms_norm_after_each_sum_lets_one_channel_through():
    net = settle(after_each_sum(6, lambda d: nn.RMSNorm(d, eps=EPS)))
    before = outputs(net, OTHER)
    split_neuron(net, "embed", 3, example_inputs=IDS, rng=rng())
    assert net.embed.embedding_dim == 7 and relative_change(before, outputs(net, OTHER)) <= 1e-12


def test_a_mean_of_channels_stays_if_the_new_one_is_the_mean():
    net = Custom(lambda n, x: n.b(n.a(x).mean(1, keepdim=True)), a=nn.Linear(5, 4), b=nn.Linear(1, 3)).double()
    x, other = torch.randn(2, 3, 5).double()
    before, old = outputs(net, other), copy.deepcopy(net)
    split_neuron(net, "a", 1, example_inputs=x)
    torch.testing.assert_close(net.a.weight, torch.cat([old.a.weight, old.a.weight.mean(0, keepdim=True)]))
    assert relative_change(before, outputs(net, other)) <= 1e-12


@pytest.mark.parametrize("penalised", [False, True])
def test_a_mean_in_training_alone_joins_channels(penalised):
    """It is in no output that is compared, such as a penalty on the size of activations."""

    def forward(n, x):
        h = n.a(x)
        n.penalty = h.pow(2).mean(-1) if n.training and penalised else None
        return n.b(n.norm(h))

    net = settle(Custom(forward, a=nn.Linear(5, 4), norm=nn.RMSNorm(4, eps=EPS), b=nn.Linear(4, 3)))
    options = {"example_inputs": torch.randn(3, 5).double(), "rule": "even"}
    if penalised:
        with pytest.raises(ValueError, match="alone .mean in 'norm'.: allowed is together=True, which splits 4"):
            split_neuron(net, "a", 1, **options)
    split_neuron(net, "a", 1, **options, together=penalised)
    assert net.b.in_features == (8 if penalised else 5)


def test_an_activation_that_keeps_0_may_follow_layer_norm():
    for activation, exact in ((nn.GELU(), True), (nn.Sigmoid(), False)):
        net = settle(nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4, eps=EPS), activation, nn.Linear(4, 2)))
        x, other = torch.randn(2, 3, 5).double()
        before = outputs(net, other)
        if exact:
            split_neuron(net, "0", 1, example_inputs=x, rule="even")
            assert net[3].in_features == 5 and relative_change(before, outputs(net, other)) <= 1e-12
        else:
            with pytest.raises(
                ValueError, match="'0' has no exact split alone .layer_norm in '1'; it would change the"
            ):
                split_neuron(net, "0", 1, example_inputs=x, rule="even")
