"""Gradients and the state of optimisers, against the network that was not split."""

import copy

import numpy as np
import pytest
import torch
from networks import FLAT, Residual, cnn, mlp, plain, rng, settle, train
from sampling import one_in
from torch import nn

from neuronsplit.data.download import import_torchvision_datasets
from neuronsplit.surgery.split_neuron import split_neuron

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
@pytest.mark.parametrize("layer", one_in(3, ["0", "4", "8", "stem", "a", "b", "layer1.0.conv1", "layer2.1.conv2"]))
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


def test_an_optimiser_whose_state_has_another_shape_is_refused():
    net, x = plain(), torch.randn(8, 5)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = net(x).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(ValueError, match="^LBFGS keeps one flat vector of all parameters: allowed is a new"):
        split_neuron(net, "0", 1, example_inputs=x, optimizer=optimizer)
    assert net[0].weight.shape == (4, 5)


def test_an_optimiser_of_another_network_is_refused():
    with pytest.raises(ValueError, match="^SGD holds none of the network's parameters: allowed is the optimiser"):
        split_neuron(plain(), "0", 1, example_inputs=FLAT, optimizer=torch.optim.SGD(plain().parameters(), lr=1.0))


def test_an_optimiser_that_missed_an_earlier_split_is_refused():
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    split_neuron(net, "0", 1, example_inputs=FLAT)
    with pytest.raises(ValueError, match="^SGD does not hold '.*', but others, as after a split without opt"):
        split_neuron(net, "0", 1, example_inputs=FLAT, optimizer=optimizer)


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


@pytest.mark.parametrize("name", ["adam", "momentum", "adagrad", "rmsprop"])
def test_reset_gives_the_second_twin_alone_a_state_of_zeros(name):
    torch.manual_seed(0)
    net, x = mlp(6, 5, 3), torch.randn(4, 6).double()
    optimizer = OPTIMIZERS[name](net.parameters())
    train(net, optimizer, 3)
    carried, carried_optimizer = copy.deepcopy((net, optimizer))
    split_neuron(carried, "0", 2, rng=rng(), example_inputs=x, optimizer=carried_optimizer)
    split_neuron(net, "0", 2, rng=rng(), example_inputs=x, optimizer=optimizer, state="reset")
    for (n, found), expected in zip(net.named_parameters(), carried.parameters()):
        axis = 1 if n == "2.weight" else 0
        for key, value in optimizer.state[found].items():
            other = carried_optimizer.state[expected][key]
            if isinstance(value, torch.Tensor) and value.dim() == found.dim() and n != "2.bias":
                first, second = value.split([5, 1], axis)
                assert not second.any() and other.narrow(axis, 5, 1).any()
                torch.testing.assert_close(first, other.narrow(axis, 0, 5), rtol=0, atol=0)
            else:
                torch.testing.assert_close(value, other, rtol=0, atol=0)
    train(net, optimizer, 2)


def test_gradients_are_carried_if_they_are_there_and_none_if_not():
    net, x = mlp(6, 5, 3), torch.randn(4, 6).double()
    split_neuron(net, "0", 1, example_inputs=x)
    assert all(p.grad is None for p in net.parameters())


def test_a_gradient_scaler_and_a_scheduler_of_the_optimiser_go_on():
    net, x = mlp(6, 5, 3).float(), torch.randn(20, 6)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    scaler = torch.amp.GradScaler("cpu")
    for step in range(6):
        optimizer.zero_grad()
        scaler.scale(net(x).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        if step % 2:
            split_neuron(net, "0", step, example_inputs=x, optimizer=optimizer, rng=rng())
    assert net[0].out_features == 8 and set(optimizer.state) == set(net.parameters())
