"""What cannot be split exactly is refused by one line that says what is allowed, and nothing has changed."""

import copy

import pytest
import torch
from networks import FLAT, IMAGE, Branching, Custom, plain
from torch import nn

from neuronsplit.surgery.split_neuron import split_neuron
from neuronsplit.surgery.splittable import splittable


class Tied(nn.Module):
    """A matrix reads the inputs, and then the channels that it has made."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class Unused(Branching):
    def forward(self, x):
        return self.b(x)


class Softmax(Branching):
    def forward(self, x):
        return self.b(torch.softmax(self.a(x), dim=1))


class Transposed(Branching):
    def forward(self, x):
        return self.b(self.a(x).t()[:, :5])


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


class Averaged(Branching):
    def forward(self, x):
        return self.b(self.a(x).std(1, keepdim=True).expand(-1, 5))


class Unreached(Branching):
    """What reads a channel is read from a computation that no rule follows."""

    def forward(self, x):
        h = self.a(x)
        return self.b(h) + torch.linalg.svdvals(h).sum()


class Written(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(5, 4, 1), nn.Linear(28, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)).view(-1, 28))


class Mixed(Written):
    def forward(self, x):
        return self.b(torch.relu(self.a(x)).flatten(0, 1).view(-1, 28))


def normed(layer):
    return nn.Sequential(nn.Linear(5, 4), layer, nn.ReLU(), nn.Linear(4, 2))


def grouped():
    return nn.Sequential(nn.Conv1d(5, 4, 1), nn.ReLU(), nn.Conv1d(4, 2, 1, groups=2), nn.ReLU(), nn.Conv1d(2, 3, 1))


def spectral_normed():
    net = plain()
    nn.utils.parametrizations.spectral_norm(net[0])
    return net


def flagged(out):
    """A network whose output is of another kind."""
    return Custom(lambda net, x: out(net.b(torch.relu(net.a(x)))), a=nn.Linear(5, 4), b=nn.Linear(4, 2))


ALONE, EVEN = {"rule": "even"}, {"rule": "even", "together": True}
NO_NUMBERS = "the network gives no numbers for the example inputs"
UNSCALED = "allowed are outgoing, antisymmetric, even, or unscaled=True$"
REFUSALS = {
    "no weight": (plain, "1", FLAT, {}, "layer '1': allowed are .*0.*2"),
    "no such layer": (plain, "7", FLAT, {}, "layer '7': allowed are .*0.*2"),
    "no such neuron": (plain, "0", FLAT, {"neuron": 4}, "neuron 4.*: allowed are .*0 to 3"),
    "a negative neuron": (plain, "0", FLAT, {"neurons": [0, -1]}, "neuron -1.*: allowed are .*0 to 3"),
    "a fraction": (plain, "0", FLAT, {"neuron": 1.5}, r"neuron 1.5: allowed are a whole number, or neurons=\[...\]$"),
    "zero as a fraction": (plain, "0", FLAT, {"neuron": 0.0}, "neuron 0.0: allowed are a whole number, or neurons="),
    "neither": (plain, "0", FLAT, {"neuron": None}, "neuron or neurons: allowed is exactly one of them$"),
    "both": (plain, "0", FLAT, {"neuron": 0, "neurons": [0]}, "neuron or neurons: allowed is exactly one of them$"),
    "no neurons": (plain, "0", FLAT, {"neurons": []}, r"neurons \[\]: allowed are one or more$"),
    "rule": (plain, "0", FLAT, {"rule": "halved"}, "rule 'halved': allowed are scaled, even, outgoing"),
    "state": (plain, "0", FLAT, {"state": "drop"}, "state 'drop': allowed are carry, reset$"),
    "rng": (plain, "0", FLAT, {"rng": 0}, "rng 0: allowed are numpy.random.default_rng"),
    "optimizer": (plain, "0", FLAT, {"optimizer": [1]}, "optimizer of type int: allowed are torch.optim.Optimizer, or"),
    "does not run": (plain, "0", torch.ones(3, 6), {}, r"the network does not run on the example inputs \(.*Error"),
    "no examples": (plain, "0", FLAT[:0], {}, NO_NUMBERS),
    "no numbers": (lambda: flagged(lambda y: y.argmax(1)), "a", FLAT, {}, NO_NUMBERS),
    "no tensor": (lambda: flagged(lambda y: None), "a", FLAT, {}, NO_NUMBERS),
    "the last layer": (plain, "2", FLAT, {}, ".*'2'.* in the network's output.*allowed are"),
    "not called": (Unused, "a", FLAT, {}, ".*'a'.*: allowed are .*'?b"),
    "gelu": (lambda: normed(nn.GELU()), "0", FLAT, {}, f"rule 'scaled' is not exact through gelu in '?1'?: {UNSCALED}"),
    "clamp": (Optional, "a", FLAT, {}, f"rule 'scaled' is not exact through clamp: {UNSCALED}"),
    "relu6": (TwoFaced, "a", FLAT, {}, f"rule 'scaled' is not exact through hardtanh: {UNSCALED}"),
    "a square": (Squared, "a", FLAT, {}, f"rule 'scaled' is not exact through mul: {UNSCALED}"),
    "an offset": (Offset, "a", FLAT, {}, f"rule 'scaled' is not exact through add: {UNSCALED}"),
    "a constant": (Constant, "a", FLAT, {}, f"rule 'scaled' is not exact through add: {UNSCALED}"),
    "layer norm": (lambda: normed(nn.Sequential(nn.LayerNorm(4), nn.Sigmoid())), "0", FLAT, ALONE,
                   r".*'0' has no exact split alone .layer_norm in '1.0'; it would change .* 4 "),
    "rms norm": (lambda: normed(nn.Sequential(nn.RMSNorm(4), nn.Sigmoid())), "0", FLAT, ALONE,
                 r".*'0' has no exact split alone \(mean in '1.0'; sigmoid in '1.1' and .*\).* together=True, .* 4 "),
    "group norm": (lambda: normed(nn.GroupNorm(2, 4)), "0", FLAT, ALONE,
                   r".*'0' has no exact split alone .*.*group_norm in '?1'?.* 2 "),
    "a group": (grouped, "0", IMAGE, ALONE,
                r".*'0' has no exact split alone \(convolution in '?2'?\): allowed is together=True, which splits"),
    "a standard deviation": (Averaged, "a", FLAT, {}, r".*'a' has no exact split known \(std.*over channels\)"),
    "training alone": (Auxiliary, "a", FLAT, ALONE, r".*'a' has no exact split alone \(mean\): allowed is together"),
    "... in evaluation": (lambda: Auxiliary().eval(), "a", FLAT, ALONE, r".*'a' has no exact split alone \(mean\)"),
    "softmax": (lambda: normed(nn.Softmax(1)), "0", FLAT, EVEN, ".*'0' has no exact split known.*.*softmax.*1"),
    "softmax in forward": (Softmax, "a", FLAT, EVEN, ".*'a' has no exact split known.*.*softmax"),
    "an unknown operation": (Unreached, "a", FLAT, EVEN, ".*'a' has no exact split known.*.*svd"),
    "a transposition": (Transposed, "a", torch.ones(5, 5), EVEN, ".*'a'.* in the network's output"),
    "a size in view": (Written, "a", IMAGE, {}, r".*'a' has no exact split known.*.*view.*28"),
    "a mixing view": (Mixed, "a", IMAGE, {}, r".*'a' has no exact split known.*.*view.*28"),
    "tied with a reader of the inputs": (Tied, "a", FLAT, {}, r".*'a' has no exact split known.*.*'[ab].weight'"),
    "a borrowed weight": (Borrowed, "a", FLAT, {}, r".*'a' has no exact split known.*.*'b.weight'"),
    "groups on the inputs": (lambda: nn.Sequential(nn.Conv1d(5, 10, 1, groups=5), nn.ReLU(), nn.Conv1d(10, 6, 1)), "0",
                             IMAGE, EVEN, ".*'0' has no exact split known.*.*input"),
    "read along another axis": (lambda: nn.Sequential(nn.Conv1d(5, 5, 1), nn.ReLU(), nn.Linear(7, 2)), "0", IMAGE, EVEN,
                                ".*'0'.* in the network's output"),
    "spectral norm": (spectral_normed, "0", FLAT, EVEN, "'0' has no exact split known .*across other channels"),
    "compiled": (lambda: torch.compile(plain()), "0", FLAT, {}, r"layer '0' \(did you mean '_orig_mod.0'\?\): "),
    "parallel": (lambda: nn.DataParallel(plain()), "0", FLAT, {}, r"layer '0' \(did you mean 'module.0'\?\): "),
}  # fmt: skip


@pytest.mark.parametrize("make, layer, x, options, message", REFUSALS.values(), ids=list(REFUSALS))
def test_what_cannot_be_exact_is_refused_and_nothing_changes(make, layer, x, options, message):
    torch.manual_seed(0)
    net, x = make(), torch.randn(x.shape)
    optimizer = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict(), [sizes_of(module) for module in net.modules()]))
    held, random_state = [id(p) for p in net.parameters()], torch.get_rng_state()
    with pytest.raises(ValueError, match=f"^{message}") as error:
        chosen = {} if "neurons" in options else {"neuron": 1}
        split_neuron(net, layer, **chosen | {"example_inputs": x, "optimizer": optimizer} | options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    for found, expected in zip((net.state_dict(), optimizer.state_dict()["state"]), (before[0], before[1]["state"])):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert [sizes_of(module) for module in net.modules()] == before[2]
    assert [id(p) for p in net.parameters()] == held and torch.equal(torch.get_rng_state(), random_state)
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == held
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def sizes_of(module):
    return {key: value for key, value in module.__dict__.items() if isinstance(value, bool | int | tuple | str)}


def test_parameters_with_hooks_are_refused():
    net = plain()
    net[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    with pytest.raises(ValueError, match="^'0.weight' has hooks of its own"):
        split_neuron(net, "0", 1, example_inputs=FLAT)
    assert net[0].weight.shape == (4, 5) and net[2].in_features == 4


@torch.jit.script
def in_blocks(x: torch.Tensor):
    return x.view(-1, 6, 2)


class Blocks(nn.Module):
    """A size is written into compiled code."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.b(in_blocks(self.a(x)).flatten(1))


