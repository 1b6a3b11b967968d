"""Every optimiser of torch, and what wraps optimisers or networks: looked through or refused, never half done."""

import copy
import inspect

import pytest
import torch
from networks import FLAT, mlp, outputs, plain, rng, train
from torch import distributed, nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.optim.swa_utils import AveragedModel

from neuronsplit.surgery.split_neuron import replay, split_neuron

EVERY = [kind for kind in vars(torch.optim).values() if inspect.isclass(kind) and kind is not torch.optim.Optimizer]
NEEDS = {torch.optim.SparseAdam: "sparse gradients", torch.optim.LBFGS: "a closure"}


@pytest.mark.parametrize("state", ["carry", "reset"])
@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind not in NEEDS], ids=lambda kind: kind.__name__)
def test_every_optimiser_of_torch_goes_on(kind, state):
    torch.manual_seed(0)
    net = mlp(6, 5, 3)
    if kind is torch.optim.Muon:  # matrices only
        net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)).double()
    optimizer = kind(net.parameters(), lr=0.01)
    train(net, optimizer, 4)
    twin, twin_optimizer = copy.deepcopy((net, optimizer))
    split_neuron(net, "0", 1, rng=rng(), example_inputs=torch.randn(4, 6).double(), optimizer=optimizer, state=state)
    assert set(optimizer.state) == (set(net.parameters()) if kind is not torch.optim.SGD else set())
    for p in net.parameters():
        for value in optimizer.state.get(p, {}).values():
            assert not isinstance(value, torch.Tensor) or value.dim() < 1 or value.isfinite().all()
    before = [p.detach().clone() for p in net.parameters()]
    train(net, optimizer, 3, seed=1)
    train(twin, twin_optimizer, 3, seed=1)
    for p, old, other in zip(net.parameters(), before, twin.parameters()):
        steps, expected = (p - old).abs().max(), 0.03 if kind is not torch.optim.SGD else 0.3
        assert p.shape == old.shape and 0 < steps < 10 * expected and other.isfinite().all()


@pytest.mark.parametrize("rule", ["even", "scaled"])
def test_muon_carries_its_momentum(rule):
    net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)).double()
    optimizer = torch.optim.Muon(net.parameters(), lr=0.01)
    train(net, optimizer, 3)
    old = optimizer.state[net[0].weight]["momentum_buffer"].clone()
    record = split_neuron(
        net, "0", 1, rng=rng(), example_inputs=torch.randn(4, 6).double(), optimizer=optimizer, rule=rule
    )
    ((_, _, gamma, delta),) = record.coefficients
    new = optimizer.state[net[0].weight]["momentum_buffer"]
    torch.testing.assert_close(new[[1, 5]], old[[1, 1]] * torch.tensor([[gamma], [delta]]).double())


def muon_and_adamw(net):
    matrices = [p for p in net.parameters() if p.dim() == 2]
    others = [p for p in net.parameters() if p.dim() != 2]
    return [torch.optim.Muon(matrices, lr=0.01), torch.optim.AdamW(others, lr=0.01)]


def test_muon_for_matrices_and_adamw_for_the_rest():
    torch.manual_seed(0)
    net = mlp(6, 5, 3)
    optimizers = muon_and_adamw(net)
    train(net, optimizers, 3)
    split_neuron(net, "0", 1, example_inputs=torch.randn(4, 6).double(), optimizer=optimizers)
    before = [p.detach().clone() for p in net.parameters()]
    held = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.parameters()}
    assert set(optimizers[0].state) == {net[0].weight, net[2].weight}
    train(net, optimizers, 5, seed=1)
    assert all(not torch.equal(p, old) for p, old in zip(net.parameters(), before))


@pytest.mark.parametrize("given, missing", [(0, "0.bias"), (1, "[02].weight")])
def test_one_of_two_optimisers_alone_is_refused_and_nothing_changes(given, missing):
    net = mlp(6, 5, 3)
    optimizers = muon_and_adamw(net)
    train(net, optimizers, 2)
    held = [id(p) for p in net.parameters()]
    with pytest.raises(
        ValueError, match=f"^'{missing}' is trained by {type(optimizers[1 - given]).__name__}, not given"
    ):
        split_neuron(net, "0", 1, example_inputs=torch.randn(4, 6).double(), optimizer=optimizers[given])
    assert [id(p) for p in net.parameters()] == held and net[0].out_features == 5


def test_a_frozen_parameter_needs_no_optimiser():
    net = plain()
    net[2].requires_grad_(False)
    optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1)
    split_neuron(net, "0", 1, example_inputs=FLAT, optimizer=optimizer)
    assert net[0].weight.shape == (5, 5) and not net[2].weight.requires_grad


def test_adafactor_keeps_its_factored_states():
    net = mlp(6, 5, 3).float()
    optimizer = torch.optim.Adafactor(net.parameters(), lr=0.01)
    train(net, optimizer, 5)
    whole = copy.deepcopy((net, optimizer))
    split_neuron(net, "0", 1, example_inputs=torch.randn(4, 6), optimizer=optimizer, rule="even")
    state, old = optimizer.state[net[0].weight], whole[1].state[whole[0][0].weight]
    assert {k: v.shape for k, v in state.items() if v.dim()} == {"row_var": (6, 1), "col_var": (1, 6)}
    torch.testing.assert_close(state["row_var"][[1, 5]], old["row_var"][[1, 1]] * 0.25)
    torch.testing.assert_close(state["row_var"][[0, 2, 3, 4]], old["row_var"][[0, 2, 3, 4]])
    train(net, optimizer, 2)


