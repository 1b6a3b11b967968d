"""Twins are merged back into what they were split from, and other neurons with the change said."""

import copy
import json

import pytest
import torch
from drawn import draw_network
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import ACTIVATIONS, EXACT, Custom, in_double, mlp, outputs, relative_change, rng, settle, train
from test_constructions import CONSTRUCTIONS
from test_optimizer_state import OPTIMIZERS
from test_saved_config import GPT, Config, made_again
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from neuronsplit import merge_neurons, replay, split_neuron
from neuronsplit.surgery.edits import Place, spread

N_EXAMPLES = settings.default.max_examples
WHOLE_AXES = {name for name in CONSTRUCTIONS if "axis" in name or "RMSNorm" in name}


def twins_of(record, parameter, neuron):
    """Where the twins of a neuron stand along the axis of a parameter that was split, from its record."""
    place = next(Place(*place) for place in record.places if place[0] == parameter)
    size = record.shapes[parameter][0][place.axis]
    sets = list(range(len(place.runs)))
    source, _ = spread(place.runs, size, torch.tensor(sets + record.sets), record.last)
    return (source == neuron).nonzero()[:, 0].tolist()


def differences(net, other):
    """The largest change of each parameter and buffer, relative to its largest entry."""
    pairs = zip(net.state_dict().values(), other.state_dict().values(), strict=True)
    return [relative_change(a, b) for a, b in pairs if a.is_floating_point()]


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in CONSTRUCTIONS if name not in WHOLE_AXES])
def test_a_split_and_a_merge_give_back_the_network(name):
    """MLPs, convolutions with norms, recurrent units, heads of attention, gates, packed and concatenated channels."""
    make, layer, shape, rules, options, _ = CONSTRUCTIONS[name]
    torch.manual_seed(0)
    net, inputs = settle(make()), [in_double(torch.randn(shape)) for _ in range(2)]
    entry = next(n for n, _ in net.named_parameters() if n.startswith(f"{layer}."))
    for rule in rules:
        merged = copy.deepcopy(net)
        split = split_neuron(merged, layer, 1, example_inputs=inputs[0], rule=rule, rng=rng(), **options)
        i, j = twins_of(split, entry, 1)
        grown = copy.deepcopy(merged)
        record = merge_neurons(merged, layer, i, j, example_inputs=inputs[0])
        assert str(merged) == str(net)
        assert {n: tuple(p.shape) for n, p in merged.named_parameters()} == {
            n: tuple(p.shape) for n, p in net.named_parameters()
        }
        assert record.change == relative_change(outputs(grown, inputs[0]), outputs(merged, inputs[0])) <= 1e-15
        assert all(relative_change(outputs(net, x), outputs(merged, x)) <= 1e-15 for x in inputs)
        if not rule.startswith("scaled"):
            assert max(differences(net, merged)) <= (0 if rule == "even" else 1e-15)
        replay(json.loads(json.dumps([split, record])), again := copy.deepcopy(net))
        assert max(differences(merged, again)) == 0


