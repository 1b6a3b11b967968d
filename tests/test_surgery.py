import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.data.download import import_torchvision_datasets
from neuronsplit.surgery.split_neuron import replay, split_neuron

ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Tanh, nn.GELU, nn.SiLU, nn.Hardswish]
HOMOGENEOUS = ACTIVATIONS[:3]
EXACT = [name for name, rule in SPLIT_RULES.items() if rule.exact]


def rng(seed=0):
    return np.random.default_rng(seed)


def settle(net, seed=0):
    """Statistics and affine parameters of BatchNorms as after some training, all in float64."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.copy_(torch.rand(tensor.shape, generator=g) + 0.5)
    return net.double().eval()


def outputs(net, x):
    with torch.no_grad():
        return net(x)


def mlp(*sizes, activation=nn.ReLU):
    layers = [part for n_in, n_out in zip(sizes, sizes[1:]) for part in (nn.Linear(n_in, n_out), activation())]
    return nn.Sequential(*layers[:-1]).double()


def cnn(activation, channels, flat):
    """Two convolutions with BatchNorm, then either flattened positions or averaged ones, and two Linears."""
    first, second, hidden = channels
    return nn.Sequential(
        nn.Conv2d(2, first, 3, padding=1), nn.BatchNorm2d(first), activation(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3), activation(), nn.Identity() if flat else nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(second * (4 if flat else 1), hidden), nn.BatchNorm1d(hidden), activation(),
        nn.Dropout(0.5), nn.Linear(hidden, 3),
    )  # fmt: skip


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
MODELS = [
    *[("resnet18", layer, "scaled") for layer in RESNET],
    *[("vgg11_bn", layer, "scaled-outgoing") for layer in ("features.0", "features.25", "classifier.0")],
    *[
        ("mobilenet_v3_small", layer, "outgoing")
        for layer in ("features.0.0", "features.1.block.0.0", "features.1.block.1.fc1", "features.4.block.1.0",
                      "features.8.block.3.0", "features.12.0", "classifier.0")
    ],
    ("vit_b_16", "encoder.layers.encoder_layer_3.mlp.0", "outgoing"),
]  # fmt: skip


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


class Residual(nn.Module):
    """Several layers make the same channels; a concatenation and a mean follow."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.side, self.head = nn.BatchNorm2d(4), nn.Conv2d(2, 3, 1), nn.Linear(7, 5)

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = torch.relu(h + self.norm(self.a(h)))
        h = torch.cat([self.side(x), h + self.b(h)], dim=1)
        return self.head(h.mean([2, 3]))


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


def test_a_record_of_an_unknown_rule_is_refused():
    net, x = mlp(6, 5, 3), torch.randn(9, 6).double()
    record = split_neuron(copy.deepcopy(net), "0", 1, example_inputs=x)
    with pytest.raises(ValueError, match="^rule 'opposed': allowed are scaled, even, outgoing"):
        replay([record._replace(rule="opposed")], net)
    assert net[0].out_features == 5


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


# Gradients and optimisers, against the network that was not split

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "rmsprop-centered": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
}