def test_an_error_of_compiled_code_is_one_line_without_its_source():
    why = r"\(the network does not run with it, view: RuntimeError\)"
    with pytest.raises(ValueError, match=f"^'a' has no exact split known {why}: allowed are"):
        split_neuron(Blocks(), "a", 0, example_inputs=torch.randn(4, 5), rule="outgoing")


def test_a_parameter_of_the_whole_network_is_a_layer_by_its_own_name():
    net = Custom(lambda n, x: n.out(torch.relu(x @ n.weight.T)), out=nn.Linear(6, 2))
    net.weight = nn.Parameter(torch.randn(6, 5))
    assert splittable(net, torch.randn(4, 5)).layer.tolist() == ["weight", "out"]
    split_neuron(net, "weight", 0, example_inputs=torch.randn(4, 5), rule="outgoing")


def test_a_network_without_layers_has_an_empty_table():
    table = splittable(nn.ReLU(), torch.randn(4, 5))
    columns = ["layer", "channels", "splits_together", "together", "rule", "changes", "reason"]
    assert table.empty and table.columns.tolist() == columns


@pytest.mark.parametrize("name", [name for name, case in REFUSALS.items() if UNSCALED in case[-1]])
def test_a_table_names_a_rule_that_is_exact_where_the_default_is_not(name):
    make, where, inputs, _, _ = REFUSALS[name]
    rule = splittable(make(), inputs).set_index("layer").rule[where]
    assert rule == "outgoing"
    split_neuron(make(), where, 0, example_inputs=inputs, rule=rule)


