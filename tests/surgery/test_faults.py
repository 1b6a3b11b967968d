"""Faults that were found by use, each as a kind: what is asked for stands in the name of the test."""

import pytest
import torch
from networks import (
    FLAT,
    IMAGE,
    Custom,
    in_double,
    outputs,
    plain,
    relative_change,
    rng,
    split_exactly,
)
from torch import nn
from torch.nn.functional import relu

from neuronsplit.surgery.split_neuron import split_neuron

# Layers and parameters of one's own


class MyLinear(nn.Linear):
    """With an initialisation of its own."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        nn.init.uniform_(self.weight)


class MyConv(nn.Conv2d):
    """With a forward of its own: its weight is standardised."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, padding=1)


class SameConv(nn.Conv2d):
    """With a forward of its own, as timm's."""

    def forward(self, x):
        return self._conv_forward(nn.functional.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def forward(self, x):
        x = nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps
        )
        return relu(x)


class MyParameter(nn.Parameter):
    pass


class Dense(nn.Module):
    """A layer of one's own, as Hugging Face's Conv1D: its weight is (n_in, n_out)."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.nf, self.weight, self.bias = (
            n_out,
            nn.Parameter(torch.randn(n_in, n_out)),
            nn.Parameter(torch.randn(n_out)),
        )

    def forward(self, x):
        shape = (*x.shape[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(shape)


@pytest.mark.parametrize("first, last", [(MyLinear, nn.Linear), (nn.Linear, MyLinear), (Dense, Dense)])
def test_subclasses_of_linear_and_layers_of_ones_own(first, last):
    net = nn.Sequential(first(5, 4), nn.ReLU(), last(4, 2))
    split_exactly(net, "0", FLAT, neuron=1)
    assert type(net[0]) is first and (net[0].nf if first is Dense else net[0].out_features) == 5


def test_subclasses_of_convolutions_and_norms():
    net = nn.Sequential(SameConv(3, 4, 3), NormAct(4), SameConv(4, 2, 3))
    split_exactly(net, "0", torch.randn(2, 3, 6, 6), [torch.randn(2, 3, 9, 9)], neuron=1)
    assert type(net[1]) is NormAct and net[1].num_features == 5 and net[2].in_channels == 5


def test_a_weight_that_is_standardised_is_split_as_what_makes_and_refused_as_what_reads():
    """The shares would change its mean over what it reads."""
    net, x = (
        nn.Sequential(MyConv(3, 4, 3), nn.ReLU(), MyConv(4, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1)),
        torch.randn(2, 3, 6, 6),
    )
    split_exactly(net, "2", x, neuron=1, rule="outgoing")
    with pytest.raises(ValueError, match="'0' has no exact split"):
        split_neuron(net, "0", 1, example_inputs=in_double(x), rule="outgoing")


def test_attributes_and_classes_of_parameters_stay():
    net = plain()
    net[0].weight._no_weight_decay = True
    net[2].weight = MyParameter(net[2].weight.detach().clone())
    split_neuron(net, "0", 1, example_inputs=FLAT)
    assert net[0].weight._no_weight_decay and net[0].weight.shape == (5, 5)
    assert type(net[2].weight) is MyParameter and net[2].weight.shape == (2, 5)


# Precision


@pytest.mark.parametrize("rule", ["scaled", "even", "outgoing"])
def test_under_autocast_the_check_is_in_full_precision(rule):
    for seed in range(5):
        torch.manual_seed(seed)
        net, x = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)), torch.randn(8, 20)
        with torch.autocast("cpu", torch.bfloat16):
            record = split_neuron(net, "0", 3, example_inputs=x, rule=rule, rng=rng(seed))
            assert torch.is_autocast_enabled("cpu")
        assert record.change < 1e-12 and net[0].weight.dtype == torch.float32


class Decorated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(20, 30), nn.Linear(30, 5)

    @torch.autocast("cpu", torch.bfloat16)
    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def test_a_forward_that_is_decorated_with_autocast_is_split_to_what_that_precision_allows():
    for seed in range(5):
        torch.manual_seed(seed)
        net, x = Decorated(), torch.randn(8, 20)
        split_neuron(net, "a", 3, example_inputs=x, rule="scaled", rng=rng(seed))
        assert net.a.out_features == 31


@pytest.mark.parametrize("double", [False, True])
def test_a_default_dtype_of_float64_changes_nothing(double):
    net, x = plain(), torch.randn(3, 5)
    net, x = (net.double(), x.double()) if double else (net, x)
    before = outputs(net, x)
    torch.set_default_dtype(torch.float64)
    try:
        split_neuron(net, "0", 1, example_inputs=x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert net[0].weight.dtype == x.dtype and relative_change(before, outputs(net, x)) < 1e-6


def test_a_default_device_of_meta_changes_nothing():
    net, x = plain(), torch.randn(3, 5)
    optimizer = torch.optim.Adam(net.parameters())
    net(x).sum().backward()
    optimizer.step()
    before = outputs(net, x)
    with torch.device("meta"):
        split_neuron(net, "0", 1, example_inputs=x, optimizer=optimizer)
    assert net[0].weight.device.type == "cpu" and relative_change(before, outputs(net, x)) < 1e-6
    assert optimizer.state[net[0].weight]["exp_avg"].device.type == "cpu"


# Example inputs, and what they hide


def test_nan_that_the_split_would_bring_is_found_and_undone():
    """A root of what is below the number of channels: the copy makes it negative."""
    net = Custom(lambda n, x: n.b(n.a(x)) * (4.5 - n.a(x).shape[-1]) ** 0.5 if n.a(x).shape[-1] < 5
                 else n.b(n.a(x)) * float("nan"), a=nn.Linear(5, 4), b=nn.Linear(4, 2))  # fmt: skip
    weight = net.a.weight
    with pytest.raises(ValueError, match="'a' has no exact split known.*it would change the output by (inf|nan)"):
        split_neuron(net, "a", 1, example_inputs=FLAT)
    assert net.a.weight is weight and net.a.out_features == 4 and net.b.in_features == 4


def test_nan_that_was_there_before_stays_where_it_was():
    net, x = plain(), torch.tensor([[1.0, 2, 3, 4, 5], [1, 2, float("nan"), 4, 5]])
    split_neuron(net, "0", 1, example_inputs=x)
    assert net[0].out_features == 5


def test_a_lazy_layer_that_has_not_run_is_named():
    net = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match="^'?0.*(run|call).* once first"):
        split_neuron(net, "0", 1, example_inputs=FLAT)
    net(FLAT)
    split_neuron(net, "0", 1, example_inputs=FLAT)
    assert net[0].out_features == 5


@pytest.mark.parametrize("inputs", [(FLAT, IMAGE[:, 0]), [FLAT, IMAGE[:, 0]], {"x": FLAT, "y": IMAGE[:, 0]}])
def test_inputs_are_arguments_or_keywords(inputs):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(7, 4), nn.Linear(4, 2)

        def forward(self, x, y):
            return self.c(torch.relu(self.a(x) + self.b(y)))

    net = Two()
    split_exactly(net, "b", inputs, neuron=1)
    assert net.a.out_features == net.b.out_features == net.c.in_features == 5


def test_a_users_hooks_stay_and_their_effects_are_few():
    net, calls = plain(), []
    net[0].register_forward_hook(lambda module, inputs, output: calls.append(tuple(output.shape)))
    split_exactly(net, "0", FLAT, neuron=1)
    net(FLAT.double())
    assert len(net[0]._forward_hooks) == 1 and calls[-1] == (3, 5)


def test_a_hook_that_changes_the_output_is_part_of_the_network():
    net = plain()
    net[0].register_forward_hook(lambda module, inputs, output: torch.tanh(output))
    split_exactly(net, "0", FLAT, neuron=1, rule="outgoing")
    with pytest.raises(ValueError, match="^rule 'scaled' is not exact through tanh"):
        split_neuron(net, "0", 1, example_inputs=FLAT.double())


# Operations that were refused


class C2f(nn.Module):
    """Two paths of one convolution, as in YOLO."""

    def __init__(self):
        super().__init__()
        self.a, self.m, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(12, 2, 1)

    def forward(self, x):
        y = list(torch.relu(self.a(x)).chunk(2, 1))
        y.append(torch.relu(self.m(y[-1])))
        return self.b(torch.cat(y, 1))


class Block(nn.Module):
    """A residual block with layer scale, positions longer than the example, sin, permute and stochastic depth."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 4)
        self.gamma, self.head = nn.Parameter(torch.rand(4)), nn.Conv1d(4, 2, 1)
        self.register_buffer("place", torch.randn(1, 20, 4))

    def forward(self, x):
        h = self.embed(x) + self.place[:, : x.shape[1]]
        out = self.gamma * self.down(torch.sin(self.up(h)))
        keep = torch.rand(len(x), 1, 1, dtype=x.dtype) < 0.9 if self.training else 1.0
        return self.head((h + out * keep).permute(0, 2, 1))