@pytest.mark.long
@settings(max_examples=N_EXAMPLES // 4)
@given(data=st.data())
def test_any_two_neurons_are_merged_as_by_hand_and_the_change_is_said(data):
    """What read the second one is added, times the ratio of the norms where the activation lets a scale through."""
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    n_in, hidden, n_out = (data.draw(st.integers(*bounds)) for bounds in ((1, 4), (2, 5), (1, 4)))
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    net, x = mlp(n_in, hidden, n_out, activation=activation), torch.randn(6, n_in).double()
    i, j = data.draw(st.permutations(range(hidden)))[:2]
    w, b, v = (p.detach().clone() for p in (net[0].weight, net[0].bias, net[2].weight))
    ratio = 1.0
    if activation in (nn.ReLU, nn.LeakyReLU, nn.Identity):
        ratio = (sum(value**2 for value in [*w[j], b[j]]) / sum(value**2 for value in [*w[i], b[i]])).sqrt()
    kept = [n for n in range(hidden) if n != j]
    v[:, i] += ratio * v[:, j]
    before = outputs(net, x)
    record = merge_neurons(net, "0", i, j, example_inputs=x)
    torch.testing.assert_close(net[0].weight, w[kept], rtol=0, atol=0)
    torch.testing.assert_close(net[0].bias, b[kept], rtol=0, atol=0)
    torch.testing.assert_close(net[2].weight, v[:, kept], rtol=1e-13, atol=1e-15)
    assert record.change == relative_change(before, outputs(net, x))
    assert (net[0].out_features, net[2].in_features) == (hidden - 1, hidden - 1)


@pytest.mark.long
@settings(max_examples=N_EXAMPLES // 8)
@given(data=st.data())
def test_a_drawn_network_is_given_back_or_the_merge_is_refused(data):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    net, x = settle(draw_network(data.draw)), torch.randn(2, 4, 3).double()
    names = [name for name, p in net.named_parameters() if p.dim() > 1]
    name, neuron = data.draw(st.sampled_from(names)), data.draw(st.integers(0, 4))
    merged, rule = copy.deepcopy(net), data.draw(st.sampled_from([r for r in EXACT if not r.startswith("scaled")]))
    try:
        record = split_neuron(merged, name, neuron, example_inputs=x, rule=rule, rng=rng(), together=True)
    except ValueError:
        return
    if name not in record.shapes or len(twins := twins_of(record, name, neuron)) != 2:
        return
    held, grown = [id(p) for p in merged.parameters()], copy.deepcopy(merged)
    try:
        merge_neurons(merged, name, *twins, example_inputs=x)
    except ValueError as error:
        assert "\n" not in str(error) and [id(p) for p in merged.parameters()] == held
        assert max(differences(grown, merged)) == 0
    else:
        assert max(differences(net, merged)) <= 1e-13


def test_near_twins_are_merged_with_the_change_of_a_plain_run():
    """After training they differ. In float32 too, the record says what the outputs before and after do."""
    torch.manual_seed(0)
    net, x = mlp(6, 5, 3, activation=nn.Tanh).float(), torch.randn(30, 6)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    split_neuron(net, "0", 2, example_inputs=x, optimizer=optimizer, rule="outgoing", rng=rng())
    train(net, optimizer, 20)
    before = outputs(net, x)
    record = merge_neurons(net, "0", 2, 5, example_inputs=x, optimizer=optimizer)
    assert record.change == pytest.approx(relative_change(before, outputs(net, x)), rel=1e-6) and record.change > 1e-3


@pytest.mark.parametrize("rule, name", [("even", name) for name in OPTIMIZERS] + [("outgoing", "momentum")])
def test_the_state_of_the_optimiser_is_given_back(rule, name):
    torch.manual_seed(0)
    net, x = mlp(6, 5, 3), torch.randn(4, 6).double()
    optimizer = OPTIMIZERS[name](net.parameters())
    train(net, optimizer, 5)
    whole, its_optimizer = copy.deepcopy((net, optimizer))
    gradients = [p.grad.clone() for p in net.parameters()]
    split_neuron(net, "0", 2, rule=rule, rng=rng(), example_inputs=x, optimizer=optimizer)
    merge_neurons(net, "0", 2, 5, example_inputs=x, optimizer=optimizer)
    for parameter, old, gradient in zip(net.parameters(), whole.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-14, atol=0)
        found, expected = optimizer.state[parameter], its_optimizer.state[old]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-14, atol=0)
    train(net, optimizer, 3, seed=1)
    train(whole, its_optimizer, 3, seed=1)
    assert max(differences(whole, net)) <= 1e-12


@pytest.mark.parametrize("make", [lambda net: net, lambda net: nn.Sequential(weight_norm(net[0]), *net[1:])])
def test_the_state_is_that_of_scaled_weights_where_twins_were_scaled(make):
    """The neuron that stays is α times the first one. So gradients of what makes it are 1/α times those before."""
    torch.manual_seed(0)
    net, x = make(mlp(6, 5, 3)), torch.randn(4, 6).double()
    optimizer = torch.optim.Adam(net.parameters())
    train(net, optimizer, 5)
    old, its_optimizer = copy.deepcopy((net, optimizer))
    record = split_neuron(net, "0", 2, rule="scaled", rng=rng(), example_inputs=x, optimizer=optimizer)
    merge_neurons(net, "0", 2, 5, example_inputs=x, optimizer=optimizer)
    ((alpha, *_),) = record.coefficients
    scale = torch.tensor([1, 1, alpha, 1, 1], dtype=torch.float64)
    for name, parameter in net.named_parameters():
        before, after = its_optimizer.state[old.get_parameter(name)], optimizer.state[parameter]
        factor = scale if name == "2.weight" else (1 / scale).view([-1] + [1] * (parameter.dim() - 1))
        factor = 1 if name == "2.bias" else factor
        for key, power in (("exp_avg", 1), ("exp_avg_sq", 2)):
            torch.testing.assert_close(after[key], before[key] * factor**power, rtol=1e-12, atol=0, msg=name)


def adafactor(net):
    return torch.optim.Adafactor(net.parameters())


@pytest.mark.parametrize("name", ["LSTM {}", "attention head by q", "SwiGLU by its gate", "BatchNorm"])
@pytest.mark.parametrize("make_optimizer", [lambda net: torch.optim.AdamW(net.parameters()), adafactor])
def test_training_goes_on_as_if_there_had_been_no_split(name, make_optimizer):
    make, layer, shape, _, options, _ = CONSTRUCTIONS[name]
    torch.manual_seed(0)
    net, x = settle(make()), in_double(torch.randn(shape))
    entry = next(n for n, _ in net.named_parameters() if n.startswith(f"{layer}."))
    both = [(one, make_optimizer(one)) for one in (net, copy.deepcopy(net))]

    def step(net, optimizer):
        optimizer.zero_grad()
        net.train()(x).square().mean().backward()
        optimizer.step()
        net.eval()

    for one in both:
        step(*one)
    merged, optimizer = both[1]
    record = split_neuron(merged, layer, 1, rule="even", example_inputs=x, optimizer=optimizer, **options)
    merge_neurons(merged, layer, *twins_of(record, entry, 1), example_inputs=x, optimizer=optimizer)
    for one in both * 2:
        step(*one)
    assert max(differences(net, merged)) <= 1e-10


class Heads(nn.Module):
    """Attention that notes its number of heads in two places."""

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {})()
        self.config.num_heads, self.num_heads, self.size = 3, 3, 4
        self.qkv, self.out = nn.Linear(6, 36), nn.Linear(12, 6)

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, self.size).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.out(out.reshape(*x.shape[:2], self.config.num_heads * self.size))