def train(net, optimizer, steps, seed=0):
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x, y = torch.randn(20, 6, generator=g).double(), torch.randint(3, (20,), generator=g)
        optimizer.zero_grad()
        loss = cross_entropy(net(x), y)  # kept alive while the next step runs, as in many a loop
        loss.backward()
        optimizer.step()
    return loss


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_step_is_the_one_predicted_from_the_network_that_was_not_split(name):
    """Twins of a `scaled` split have γ, δ (incoming) or α, β (outgoing) times the parent's gradients, so their state
    after the next step is that of the unsplit network's times the same, squared where it is of squares."""
    torch.manual_seed(0)
    net, x = mlp(6, 5, 3), torch.randn(4, 6).double()
    optimizer = OPTIMIZERS[name](net.parameters())
    train(net, optimizer, 5)
    whole = copy.deepcopy((net, optimizer))
    record = split_neuron(net, "0", 2, rng=rng(), example_inputs=x, optimizer=optimizer)
    train(net, optimizer, 1, seed=1)
    unsplit, its_optimizer = whole
    train(unsplit, its_optimizer, 1, seed=1)
    ((alpha, beta, gamma, delta),) = record.coefficients
    incoming = torch.tensor([1, 1, gamma, 1, 1, delta], dtype=torch.float64)
    outgoing = torch.tensor([1, 1, alpha, 1, 1, beta], dtype=torch.float64)
    of = [0, 1, 2, 3, 4, 2]
    for parameter, old, factor in (
        (net[0].weight, unsplit[0].weight, incoming[:, None]),
        (net[0].bias, unsplit[0].bias, incoming),
        (net[2].weight, unsplit[2].weight, outgoing),
    ):

        def pick(tensor, axis=1 if parameter is net[2].weight else 0):
            return tensor.index_select(axis, torch.tensor(of))

        torch.testing.assert_close(parameter.grad, pick(old.grad) * factor, rtol=1e-9, atol=1e-15)
        found, expected = optimizer.state[parameter], its_optimizer.state[old]
        assert set(found) == set(expected)
        for key, value in expected.items():
            if not (isinstance(value, torch.Tensor) and value.shape == old.shape):
                assert found[key] == value  # step counts
                continue
            free = key == "acc_delta" or (key == "momentum_buffer" and "rmsprop" in name)
            power = 0 if free else 2 if key in ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum") else 1
            # an ε that the optimiser adds to a gradient is not scaled with it
            rtol, atol = (1e-3, 1e-5) if free else (1e-6, 1e-12) if key == "exp_inf" else (1e-9, 1e-15)
            torch.testing.assert_close(found[key], pick(value) * factor**power, rtol=rtol, atol=atol)


@pytest.mark.parametrize("rule", ["scaled", "even"])
@pytest.mark.parametrize("layer", ["0", "4", "8", "stem", "a", "b", "layer1.0.conv1", "layer2.1.conv2"])
def test_carried_gradients_are_those_that_the_split_network_has(layer, rule):
    """Through BatchNorm in training mode, flatten, residual sums: the split makes of .grad what autograd would."""
    torch.manual_seed(2)
    if "layer" in layer:
        import_torchvision_datasets()
        import torchvision.models

        net, x = torchvision.models.resnet18(weights=None), torch.randn(4, 3, 32, 32)
    else:
        net, x = cnn(nn.ReLU, (4, 3, 5), flat=True) if layer.isdigit() else Residual(), torch.randn(6, 2, 8, 8)
    net, x = settle(net).train(), x.double()
    for name, module in net.named_modules():
        if isinstance(module, nn.Dropout):
            setattr(net, name, nn.Identity())

    def loss():
        return net(x).square().sum()

    loss().backward()
    split_neuron(net, layer, neurons=[1, 1], rule=rule, rng=rng(), example_inputs=x)
    carried = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    loss().backward()
    for name, parameter in net.named_parameters():
        scale = parameter.grad.abs().max()
        if carried[name].abs().max() > 1e-9 * scale or scale > 1e-9:
            torch.testing.assert_close(carried[name], parameter.grad, rtol=1e-8, atol=1e-9 * max(scale, 1), msg=name)


def test_carried_state_makes_the_step_of_a_twin_that_of_its_parent():
    """Adam's step does not depend on the gradient's scale; without carried state the first would be of full size."""
    torch.manual_seed(0)
    net = mlp(6, 5, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    train(net, optimizer, 200)
    split_neuron(net, "0", 2, rng=rng(), example_inputs=torch.randn(4, 6).double(), optimizer=optimizer)
    before = net[0].weight.detach().clone()
    train(net, optimizer, 1, seed=1)
    step = (net[0].weight.detach() - before)[[2, 5]]
    torch.testing.assert_close(step[0], step[1], rtol=1e-3, atol=1e-6)
    assert step.abs().max() < 0.01


def test_groups_order_and_schedulers_go_on():
    net = mlp(6, 5, 4, 3)
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": [*net[2].parameters(), *net[4].parameters()]}]
    optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    loss = train(net, optimizer, 2)
    split_neuron(net, "2", neurons=[1, 1], example_inputs=torch.randn(4, 6).double(), optimizer=optimizer)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(p is q for p, q in zip(held, net.parameters())) and len(held) == 6
    before = [p.detach().clone() for p in net.parameters()]
    train(net, optimizer, 1)
    scheduler.step()
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before))
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1]
    assert set(optimizer.state) == set(net.parameters()) and loss is not None


