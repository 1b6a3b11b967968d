"""Growth in any network: against a loop written by hand, and what each way to grow promises."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sampling import one_in
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import neuronsplit as ns
from neuronsplit.core.seeds import stream
from neuronsplit.locations import NOTEBOOKS
from neuronsplit.measuring import any_module
from neuronsplit.measuring.any_module import Arm, Streams, Task, evaluate, grow, train_arm

CELLS = json.loads((NOTEBOOKS / "13_grow_a_language_model.ipynb").read_text(encoding="utf-8"))["cells"]
GPT_CELLS = ["".join(cell["source"]) for cell in CELLS if "gpt" in cell["metadata"].get("tags", ())]
exec("\n\n".join(GPT_CELLS), names := {})
small_gpt = SimpleNamespace(**names)

X, Y = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 60, 16)]  # the last one is smaller


def loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


def accuracy(net, batch):
    return (net(batch[0]).argmax(1) == batch[1]).float().mean()


def make_mlp(width, rng):
    net = nn.Sequential(
        nn.Linear(6, width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5, generator=rng)
    return net


def make_cnn(width, rng):
    net = nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, width, 3),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * width, 3),
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5, generator=rng)
    return net


def make_gpt(width, rng):
    return small_gpt.GPT(8, 1, width, rng)


def adam(net, rate):
    return torch.optim.Adam(net.parameters(), lr=rate)


def classifying(make, layers):
    parts = {"train": BATCHES, "val": [(X, Y)]}
    measures = {"loss": loss, "accuracy": accuracy}
    return Task(make, layers, lambda epoch: BATCHES[epoch % 2 :], parts, measures, BATCHES[:1], X[:4], adam)


SEQUENCES = torch.randint(256, (6, small_gpt.CONTEXT + 1), generator=torch.Generator().manual_seed(1))
TASKS = {
    "mlp": classifying(make_mlp, ["0", "3"]), "cnn": classifying(make_cnn, ["1"]),
    "gpt": Task(
        make_gpt, ["blocks.0.up", "blocks.1.up"], lambda epoch: [SEQUENCES[:4]], {"val": [SEQUENCES]},
        {"loss": small_gpt.loss_of}, [SEQUENCES], SEQUENCES[:1, :8], adam,
    ),
}  # fmt: skip
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
WAYS = [
    Arm(4, {1: 6}, "random", "outgoing"), Arm(4, {1: 6}, "ablation_loss_increase", "even"),
    Arm(4, {1: 6}, "activation_importance", "antisymmetric"), Arm(4, {1: 12}, "all", "outgoing"),
    Arm(4, {1: 6}, "all", "fresh"), Arm(4, {1: 12}, "all", "fresh"),
]  # fmt: skip
each_way = pytest.mark.parametrize("arm", one_in(2, WAYS), ids=lambda arm: f"{arm.which}-{arm.how}-{arm.growths[1]}")


def trained(task, steps=3):
    """A network of width 4 and its optimiser, after some steps."""
    net = task.make(4, torch.Generator().manual_seed(2))
    optimizer = adam(net, 0.01)
    for batch in [*task.batches(1)] * steps:
        optimizer.zero_grad()
        task.measures["loss"](net, batch).backward()
        optimizer.step()
    return net, optimizer


def test_an_arm_is_what_a_loop_written_by_hand_does():
    """Random neurons split one at a time, with dropout; layer by layer, with the streams of the seed."""
    task, seed = TASKS["mlp"], 5
    found = train_arm(task, Arm(4, {1: 5, 2: 7}, "random", "outgoing"), 0.02, 3, seed)

    def generator(*of):
        return torch.Generator().manual_seed(int(stream(seed, *of).integers(2**62)))

    net = make_mlp(4, generator("weights"))
    optimizer, draws, coefficients = adam(net, 0.02), stream(seed, "draws"), stream(seed, "coefficients")
    for epoch, width, more in ((1, 4, 1), (2, 5, 2), (3, 7, 0)):
        torch.manual_seed(int(stream(seed, "dropout", epoch).integers(2**62)))
        net.train()
        for x, y in BATCHES[epoch % 2 :]:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            logits = net(X)
        row = found.iloc[epoch]
        assert row.val_loss == pytest.approx(F.cross_entropy(logits, Y).item(), abs=1e-6)
        assert row.val_accuracy == pytest.approx((logits.argmax(1) == Y).double().mean().item())
        assert row.train_loss == pytest.approx(row.val_loss, abs=1e-6)  # the same examples, in unequal batches
        assert (row.hidden, row.parameters) == (width, sum(p.numel() for p in net.parameters()))
        for layer in ("0", "3") if more else ():
            neurons = draws.choice(width, more, replace=False).tolist()
            options = {"example_inputs": X[:4], "optimizer": optimizer, "rule": "outgoing", "rng": coefficients}
            ns.split_neuron(net, layer, neurons=neurons, **options)
    assert found.epoch.tolist() == [0, 1, 2, 3] and found.hidden.tolist() == [4, 4, 5, 7]


@each_task
@each_way
def test_a_growth_leaves_the_outputs_as_they_are_and_training_goes_on(task, arm):
    net, optimizer = trained(task)
    before = evaluate(net, task.measures, task.parts["val"])
    grow(task, net, optimizer, arm, 4, arm.growths[1], Streams.of(3))
    assert evaluate(net, task.measures, task.parts["val"]) == pytest.approx(before, abs=2e-6)
    for layer in task.layers:
        assert len(net.get_submodule(layer).weight) == arm.growths[1]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.parameters()}
    kept = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer.zero_grad()
    task.measures["loss"](net, next(iter(task.batches(1)))).backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(kept, net.parameters()))


@each_task
@pytest.mark.parametrize("wider", [5, 12])
def test_fresh_neurons_are_those_of_a_new_network_and_others_stay(task, wider):
    net, optimizer = trained(task)
    old = copy.deepcopy(net)
    grow(task, net, optimizer, Arm(4, {1: wider}, "all", "fresh"), 4, wider, Streams.of(3))
    weights = torch.Generator().manual_seed(int(stream(3, "weights", 1).integers(2**62)))
    new = task.make(wider, weights)
    for where in task.layers:
        for name, parameter in net.get_submodule(where).named_parameters():
            assert torch.equal(parameter[4:], new.get_submodule(where).get_parameter(name)[4:])
            before = old.get_submodule(where).get_parameter(name)
            assert torch.equal(parameter[:4][:, : before.shape[1]] if before.dim() > 1 else parameter[:4], before)
        state = optimizer.state[net.get_submodule(where).weight]
        assert not state["exp_avg"][4:].any() and state["exp_avg"][:4].any()


def test_what_reads_fresh_neurons_gives_them_no_weight():
    net, optimizer = trained(TASKS["mlp"])
    grow(TASKS["mlp"], net, optimizer, Arm(4, {1: 6}, "all", "fresh"), 4, 6, Streams.of(3))
    assert not net[3].weight[:4, 4:].any() and not net[5].weight[:, 4:].any()


def test_the_neurons_with_the_largest_scores_are_split(monkeypatch):
    task, calls = TASKS["mlp"], []
    monkeypatch.setattr(any_module, "split_neuron", lambda net, where, **options: calls.append(options["neurons"]))
    net, optimizer = trained(task)
    grow(task, net, optimizer, Arm(4, {1: 6}, "ablation_loss_increase"), 4, 6, Streams.of(0))
    net.eval()
    for layer, neurons in zip((0, 3), calls):
        losses = []
        for neuron in range(4):
            without = copy.deepcopy(net)
            without[layer].register_forward_hook(lambda _, __, out, n=neuron: out * (torch.arange(4) != n))
            losses.append(loss(without, BATCHES[0]).item())
        assert neurons == np.argsort(losses)[::-1][:2].tolist()


def test_all_arms_of_a_seed_have_the_same_batches_and_first_weights():
    seen = []
    task = TASKS["mlp"]._replace(batches=lambda epoch: seen.append(epoch) or BATCHES)
    tables = [train_arm(task, arm, 0.01, 2, 7) for arm in (Arm(4), *WAYS)]
    assert seen == [1, 2] * len(tables)
    for table in tables[1:]:
        assert table.iloc[:2].equals(tables[0].iloc[:2])  # until the growth after the first epoch
        assert table.hidden.tolist() != tables[0].hidden.tolist()
    assert len({table.val_loss[2] for table in tables}) == len(tables)


def test_multiply_adds_are_those_of_a_counter_over_the_whole_training():
    task, arm = TASKS["cnn"], Arm(4, {1: 6}, "random", "outgoing")
    with FlopCounterMode(display=False) as counter:
        for width, epoch in ((4, 1), (6, 2)):
            for batch in task.batches(epoch):
                loss(make_cnn(width, torch.Generator()), batch).backward()
    found = train_arm(task, arm, 0.01, 2, 0).multiply_adds
    assert found.tolist()[0] == 0 and found.tolist()[2] == counter.get_total_flops() // 2


@pytest.mark.parametrize(
    "arm, message",
    [
        (Arm(4, {}, "best"), "which 'best': allowed are random, all, ablation_loss_increase"),
        (Arm(4, {}, "all", "thirds"), "how 'thirds': allowed are scaled, even, .*, fresh"),
        (Arm(4, {}, "random", "fresh"), "which 'random' with fresh neurons, which have no parent: allowed is all"),
        (Arm(4, {1: 6, 2: 5}), r"widths \[4, 6, 5\]: allowed are ones that rise"),
        (Arm(4, {1: 9}, "random"), "growth from 4 to 9: allowed are up to 8, unless which is all"),
    ],
)
def test_what_is_not_allowed_is_refused(arm, message):
    with pytest.raises(ValueError, match=message):
        train_arm(TASKS["mlp"], arm, 0.01, 1, 0)


def test_fresh_neurons_that_would_not_come_last_are_refused():
    def make_gated(width, rng):  # a gate stands half of the channels behind what it gates
        return nn.Sequential(nn.Linear(6, width), nn.GLU(), nn.Linear(width // 2, 3))

    task, net = classifying(make_gated, ["0"]), make_gated(4, None)
    with pytest.raises(ValueError, match="fresh neurons of 0: allowed are layers whose copies come last"):
        grow(task, net, adam(net, 0.01), Arm(4, {1: 6}, "all", "fresh"), 4, 6, Streams.of(0))