def test_a_table_names_the_default_rule_where_it_is_exact():
    assert splittable(plain(), FLAT).rule.tolist() == ["scaled", ""]  # the last layer has no rule


def test_a_layer_with_a_parameter_of_another_is_explained():
    with pytest.raises(ValueError, match=r"^layer 'b' \('b.weight' is 'a.weight'\): allowed are a, c, or parameters"):
        split_neuron(Tied(), "b", 0, example_inputs=FLAT)


def test_one_layer_is_split_at_a_time():
    with pytest.raises(ValueError, match=r"^layer \['0'\]: allowed is one by its name; ns.widen takes several"):
        split_neuron(plain(), ["0"], 0, example_inputs=FLAT)


def test_a_network_without_numbers_is_refused():
    for call in (splittable, lambda net, x: split_neuron(net, "0", 0, example_inputs=x)):
        with pytest.raises(
            ValueError, match="^'0.weight' is on the device meta, without numbers: allowed is a network"
        ):
            call(plain().to("meta"), FLAT)


def test_a_sparse_input_is_read_as_the_same_one_that_is_dense():
    net, x = plain().double(), torch.randn(4, 5).relu().double()
    record = split_neuron(net, "0", 0, example_inputs=x.to_sparse())
    assert record.change < 1e-12 and len(record.shapes) == 3