class SAM(torch.optim.Optimizer):
    """As many write it: another optimiser inside, which shares the groups."""

    def __init__(self, params, base):
        super().__init__(params, {})
        self.base_optimizer = base(self.param_groups)
        self.param_groups = self.base_optimizer.param_groups

    def step(self, closure=None):
        self.base_optimizer.step()


class Lookahead:
    """No optimiser by its class: it holds one, and slow weights."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.slow = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]

    def __iter__(self):
        raise TypeError


@pytest.mark.parametrize("given", ["outer", "both"])
def test_an_optimiser_inside_of_another_is_split_or_refused(given):
    torch.manual_seed(0)
    net = mlp(6, 5, 3)
    sam = SAM(net.parameters(), lambda groups: torch.optim.Adam(groups, lr=0.01))
    train(net, sam, 3)
    old, held = sam.base_optimizer.state[net[0].weight]["exp_avg"].clone(), [id(p) for p in net.parameters()]
    try:
        split_neuron(net, "0", 1, rng=rng(), example_inputs=torch.randn(4, 6).double(), rule="even",
                     optimizer=sam if given == "outer" else [sam, sam.base_optimizer])  # fmt: skip
    except ValueError as error:
        assert "SAM" in str(error) or "Adam" in str(error)
        assert [id(p) for p in net.parameters()] == held
    else:
        new = sam.base_optimizer.state[net[0].weight]["exp_avg"]
        torch.testing.assert_close(new[[1, 5]], old[[1, 1]] / 2)
        assert set(sam.base_optimizer.state) == set(net.parameters())


def test_what_is_no_optimiser_is_refused_by_name():
    net = mlp(6, 5, 3)
    wrapped = Lookahead(torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="^optimizer of type Lookahead: allowed are torch.optim.Optimizer, or"):
        split_neuron(net, "0", 1, example_inputs=torch.randn(4, 6).double(), optimizer=[wrapped])


def test_an_average_of_the_network_follows_by_replay():
    net = mlp(6, 5, 3)
    average = AveragedModel(net)
    record = split_neuron(net, "0", 1, example_inputs=torch.randn(4, 6).double(), rng=rng())
    replay([record], average.module)
    average.update_parameters(net)
    average.update_parameters(net)
    x = torch.randn(4, 6).double()
    torch.testing.assert_close(outputs(average, x), outputs(net, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=lambda wrap: wrap.__name__)
def test_a_wrapped_network_is_split_inside_or_refused_by_the_name_of_the_wrapper(wrap):
    net = plain()
    wrapped, before = wrap(net), outputs(net, FLAT)
    for layer in ("0", *[name for name, module in wrapped.named_modules() if module is net[0]]):
        try:
            split_neuron(wrapped, layer, 1, example_inputs=FLAT)
        except ValueError as error:
            assert type(wrapped).__name__ in str(error) or "named_modules" in str(error) or "allowed are" in str(error)
    torch.testing.assert_close(outputs(net, FLAT), before)
    assert net[0].out_features in (4, 5, 6)


@pytest.fixture
def one_process():
    """A group of one process, which needs no network."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def sharded(net):
    return fsdp.fully_shard(net, mesh=init_device_mesh("cpu", (1,)))


@pytest.mark.parametrize(("wrap", "kind"), [
    (nn.parallel.DistributedDataParallel, "DistributedDataParallel"),
    (lambda net: nn.Sequential(nn.parallel.DistributedDataParallel(net)), "DistributedDataParallel"),
    (lambda net: fsdp.FullyShardedDataParallel(net, device_id=torch.device("cpu")), "FullyShardedDataParallel"),
    (sharded, "FSDPModule"), (lambda net: nn.Sequential(net, sharded(nn.Linear(3, 3))), "FSDPModule"),
])  # fmt: skip
def test_networks_over_several_processes_are_refused_by_name(one_process, wrap, kind):
    net = wrap(mlp(6, 5, 3).float())
    where = next(name for name, module in net.named_modules() if isinstance(module, nn.Linear))
    optimizer = torch.optim.Adam(net.parameters())
    held = [id(p) for p in net.parameters()]
    with pytest.raises(ValueError, match=f"^{kind} keeps parameters of its own: allowed is the network inside, before"):
        split_neuron(net, where, 0, example_inputs=torch.randn(4, 6), optimizer=optimizer)
    assert [id(p) for p in net.parameters()] == held == [id(p) for p in optimizer.param_groups[0]["params"]]


def test_checkpointing_is_followed():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 5)), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(x + checkpoint(self.inner, x, use_reentrant=False))

    net = Checkpointed()
    before = outputs(net, FLAT)
    split_neuron(net, "inner.0", 1, example_inputs=FLAT, rule="even")
    torch.testing.assert_close(outputs(net, FLAT), before)
    net(FLAT).sum().backward()
    assert net.inner[0].weight.grad.shape == (5, 5)
