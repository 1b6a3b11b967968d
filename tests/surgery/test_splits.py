"""Splits are exact in networks of many kinds, up to models of torchvision."""

import copy
import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import ACTIVATIONS, EXACT, FLAT, HOMOGENEOUS, Branching, Residual, cnn, mlp, outputs, plain, rng, settle
from sampling import one_in
from torch import nn

from neuronsplit.data.download import import_torchvision_datasets
from neuronsplit.surgery.split_neuron import split_neuron


@settings(max_examples=settings.default.max_examples // 4)
@given(data=st.data())
def test_any_split_keeps_the_output(data):
    channels = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    rule = data.draw(st.sampled_from(EXACT))
    seed = data.draw(st.integers(0, 2**31))
    torch.manual_seed(seed)
    net = settle(cnn(activation, channels, data.draw(st.booleans())), seed)
    layer, width = data.draw(st.sampled_from(list(zip(("0", "4", "8"), channels))))
    neurons = data.draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=4))
    x = torch.randn(5, 2, 8, 8).double()
    before = outputs(net, x)
    record = split_neuron(net, layer, neurons=neurons, rule=rule, rng=rng(seed), example_inputs=x, unscaled=True)
    assert (outputs(net, x) - before).abs().max() <= 1e-12 * before.abs().max()
    assert net.get_submodule(layer).weight.shape[0] == width + len(neurons)
    scaled = any(alpha != 1 for alpha, *_ in record.coefficients)
    assert scaled == (rule.startswith("scaled") and activation in HOMOGENEOUS)


@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_any_split_of_any_dense_network_keeps_the_output(data):
    sizes = data.draw(st.lists(st.integers(1, 8), min_size=3, max_size=6))
    rule, activation = data.draw(st.sampled_from(EXACT)), data.draw(st.sampled_from(ACTIVATIONS))
    depth = data.draw(st.integers(0, len(sizes) - 3))
    neurons = data.draw(st.lists(st.integers(0, sizes[depth + 1] - 1), min_size=1, max_size=5))
    seed = data.draw(st.integers(0, 2**31))
    torch.manual_seed(seed)
    net, x = mlp(*sizes, activation=activation), torch.randn(7, sizes[0]).double()
    before = outputs(net, x)
    split_neuron(net, str(2 * depth), neurons=neurons, rule=rule, rng=rng(seed), example_inputs=x, unscaled=True)
    assert (outputs(net, x) - before).abs().max() <= 1e-12 * before.abs().max()


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize("rule", EXACT)
def test_other_precisions_keep_the_output_to_their_rounding(rule, dtype, bound):
    torch.manual_seed(0)
    net, x = mlp(20, 30, 10).to(dtype), torch.randn(50, 20).to(dtype)
    before = outputs(net, x)
    split_neuron(net, "0", neurons=[3, 7, 7], rule=rule, rng=rng(), example_inputs=x)
    assert net[0].weight.dtype == dtype and net[0].weight.shape == (33, 20)
    assert (outputs(net, x) - before).abs().max() <= bound * before.abs().max()


RESNET = ["conv1", "layer1.0.conv1", "layer1.1.conv2", "layer2.0.conv2", "layer2.0.downsample.0", "layer4.1.conv1"]
MOBILENET = [
    "features.0.0", "features.1.block.0.0", "features.1.block.1.fc1", "features.4.block.1.0", "features.8.block.3.0",
    "features.12.0", "classifier.0",
]  # fmt: skip
VGG = ["features.0", "features.25", "classifier.0"]
SMALL = [*product(["resnet18"], RESNET, ["scaled"]), *product(["mobilenet_v3_small"], MOBILENET, ["outgoing"])]
LARGE = [
    *product(["vgg11_bn"], VGG, ["scaled-outgoing"]),
    ("vit_b_16", "encoder.layers.encoder_layer_3.mlp.0", "outgoing"),
]
MODELS = [*one_in(3, SMALL), *(pytest.param(*case, marks=pytest.mark.long) for case in LARGE)]


@pytest.mark.parametrize("name, layer, rule", MODELS, ids=lambda value: str(value))
def test_real_models_keep_their_outputs(name, layer, rule):
    import_torchvision_datasets()
    import torchvision.models

    torch.manual_seed(0)
    net = settle(getattr(torchvision.models, name)(weights=None, **({"image_size": 32} if "vit" in name else {})))
    if name == "vit_b_16":  # which is made with a head of zeros
        nn.init.normal_(net.heads.head.weight)
    x = torch.randn(2, 3, 32, 32).double()
    before = outputs(net, x)
    split_neuron(net, layer, neurons=[1, 4], rule=rule, rng=rng(), example_inputs=x)
    assert before.abs().max() > 0
    assert (outputs(net, x) - before).abs().max() <= 1e-12 * before.abs().max()