def test_a_set_that_splits_by_another_rule_only_is_refused_with_that_rule():
    net = Custom(
        lambda n, x: n.b((h := torch.relu(n.a(x))) - h.mean(-1, keepdim=True)), a=nn.Linear(5, 6), b=nn.Linear(6, 2)
    )
    with pytest.raises(
        ValueError, match="^rule 'scaled' is not exact through a norm without a gain: allowed are outgo"
    ):
        split_neuron(net, "a", 0, example_inputs=torch.randn(4, 5))
    with pytest.raises(ValueError, match="has no exact split alone .*: allowed is together=True, which splits 6 of"):
        split_neuron(net, "a", 0, example_inputs=torch.randn(4, 5), rule="outgoing")
    split_neuron(net, "a", 0, example_inputs=torch.randn(4, 5), rule="outgoing", together=True)


@pytest.mark.parametrize(("between", "channels", "n", "together"), [
    (nn.GLU(1), 6, 2, False), (nn.GroupNorm(2, 6), 6, 3, True), (nn.ReLU(), 6, 1, False),
])  # fmt: skip
def test_a_table_says_whether_a_set_has_to_be_asked_for(between, channels, n, together):
    net, x = nn.Sequential(nn.Linear(5, channels), between, nn.LazyLinear(2)), torch.randn(4, 5)
    net(x)
    row = splittable(net, x).set_index("layer").loc["0"]
    assert (row.splits_together, row.together) == (n, together)
    if together:
        with pytest.raises(ValueError, match="allowed is together=True, which splits 3 of its channels"):
            split_neuron(net, "0", 0, example_inputs=x, rule=row["rule"])
    split_neuron(net, "0", 0, example_inputs=x, rule=row["rule"], together=together)
    assert net[0].out_features == channels + n


@pytest.mark.parametrize("meet", [torch.add, torch.mul, torch.maximum])
def test_channels_that_meet_an_input_are_known_to_keep_its_size(meet):
    net = Custom(
        lambda n, x: n.c(meet(x[..., 1:], n.b(torch.relu(n.a(x))))),
        a=nn.Linear(5, 6),
        b=nn.Linear(6, 4),
        c=nn.Linear(4, 2),
    )
    table, x = splittable(net, torch.randn(3, 5)).set_index("layer"), torch.randn(3, 5)
    assert table.splits_together["a"] == 1
    assert table.reason["b"].endswith(", with an input of the network") and table.splits_together["b"] == 0
    with pytest.raises(ValueError, match="^'b' has no exact split known .*, with an input of the network"):
        split_neuron(net, "b", 0, example_inputs=x)