def test_chunks_into_two_paths():
    net = C2f()
    split_exactly(net, "m", torch.randn(2, 3, 6, 6), neuron=1)
    assert net.b.in_channels == 13
    for neuron in (1, 5):
        split_exactly(C2f(), "a", torch.randn(2, 3, 6, 6), neuron=neuron, together=True)


@pytest.mark.parametrize("layer", ["up", "embed", "down", "gamma"])
def test_layer_scale_positions_sin_permute_and_stochastic_depth(layer):
    net = Block()
    split_exactly(net, layer, torch.randn(2, 5, 3), [torch.randn(2, 9, 3)], neuron=1, rule="outgoing")
    if layer != "up":
        assert net.gamma.shape == (5,) and net.place.shape == (1, 20, 5) and net.head.in_channels == 5


class Own(nn.Module):
    """An activation of one's own, of operations that no list names."""

    def forward(self, x):
        return x * torch.tanh(nn.functional.softplus(x)) + torch.special.erfcx(x.abs()) + torch.atan2(x, x.square() + 1)


def test_an_activation_of_ones_own():
    net = nn.Sequential(nn.Linear(5, 4), Own(), nn.Linear(4, 2))
    split_exactly(net, "0", torch.randn(3, 5), [torch.randn(3, 5)], neuron=1, rule="outgoing")


class Maxout(nn.Module):
    def forward(self, x):
        return torch.maximum(x, 0.3 * x)


def test_an_activation_of_ones_own_that_is_homogeneous_lets_a_scale_through():
    net = nn.Sequential(nn.Linear(5, 4), Maxout(), nn.Linear(4, 2))
    record = split_exactly(net, "0", torch.randn(3, 5), [torch.randn(3, 5)], neuron=1)
    assert record.coefficients[0][0] != 1


def test_one_that_is_homogeneous_of_degree_2_does_not():
    net = nn.Sequential(nn.Linear(5, 4), Custom(lambda n, x: torch.relu(x) * x), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="^rule 'scaled' is not exact through mul in '?1'?: allowed are outgoing"):
        split_neuron(net, "0", 1, example_inputs=FLAT)


def test_modules_for_quantisation_are_refused_with_the_reason():
    import torch.ao.nn.qat as qat
    from torch.ao.quantization import get_default_qat_qconfig

    layer = qat.Linear(5, 4, qconfig=get_default_qat_qconfig("x86"))
    net = nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="fake_quant|quantis"):
        split_neuron(net, "0", 1, example_inputs=torch.randn(3, 5))
    assert net[0].weight.shape == (4, 5)