@pytest.mark.parametrize("layer", ["mlp.0", "mlp.3", "self_attention.out_proj"])
def test_a_small_vision_transformer_keeps_its_output(layer):
    import_torchvision_datasets()
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    net = settle(VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=3))
    nn.init.normal_(net.heads.head.weight)
    x, layer = torch.randn(2, 3, 32, 32).double(), f"encoder.layers.encoder_layer_1.{layer}"
    before = outputs(net, x)
    try:
        split_neuron(net, layer, 1, rule="outgoing", rng=rng(), example_inputs=x, together=True)
    except ValueError as error:  # nn.MultiheadAttention has one size for what comes in and all heads
        assert not layer.endswith("mlp.0") and "'" + layer in str(error)
    assert (outputs(net, x) - before).abs().max() <= 1e-12 * before.abs().max()


@pytest.mark.parametrize("rule", EXACT)
def test_batchnorm_in_training_mode_keeps_the_output_and_its_statistics(rule):
    torch.manual_seed(0)
    net = settle(cnn(nn.ReLU, (4, 3, 5), flat=True)).train()
    net[11] = nn.Identity()  # its dropout
    x = torch.randn(6, 2, 8, 8).double()
    twin = copy.deepcopy(net)
    split_neuron(net, "0", 2, rule=rule, rng=rng(), example_inputs=x)
    assert net.training and net[1].training
    assert torch.equal(net[1].running_mean[:4], twin[1].running_mean)  # the split itself moves none
    torch.testing.assert_close(net(x), twin(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net[1].running_var[[2, 4]], twin[1].running_var[[2, 2]])


@pytest.mark.parametrize("layer", ["stem", "a", "b"])
@pytest.mark.parametrize("rule", EXACT)
def test_a_channel_made_by_several_layers_is_split_in_all(layer, rule):
    torch.manual_seed(1)
    net, x = settle(Residual()), torch.randn(3, 2, 6, 6).double()
    before = outputs(net, x)
    split_neuron(net, layer, neurons=[0, 3], rule=rule, rng=rng(), example_inputs=x)
    assert (outputs(net, x) - before).abs().max() <= 1e-12 * before.abs().max()
    assert net.a.weight.shape == (6, 6, 3, 3) and net.head.weight.shape == (5, 9)


@pytest.mark.parametrize(
    "conv, norm", [(nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d)]
)
def test_convolutions_of_any_dimension_with_a_depthwise_one_between(conv, norm):
    torch.manual_seed(0)
    net = settle(nn.Sequential(conv(2, 4, 1), norm(4), nn.ReLU(), conv(4, 4, 3, groups=4), nn.ReLU(), conv(4, 3, 1)))
    x = torch.randn(2, 2, *[5] * int(conv.__name__[4])).double()
    before = outputs(net, x)
    split_neuron(net, "0", neurons=[1, 1], rng=rng(), example_inputs=x)
    assert (outputs(net, x) - before).abs().max() <= 1e-12 * before.abs().max()
    assert net[3].groups == 6 and net[3].weight.shape[:2] == (6, 1)


def test_the_net2net_rule_changes_the_output_and_says_how_much():
    torch.manual_seed(0)
    net, x = mlp(6, 5, 3), torch.randn(9, 6).double()
    before = outputs(net, x)
    record = split_neuron(net, "0", 1, rule="net2net", rng=rng(), example_inputs=x)
    change = ((outputs(net, x) - before).abs().max() / before.abs().max()).item()
    assert record.change == pytest.approx(change) and change > 1e-5


@pytest.mark.parametrize("rule", ["even", "outgoing", "antisymmetric"])
def test_the_rules_that_a_refusal_allows_are_exact_through_gelu(rule):
    net, x = mlp(6, 5, 3, activation=nn.GELU), torch.randn(9, 6).double()
    before = outputs(net, x)
    record = split_neuron(net, "0", 1, rule=rule, rng=rng(), example_inputs=x)
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-12, atol=1e-14)
    assert record.rule == rule and net[0].out_features == 6