def test_numbers_that_modules_note_go_down():
    """Two heads that are no twins, and whose values let a scale through: one is left, and the noted numbers say so."""
    torch.manual_seed(0)
    net, x = Heads().double(), torch.randn(2, 5, 6).double()
    fresh, before = copy.deepcopy(net), outputs(net, x)
    record = merge_neurons(net, "qkv", 1, 9, example_inputs=x)
    assert (net.num_heads, net.config.num_heads, net.size, net.qkv.out_features) == (2, 2, 4, 24)
    made, bias = fresh.qkv.weight.view(3, 3, 4, 6), fresh.qkv.bias.view(3, 3, 4)  # q, k or v; head; channel
    assert torch.equal(net.qkv.weight, made[:, :2].flatten(0, 2))
    norms = (made[2].square().sum((1, 2)) + bias[2].square().sum(1)).sqrt()
    read = fresh.out.weight.unflatten(1, (3, 4))
    expected = torch.cat([read[:, 0] + norms[2] / norms[0] * read[:, 2], read[:, 1]], 1)
    torch.testing.assert_close(net.out.weight, expected, rtol=1e-13, atol=1e-15)
    assert record.change == relative_change(before, outputs(net, x)) > 1e-3


def test_the_configuration_follows():
    torch.manual_seed(0)
    net, ids = settle(GPT(Config(n_layer=1))), torch.randint(11, (2, 5))
    merge_neurons(net, "blocks.0.up", 3, 7, example_inputs=ids)
    assert net.config.n_hidden == 31
    assert relative_change(outputs(net, ids), outputs(made_again(net), ids)) <= 1e-12