def test_frozen_parameters_stay_frozen_and_gradients_are_split_with_the_rest():
    net, x = mlp(6, 5, 3), torch.randn(4, 6).double()
    net[0].weight.requires_grad_(False)
    net(x).sum().backward()
    grad = net[2].weight.grad.clone()
    record = split_neuron(net, "0", 1, rng=rng(), example_inputs=x)
    assert not net[0].weight.requires_grad and net[0].bias.requires_grad and net[0].weight.grad is None
    torch.testing.assert_close(net[2].weight.grad[:, 5], record.coefficients[0][1] * grad[:, 1])


# Files


def test_a_state_dict_loads_into_a_network_built_at_the_new_size():
    net, x = settle(cnn(nn.ReLU, (4, 3, 5), flat=True)), torch.randn(3, 2, 8, 8).double()
    for layer in ("0", "4", "8"):
        split_neuron(net, layer, 0, example_inputs=x)
    built = cnn(nn.ReLU, (5, 4, 6), flat=True).double().eval()
    built.load_state_dict(net.state_dict())
    assert torch.equal(outputs(built, x), outputs(net, x))
    assert str(built) == str(net)


def test_a_history_is_replayed_on_a_fresh_copy():
    torch.manual_seed(0)
    net, x = settle(Residual()), torch.randn(3, 2, 6, 6).double()
    fresh = copy.deepcopy(net)
    splits = [("stem", [0, 0], "scaled-outgoing"), ("side", [2], "outgoing"), ("a", [5, 1], "scaled")]
    history = [
        split_neuron(net, layer, neurons=n, rule=rule, rng=rng(3), example_inputs=x) for layer, n, rule in splits
    ]
    replay(json.loads(json.dumps(history)), fresh)
    for (name, expected), found in zip(net.state_dict().items(), fresh.state_dict().values()):
        torch.testing.assert_close(found, expected, rtol=1e-15, atol=0, msg=name)


# What cannot be done is refused, and nothing has changed


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.b(self.a(x)) if x.sum() > 0 else self.b(x)


class Unused(Branching):
    def forward(self, x):
        return self.b(x)


class Softmax(Branching):
    def forward(self, x):
        return self.b(torch.softmax(self.a(x), dim=1))


class Transposed(Branching):
    def forward(self, x):
        return self.b(self.a(x).t()[:, :5])