class Joined(nn.Module):
    """BatchNorms over joined channels, and over flattened ones."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3), nn.Conv1d(2, 3, 3)
        self.joined, self.flat, self.head = nn.BatchNorm1d(7), nn.BatchNorm1d(42), nn.Linear(42, 3)

    def forward(self, x):
        h = self.joined(torch.cat([self.b(x), self.a(x)], 1))
        return self.head(torch.relu(self.flat(torch.flatten(h, 1))))


@pytest.mark.parametrize("rule", EXACT)
def test_batchnorm_over_flattened_or_joined_channels(rule):
    torch.manual_seed(0)
    net, x = settle(Joined()), torch.randn(3, 2, 8).double()
    before = outputs(net, x)
    split_neuron(net, "a", neurons=[0, 3], rule=rule, rng=rng(), example_inputs=x, unscaled=True)
    assert (outputs(net, x) - before).abs().max() <= 1e-12 * before.abs().max()
    assert net.joined.num_features == 9 and net.flat.weight.shape == (54,)


@pytest.mark.parametrize("norm", [lambda n: nn.GroupNorm(n, n), lambda n: nn.InstanceNorm2d(n, affine=True)])
@pytest.mark.parametrize("rule", EXACT)
def test_norms_of_one_channel_each(norm, rule):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), norm(4), nn.ReLU(), nn.Conv2d(4, 3, 3)).double()
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 2), net[1].bias.normal_()
    x = torch.randn(3, 2, 8, 8).double()
    before = outputs(net, x)
    split_neuron(net, "0", neurons=[1, 1], rule=rule, rng=rng(), example_inputs=x)
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-11, atol=1e-12)


def test_an_image_without_a_batch_axis():
    net, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)).double(), torch.randn(2, 8, 8).double()
    before = outputs(net, x)
    split_neuron(net, "0", 1, rng=rng(), example_inputs=x)
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-12, atol=1e-14)


def test_a_doubled_layer_is_one_split_of_every_neuron():
    net, x = mlp(6, 5, 4, 3), torch.randn(9, 6).double()
    before = outputs(net, x)
    split_neuron(net, "0", neurons=list(range(5)), rng=rng(), example_inputs=x)
    assert net[0].weight.shape == (10, 6)
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-12, atol=1e-14)


class Twice(Branching):
    """The same layer makes the channels in two places: both are split."""

    def forward(self, x):
        return self.b(torch.relu(self.a(x)) + torch.relu(self.a(-x)))


def test_a_layer_called_twice_is_split_in_both_places():
    net, x = Twice().double(), torch.randn(6, 5).double()
    before = outputs(net, x)
    split_neuron(net, "a", neurons=[1, 4], rng=rng(), example_inputs=x)
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-12, atol=1e-14)


def test_a_split_in_inference_mode_leaves_a_network_that_trains():
    net = plain()
    with torch.inference_mode():
        split_neuron(net, "0", 1, example_inputs=FLAT)
    net(FLAT).sum().backward()
    assert net[0].weight.grad.shape == (5, 5)


def test_a_network_that_works_in_place_leaves_the_example_inputs_alone():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(6, 5)
    kept = x.clone()
    split_neuron(net, "1", 1, example_inputs=x)
    assert torch.equal(x, kept)


def test_channels_last_stays():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).to(memory_format=torch.channels_last)
    split_neuron(net, "0", 1, example_inputs=torch.randn(2, 3, 8, 8))
    assert all(net[i].weight.is_contiguous(memory_format=torch.channels_last) for i in (0, 2))


class Several(Branching):
    def forward(self, x):
        h = torch.relu(self.a(x))
        out = self.b(h)
        return {"logits": (out,), "answer": out.argmax(1)}


def test_nested_outputs_and_indices_of_numpy():
    net, x = Several().double(), torch.randn(6, 5).double()
    record = split_neuron(net, "a", np.argmax([1, 3, 2]), example_inputs=x)
    assert json.loads(json.dumps(record))[0] == {"a": [1]} and record.change < 1e-12


class Doubled(nn.Module):
    """The same channels joined to themselves, and to others that are found only later."""

    def __init__(self):
        super().__init__()
        self.a, self.c, self.b, self.d = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(13, 2), nn.Linear(4, 2)

    def forward(self, x):
        h, g = torch.relu(self.a(x)), torch.relu(self.c(x))
        return self.b(torch.cat([h, x, g], 1)) + self.d(h + g) + self.b(torch.cat([h, x, h], 1))


def test_channels_joined_twice():
    net, x = Doubled().double(), torch.randn(6, 5).double()
    before = outputs(net, x)
    split_neuron(net, "a", neurons=[1, 3], rng=rng(), example_inputs=x)
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-12, atol=1e-14)
    assert net.b.in_features == 17 and net.c.out_features == 6


def test_a_branch_for_training_alone_is_split_with_the_rest():
    class Aux(Branching):
        def __init__(self):
            super().__init__()
            self.aux = nn.Linear(5, 2)

        def forward(self, x):
            h = torch.relu(self.a(x))
            return self.b(h) + self.aux(h) if self.training else self.b(h)

    net, x = Aux().double().eval(), torch.randn(6, 5).double()
    before = outputs(net.train(), x)
    split_neuron(net.eval(), "a", 1, rng=rng(), example_inputs=x)
    torch.testing.assert_close(outputs(net.train(), x), before, rtol=1e-12, atol=1e-14)