@pytest.mark.parametrize("dim", [0, None])
@pytest.mark.parametrize("rule", ["even", "scaled"])
def test_weights_that_are_normalised_are_merged(dim, rule):
    """What reads the twins is normalised over them, and what makes them over itself, or over all of them."""
    torch.manual_seed(0)
    net, x = mlp(5, 4, 4, 3), torch.randn(4, 5).double()
    net = nn.Sequential(weight_norm(net[0], dim=dim), net[1], weight_norm(net[2], dim=dim), *net[3:])
    before = outputs(net, x)
    split_neuron(net, "0", 1, rule=rule, rng=rng(), example_inputs=x)
    merge_neurons(net, "0", 1, 4, example_inputs=x)
    assert net[0].weight.shape == (4, 5) and relative_change(before, outputs(net, x)) <= 1e-15


def summed(n, x):
    return n.b(torch.tanh(n.a(x))).sum(-1, keepdim=True)


REFUSED = [
    ((1, 1), "neurons 1 and 1: allowed are two different whole numbers"),
    ((0, 1.0), "neurons 0 and 1.0: allowed are two different whole numbers"),
    ((0, 6), "neuron 6 of '0': allowed are whole numbers from 0 to 5"),
    ((-1, 2), "neuron -1 of '0': allowed are whole numbers from 0 to 5"),
]


def refused(net, where, i, j, message, **options):
    """The merge is refused by a message, and nothing has changed."""
    held, state = [(id(p), p.grad) for p in net.parameters()], copy.deepcopy(net.state_dict())
    sizes = str(net)
    with pytest.raises(ValueError, match=f"^{message}$"):
        merge_neurons(net, where, i, j, **options)
    assert [(id(p), p.grad) for p in net.parameters()] == held and str(net) == sizes
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), state.values(), strict=True))


@pytest.mark.parametrize("numbers, message", REFUSED)
def test_numbers_that_are_not_of_two_neurons_are_refused(numbers, message):
    refused(mlp(5, 6, 3), "0", *numbers, message, example_inputs=torch.randn(4, 5).double())


@pytest.mark.parametrize("name, message", [
    ("LayerNorm axis", "'embed' has no exact split known .both neurons split together, or in sets of .*"),
    ("attention head by q", "'q' has no exact split known .both neurons split together.*"),  # of one head
])  # fmt: skip
def test_neurons_of_one_set_are_not_merged(name, message):
    make, layer, shape, *_ = CONSTRUCTIONS[name]
    refused(settle(make()), layer, 0, 1, message, example_inputs=in_double(torch.randn(shape)))


def test_other_layers_than_hidden_ones_are_refused():
    net, x = mlp(5, 6, 3), torch.randn(4, 5).double()
    refused(net, "2", 0, 1, "'2' has no exact split known .it is in the network's output.*", example_inputs=x)
    refused(net, "1", 0, 1, "layer '1': allowed are 0, 2, or parameters by name", example_inputs=x)


def test_a_sum_of_channels_would_lose_one_of_them():
    net = Custom(summed, a=nn.Linear(5, 4), b=nn.Linear(4, 6)).double()
    refused(net, "b", 0, 1, "'b' has no exact split known .*", example_inputs=torch.randn(3, 5).double())


def test_a_state_that_is_not_known_is_refused_before_anything_changes():
    net, x = mlp(6, 5, 3, activation=nn.Tanh), torch.randn(4, 6).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    train(net, optimizer, 1)
    for parameter in net.parameters():
        optimizer.state[parameter]["other"] = torch.ones_like(parameter)
    message = "SGD keeps 'other', unknown here: say how it goes with state_exponents=.*"
    refused(net, "0", 1, 2, message, example_inputs=x, optimizer=optimizer)
    assert {id(p) for p in net.parameters()} == {id(p) for p in optimizer.param_groups[0]["params"]}
    merge_neurons(net, "0", 1, 2, example_inputs=x, optimizer=optimizer, state_exponents={"other": 1})
    made, bias, read, _ = (optimizer.state[parameter]["other"] for parameter in net.parameters())
    assert made[1].tolist() == [2] * 6 and bias.tolist() == [1, 2, 1, 1] and (read == 1).all()