class Reused(Branching):
    """b consumes the channels, and something else too."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(5, 5)

    def forward(self, x):
        return self.b(torch.relu(self.a(x))) + self.b(torch.tanh(self.c(x)))


class Borrowed(Branching):
    def forward(self, x):
        return self.b(torch.relu(self.a(x))) + (x @ self.b.weight.t())


class Optional(Branching):
    """What runs when an argument is left out is what counts."""

    def forward(self, x, clip=None):
        h = torch.relu(self.a(x))
        if clip is None:
            h = h.clamp(max=6)
        return self.b(h)


class TwoFaced(Branching):
    def forward(self, x):
        h = self.a(x)
        return self.b(torch.relu(h) if self.training else nn.functional.relu6(h))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.i, self.h, self.o = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.o(torch.relu(self.h(torch.relu(self.h(torch.relu(self.i(x)))))))


def buffered():
    net = plain()
    net[0].register_buffer("importance", torch.zeros(3))
    return net


class Chunked(Branching):
    def forward(self, x):
        left, right = torch.relu(self.a(x)).chunk(2, dim=1)
        return self.b(torch.cat([left, right], 1))


class Strongest(Branching):
    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h) + h.max(1, keepdim=True)[0]


class Squared(Branching):
    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h * h)


class Offset(Branching):
    def forward(self, x):
        return self.b(torch.relu(self.a(x) + x.mean(1, keepdim=True)))


class Constant(Branching):
    def forward(self, x):
        return self.b(torch.relu(torch.add(self.a(x), other=1.0)))


class Auxiliary(Branching):
    """A branch for training alone, which takes no Linear."""

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h) + (h.mean(1, keepdim=True) if self.training else 0)


class Unconsumed(Branching):
    def forward(self, x):
        return self.b(x) + self.a(x).size(0)


class Averaged(Branching):
    def forward(self, x):
        return self.b(self.a(x).mean(1, keepdim=True).expand(-1, 5))


class Written(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(5, 4, 1), nn.Linear(28, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)).view(-1, 28))


class Mixed(Written):
    def forward(self, x):
        return self.b(torch.relu(self.a(x)).flatten(0, 1).view(-1, 28))


class Shifted(Branching):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(5))

    def forward(self, x):
        return self.b(torch.relu(self.a(x) + self.shift))


class Twice(Branching):
    """The same layer makes the channels in two places: both are split."""

    def forward(self, x):
        return self.b(torch.relu(self.a(x)) + torch.relu(self.a(-x)))


def test_a_layer_called_twice_is_split_in_both_places():
    net, x = Twice().double(), torch.randn(6, 5).double()
    before = outputs(net, x)
    split_neuron(net, "a", neurons=[1, 4], rng=rng(), example_inputs=x)
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-12, atol=1e-14)


def grouped():
    return nn.Sequential(nn.Conv1d(5, 4, 1), nn.ReLU(), nn.Conv1d(4, 2, 1, groups=2))


def normed(layer):
    return nn.Sequential(nn.Linear(5, 4), layer, nn.ReLU(), nn.Linear(4, 2))


def late_norm():
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2))


def weight_normed():
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.utils.parametrizations.weight_norm(net[0])
    return net


def plain():
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


FLAT, IMAGE = torch.ones(3, 5), torch.ones(3, 5, 7)
REFUSALS = [
    (plain, "1", FLAT, {}, "layer '1': allowed are Linear and Conv layers, here 0, 2"),
    (plain, "7", FLAT, {}, "layer '7': allowed are Linear and Conv layers, here 0, 2"),
    (plain, "0", FLAT, {"neuron": 4}, "neuron 4: allowed are 0 to 3 in '0'"),
    (plain, "0", FLAT, {"neurons": [0, -1]}, "neuron -1: allowed are 0 to 3 in '0'"),
    (plain, "0", FLAT, {"rule": "halved"}, "rule 'halved': allowed are scaled, even, outgoing"),
    (plain, "2", FLAT, {}, "the channels reach the network's output: allowed are layers that another"),
    (lambda: normed(nn.GELU()), "0", FLAT, {},
     "rule 'scaled' is not exact through GELU '1': allowed are even, outgoing, antisymmetric, or unscaled=True$"),
    (late_norm, "0", FLAT, {}, "rule 'scaled' is not exact through BatchNorm1d '2'"),
    (lambda: normed(nn.LayerNorm(4)), "0", FLAT, {"rule": "even"}, "LayerNorm '1' normalises over the channels"),
    (lambda: normed(nn.GroupNorm(2, 4)), "0", FLAT, {"rule": "even"}, "GroupNorm '1' normalises over the channels"),
    (lambda: normed(nn.Softmax(1)), "0", FLAT, {"rule": "even"}, "Softmax '1' is not known to keep channels apart"),
    (Softmax, "a", FLAT, {"rule": "even"}, "softmax is not known to keep channels apart"),
    (Transposed, "a", torch.ones(5, 5), {"rule": "even"}, "t is not known to keep channels apart"),
    (grouped, "0", IMAGE, {}, "Conv1d '2' is a grouped convolution: allowed are ungrouped and depthwise ones"),
    (Tied, "a", FLAT, {}, "'[ab]' shares a parameter with '[ab]': allowed are layers with parameters of their own"),
    (Branching, "a", FLAT, {}, r"torch.fx cannot trace Branching \(.*\): allowed is a part that it can"),
    (Unused, "a", FLAT, {}, "layer 'a' is never called: allowed are layers that the example inputs pass through"),
    (Reused, "a", FLAT, {}, "Linear 'b' is also called without the channels: allowed is one use"),
    (Borrowed, "a", FLAT, {}, "'b.weight' is also used outside its module: allowed is one use"),
    (Shifted, "a", FLAT, {}, "shift is joined to the channels but cannot"),
    (Chunked, "a", FLAT, {"rule": "even"}, "chunk is not known to keep channels apart: it returns several tensors"),
    (Strongest, "a", FLAT, {"rule": "even"}, "max is not known to keep channels apart: it returns several tensors"),
    (Squared, "a", FLAT, {}, "rule 'scaled' is not exact through mul"),
    (Offset, "a", FLAT, {}, "rule 'scaled' is not exact through add"),
    (Constant, "a", FLAT, {}, "rule 'scaled' is not exact through add"),
    (Auxiliary, "a", FLAT, {}, "mean averages over the channels: allowed are means over other axes"),
    (lambda: Auxiliary().eval(), "a", FLAT, {}, "mean averages over the channels"),
    (Averaged, "a", FLAT, {}, "mean averages over the channels"),
    (Unconsumed, "a", FLAT, {}, "the channels of 'a' reach no Linear or Conv: allowed are layers that one follows"),
    (Written, "a", IMAGE, {}, "view has the size 28 written in: allowed is -1, or flatten"),
    (Mixed, "a", IMAGE, {}, "flatten mixes the channels with another axis: allowed is a flatten that begins at them"),
    (lambda: nn.Sequential(nn.Linear(5, 4), nn.AvgPool1d(2), nn.Linear(2, 2)), "0", IMAGE[:, :, :5], {},
     "AvgPool1d '1' works along the channels"),
    (lambda: nn.Sequential(nn.Conv1d(5, 5, 1), nn.ReLU(), nn.Linear(7, 2)), "0", IMAGE, {},
     "Linear '2' does not take the channels as its inputs"),
    (lambda: nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(5), nn.Linear(4, 2)), "0", IMAGE, {},
     "BatchNorm1d '1' normalises another axis than that of the channels"),
    (lambda: nn.Sequential(nn.Conv1d(5, 4, 1, groups=1), nn.ReLU(), nn.Conv1d(4, 6, 1, groups=2)), "0", IMAGE, {},
     "Conv1d '2' is a grouped convolution"),
    (lambda: nn.Sequential(nn.Conv1d(5, 10, 1, groups=5), nn.ReLU(), nn.Conv1d(10, 6, 1)), "0", IMAGE, {},
     "Conv1d '0' makes the channels but is grouped"),
    (Optional, "a", FLAT, {}, "rule 'scaled' is not exact through clamp"),
    (TwoFaced, "a", FLAT, {}, "rule 'scaled' is not exact through relu6"),
    (Recurrent, "h", FLAT, {}, "Linear 'h' is also called without the channels: allowed is one use"),
    (buffered, "0", FLAT, {}, "0.'importance' has 3 entries: allowed is one per channel"),
    (lambda: nn.Sequential(nn.Linear(5, 4, bias=False), nn.AvgPool1d(3, 1, 1), nn.Linear(4, 2)), "0",
     0 * IMAGE[:, :, :5], {}, "AvgPool1d '1' works along the channels"),
    (lambda: nn.Sequential(nn.Linear(5, 4), nn.Conv1d(5, 5, 3, padding=1, groups=5), nn.Linear(4, 2)), "0",
     torch.ones(3, 5, 5), {}, "Conv1d '1' does not take the channels as its inputs"),
    (plain, "0", FLAT[:0], {}, "the network gives no numbers for the example inputs"),
    (plain, "0", FLAT, {"rng": 0}, "rng 0: allowed are numpy.random.default_rng"),
    (plain, "0", FLAT, {"optimizer": [1]}, r"optimizer \[1\]: allowed is one torch.optim.Optimizer"),
    (plain, "0", FLAT, {"neuron": 1.5}, "neuron 1.5: allowed are a whole number, or neurons="),
    (plain, "0", torch.ones(3, 6), {}, r"the network does not run on the example inputs \("),
    (plain, "0", FLAT, {"neuron": None}, "neuron or neurons: allowed is exactly one of them"),
    (weight_normed, "0", FLAT, {}, "'0' is parametrised"),
    (lambda: torch.compile(plain()), "0", FLAT, {}, "OptimizedModule: allowed is the network that it wraps"),
    (lambda: nn.DataParallel(plain()), "0", FLAT, {}, "DataParallel: allowed is the network that it wraps"),
]  # fmt: skip


@pytest.mark.parametrize("make, layer, x, options, message", REFUSALS, ids=[case[4][:40] for case in REFUSALS])
def test_what_cannot_be_exact_is_refused_and_nothing_changes(make, layer, x, options, message):
    net = make()
    optimizer = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    held = [id(p) for p in net.parameters()]
    with pytest.raises(ValueError, match=f"^{message}"):
        chosen = {} if "neurons" in options else {"neuron": 1}
        split_neuron(net, layer, **chosen | {"example_inputs": x, "optimizer": optimizer} | options)
    for found, expected in zip((net.state_dict(), optimizer.state_dict()["state"]), (before[0], before[1]["state"])):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert [id(p) for p in net.parameters()] == held
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == held


def test_an_optimiser_whose_state_has_another_shape_is_refused():
    net, x = plain(), torch.randn(8, 5)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = net(x).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(ValueError, match="^LBFGS keeps a list of parameters of its own: allowed are"):
        split_neuron(net, "0", 1, example_inputs=x, optimizer=optimizer)
    assert net[0].weight.shape == (4, 5)


def test_an_optimiser_of_another_network_is_refused():
    with pytest.raises(ValueError, match="^SGD holds none of the network's parameters: allowed is the optimiser"):
        split_neuron(plain(), "0", 1, example_inputs=FLAT, optimizer=torch.optim.SGD(plain().parameters(), lr=1.0))


def test_an_optimiser_that_missed_an_earlier_split_is_refused():
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    split_neuron(net, "0", 1, example_inputs=FLAT)
    with pytest.raises(ValueError, match="^SGD does not hold '.*', but others: was an earlier split made without"):
        split_neuron(net, "0", 1, example_inputs=FLAT, optimizer=optimizer)


def test_a_split_in_inference_mode_leaves_a_network_that_trains():
    net = plain()
    with torch.inference_mode():
        split_neuron(net, "0", 1, example_inputs=FLAT)
    net(FLAT).sum().backward()
    assert net[0].weight.grad.shape == (5, 5)


def test_state_of_an_unknown_name_is_refused_until_its_exponent_is_given():
    net = plain()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    optimizer.state[net[0].weight]["v"] = torch.ones(4, 5)
    with pytest.raises(ValueError, match="^SGD keeps 'v', unknown here: say how it goes with state_exponents="):
        split_neuron(net, "0", 1, example_inputs=FLAT, optimizer=optimizer)
    record = split_neuron(net, "0", 1, example_inputs=FLAT, optimizer=optimizer, state_exponents={"v": 2})
    _, _, gamma, delta = record.coefficients[0]
    found = optimizer.state[net[0].weight]["v"][:, 0].tolist()
    assert found == pytest.approx([1, gamma**2, 1, 1, delta**2])


def test_parameters_with_hooks_are_refused():
    net = plain()
    net[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    with pytest.raises(ValueError, match="^'0.weight' has hooks of its own"):
        split_neuron(net, "0", 1, example_inputs=FLAT)


@pytest.mark.parametrize("rule", ["outgoing", "scaled-outgoing"])
def test_where_shares_differ_by_output_the_state_takes_their_mean(rule):
    torch.manual_seed(0)
    net, x = mlp(6, 5, 3), torch.randn(4, 6).double()
    optimizer = torch.optim.Adam(net.parameters())
    train(net, optimizer, 3)
    before = {key: value.clone() for key, value in optimizer.state[net[0].weight].items()}
    ((_, _, gamma, delta),) = split_neuron(net, "0", 2, rule=rule, rng=rng(), example_inputs=x, optimizer=optimizer)[3]
    after = optimizer.state[net[0].weight]
    for key, exponent in (("exp_avg", 1), ("exp_avg_sq", 2)):
        torch.testing.assert_close(after[key][2], before[key][2] * np.mean(gamma) ** exponent)
        torch.testing.assert_close(after[key][5], before[key][2] * np.mean(delta) ** exponent)


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
    assert json.loads(json.dumps(record))[0] == {'a': [1]} and record.change < 1e-12


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


class Square(nn.Module):
    """f(αx) = α² f(x): not what a caller may call homogeneous."""

    def forward(self, x):
        return torch.relu(x) * x


def test_a_wrong_declaration_of_homogeneity_is_found_out_and_undone():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 4), Square(), nn.Linear(4, 2)).double(), torch.randn(100, 5).double()
    weight = net[0].weight
    with pytest.raises(ValueError, match="^the split of '0' would change the output by .*: allowed is rounding$"):
        split_neuron(net, "0", 1, example_inputs=x, homogeneous=(Square,))
    assert net[0].weight is weight and net[0].out_features == 4


class Maxout(nn.Module):
    def forward(self, x):
        return torch.maximum(x, 0.3 * x)


def test_a_homogeneous_module_of_ones_own_can_be_declared():
    net, x = nn.Sequential(nn.Linear(5, 4), Maxout(), nn.Linear(4, 2)).double(), torch.randn(6, 5).double()
    before = outputs(net, x)
    record = split_neuron(net, "0", 1, example_inputs=x, homogeneous=(Maxout,))
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-12, atol=1e-14)
    assert record.coefficients[0][0] != 1
