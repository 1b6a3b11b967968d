"""The commonest mistakes of a new user, and what they are told: what was wrong, what is allowed, what is near.

They were collected from use: in a session of Python, in a study file, and on the command line. A message is one line.
"…" stands for what is left out here, such as a list. Notebooks run by papermill are told the same, because they call
the same functions. What Python itself refuses, such as a forgotten argument, has Python's message.
"""

import re

import pytest
import torch
from torch import nn

import neuronsplit as ns
from neuronsplit.analysis import tables
from neuronsplit.growing import which
from neuronsplit.locations import ROOT
from neuronsplit.plots import curves
from neuronsplit.study.cli import main

X, Y = torch.randn(6, 8), torch.arange(6) % 3
TABLE = ROOT / "figures" / "data" / "fashion-mnist.parquet"


class Net(nn.Module):
    """The network of a user."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.decoder(torch.relu(self.encoder(x)))


def split(where="encoder", neuron=0, net=None, **options):
    """Split a neuron of the network, as in the README."""
    return ns.split_neuron(Net() if net is None else net, where, neuron, **{"example_inputs": X} | options)


def adam(net):
    """An optimiser that has made a step."""
    optimizer = torch.optim.Adam(net.parameters())
    net(X).sum().backward()
    optimizer.step()
    return optimizer


def split_without_the_optimizer():
    net = Net()
    optimizer = adam(net)
    split(net=net)
    return optimizer  # so that it is still there when the network is split


def split_before_the_first_step():
    net = Net()
    optimizer = torch.optim.SGD([net.encoder.weight], lr=0.1)
    split(net=net)
    return optimizer


class Deep(nn.Module):
    """A network with a skip connection around a container, and with a size that is written into its forward."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Linear(8, 4), nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        self.scorer, self.head = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 3))

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(self.scorer(x + self.block(x))).view(-1, 6))


def widths(**widths):
    """Widen layers of the network with a skip connection."""
    ns.widen(Deep(), {name.replace("_", "."): width for name, width in widths.items()}, example_inputs=X)


def split_after_a_forgotten_optimizer():
    net = Net()
    optimizer = adam(net)
    with pytest.warns(UserWarning, match="goes on to train"):
        split(net=net)
    split(net=net, optimizer=optimizer)


def split_with_lbfgs():
    net = Net()
    split(net=net, optimizer=torch.optim.LBFGS(net.parameters()))


def replay_on_a_wrapper():
    net = Net()
    average = torch.optim.swa_utils.AveragedModel(net)
    ns.replay(split(net=net), average)


def mean_loss(net, batch):
    images, labels = batch
    return nn.functional.cross_entropy(net(images), labels)


def scores(loss=mean_loss, batches=((X, Y),), **options):
    """Score the neurons of the network."""
    return ns.neuron_scores(Net(), "encoder", loss, batches, **options)


def replay_on_another():
    ns.replay(split(), nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)))


def run(**names):
    """Run an experiment with an entry of one's own in a registry."""
    return ns.run_experiment(ns.Experiment(**names, epochs=2, splits=1), seeds=[0])


def a_score_of_the_wrong_shape():
    ns.POLICIES["mine"] = ns.Policy(lambda mlp, blocks: mlp.weights[-1], which.argmax)
    run(policy="mine")


def a_function_in_place_of_a_policy():
    ns.POLICIES["mine"] = lambda mlp, blocks: mlp.weights[-1].norm(dim=1)
    run(policy="mine")


def labelled():
    return tables.with_labels(ns.read_table(TABLE))


IN_PYTHON = [  # what is done, and the message
    (lambda: split("encodr"), "layer 'encodr' (did you mean 'encoder'?): allowed are encoder, decoder, or parameters by name"),
    (lambda: split(neuron=5), "neuron 5 of 'encoder': allowed are whole numbers from 0 to 4"),
    (lambda: split("decoder"), "'decoder' has no exact split known (it is in the network's output): allowed are layers that split, for which ns.splittable lists candidates"),
    (lambda: split(example_inputs=X[:, :7]), "the network does not run on the example inputs (…): allowed are example_inputs as you call it: a tensor, a tuple of arguments, or a dict of keyword ones"),
    (lambda: split(0), "layer of type int: allowed are …"),
    (lambda: split(rule="scale"), "rule 'scale' (did you mean 'scaled'?): allowed are …"),
    (lambda: split(optimizer=adam(Net())), "Adam holds none of the network's parameters: allowed is the optimiser that trains it"),
    (split_without_the_optimizer, "Adam goes on to train the old 'decoder.weight', 'encoder.weight', 'encoder.bias': allowed are optimizer=..., or an optimiser made after the split"),
    (split_before_the_first_step, "SGD goes on to train the old 'encoder.weight': allowed are optimizer=..., or an optimiser made after the split"),
    (replay_on_another, "the network has no 'encoder.weight': allowed are records of splits of this network"),
    (replay_on_a_wrapper, "the network has no 'encoder.weight', but 'module.encoder.weight': allowed are records of splits of this network"),
    (split_after_a_forgotten_optimizer, "Adam does not hold 'decoder.weight', but others, as after a split without optimizer=...: allowed is a new one, made from net.parameters()"),
    (split_with_lbfgs, "LBFGS keeps one flat vector of all parameters: allowed is a new one, made after the split"),
    (lambda: split("block", net=Deep()), "layer 'block' is a container: allowed are its layers, here block.0, block.2"),
    (lambda: split("", net=Deep()), "layer '' is a container: allowed are its layers, here stem, block.0, …"),
    (lambda: split("block.2", net=torch.compile(Deep())), "layer 'block.2' (did you mean '_orig_mod.block.2'?): allowed are …"),
    (lambda: split("scorer", net=Deep(), example_inputs=X[:5]), "'scorer' has no exact split known (the network does not run with it, view: shape '[-1, 6]' is invalid for input of size 35; in its forward, flatten(1) helps, or -1 in place of the size): allowed are …"),
    (lambda: widths(stem=5, block_2=6), "widths 5 of 'stem' and 6 of 'block.2', which have the same channels: allowed is one width for both"),
    (lambda: widths(block_2=6, block_0=9, stem=5), "widths 6 of 'block.2' and 5 of 'stem', which have the same channels: allowed is one width for both"),
    (lambda: scores(nn.CrossEntropyLoss()), "loss fails on a tuple (TypeError: …): allowed are loss(net, batch), and batches [(x, y), …]"),
    (lambda: scores(lambda output: output.mean()), "loss fails on a tuple (TypeError: … takes 1 positional argument but 2 were given): allowed are loss(net, batch), and batches [(x, y), …]"),
    (lambda: scores(batches=(X, Y)), "batches of type tuple: allowed are [(x, y), …], loaders and generators"),
    (lambda: scores(batches=[X, X]), "loss fails on a Tensor (ValueError: too many values to unpack (…)): allowed are loss(net, batch), and batches [(x, y), …]"),
    (lambda: scores(batches=3), "batches of type int: allowed are [(x, y), …], loaders and generators"),
    (lambda: scores(batches={"x": X, "y": Y}), "batches of type dict: allowed are [(x, y), …], loaders and generators"),
    (lambda: scores(axis=0), "axis 0 of 'encoder': allowed are -1, 1"),
    (lambda: scores(axis=-2), "axis -2 of 'encoder': allowed are -1, 1"),
    (lambda: ns.split_neurons, "name 'split_neurons' (did you mean 'split_neuron'?): allowed are …"),
    (lambda: ns.Experiment(policy="max-los"), "policy 'max-los' (did you mean 'max-loss'?): allowed are …, and your own in ns.POLICIES or a study's extensions"),
    (lambda: ns.load_dataset("fashion_mnist"), "dataset 'fashion_mnist' (did you mean 'fashion-mnist'?): allowed are …"),
    (lambda: ns.Experiment(width=-3), "width -3: allowed are whole numbers from 1 to 100000"),
    (lambda: ns.Experiment(splits=30, epochs=20), "schedule 'every-epoch' makes 20 of 30 splits in 20 epochs: allowed are more epochs or fewer splits"),
    (lambda: ns.Experiment(learningrate=0.1), "Experiment field 'learningrate' (did you mean 'learning_rate'?): allowed are …"),
    (lambda: ns.run_experiment(ns.Experiment(), seeds=3), "seeds 3: allowed is a list, such as range(5)"),
    (a_function_in_place_of_a_policy, "POLICIES['mine'] is a function: allowed is a Policy with a text as its name"),
    (a_score_of_the_wrong_shape, "score of policy 'mine', Tensor of shape (1, 10, 10): allowed is a tensor of shape (1, 10), networks by neurons"),
    (lambda: ns.read_table(TABLE.with_name("fashion-mist.parquet")), "….parquet does not exist (did you mean 'fashion-mnist.parquet'?): allowed are files of tables"),
    (lambda: tables.summary(labelled(), "test_acc"), "column 'test_acc' (did you mean 'test_accuracy'?): allowed are …"),
    (lambda: curves.mean_curves(labelled(), "test_loss"), "metrics 'test_loss': allowed is a list, such as ['test_loss']"),
]  # fmt: skip

WITH_A_NETWORK = {  # what takes one
    "splittable": lambda net: ns.splittable(net, X),
    "split_neuron": lambda net: ns.split_neuron(net, "encoder", 0, example_inputs=X),
    "widen": lambda net: ns.widen(net, {"encoder": 8}, example_inputs=X),
    "merge_neurons": lambda net: ns.merge_neurons(net, "encoder", 0, 1, example_inputs=X),
    "neuron_scores": lambda net: ns.neuron_scores(net, "encoder", mean_loss, [(X, Y)]),
    "replay": lambda net: ns.replay([], net),
}
NO_NETWORKS = [
    (None, "NoneType"),
    (X, "Tensor"),
    ("encoder", "str"),
    (Net().state_dict(), "OrderedDict"),
    (Net, "type"),
]

IN_A_STUDY = [  # the file mine.yaml, and the message
    ("polcy: random", "mine.yaml, line 1: parameter 'polcy' (did you mean 'policy'?): allowed are …"),
    (
        "policy: random\ngrowth: scalled",
        "mine.yaml, line 2: growth 'scalled' (did you mean 'scaled'?): allowed are …, and your own in ns.GROWTHS or a study's extensions",
    ),
    ("n_seeds: 0", "mine.yaml, line 1: n_seeds 0: allowed are whole numbers from 1 to 100000"),
    (
        "n_seeds: 9\nsplits: 50\nepochs: 3",
        "mine.yaml, line 2: schedule 'every-epoch' makes 3 of 50 splits in 3 epochs: allowed are more epochs or fewer splits",
    ),
    ("learning_rate: 0.1, 0.2", "mine.yaml, line 1: learning_rate '0.1, 0.2': allowed are numbers, or a list of them"),
    ("extensions: mine.py", "extensions '…mine.py': allowed are Python files that exist"),
]
ON_THE_COMMAND_LINE = [  # its words, and the message
    (["run", "quik"], "study 'quik' (did you mean 'quick'?): allowed are …, and paths of .yaml files"),
    (["run", "min.yaml"], "min.yaml does not exist in … (did you mean 'mine.yaml'?): allowed are files of studies"),
    (["run", "quick", "-p", "dataset", "mnist1d"], "-p dataset: dataset 'mnist1d' (did you mean 'mnist-1d'?): allowed are …, and your own in ns.DATASETS or a study's extensions"),
    (["run", "quick", "--workers", "0"], "workers 0: allowed are whole numbers from 1 to 100000"),
]  # fmt: skip


def is_said(expected: str, message: str) -> bool:
    """Whether a message is one line, as expected, with something in the place of each "…"."""
    pattern = ".+".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, message) is not None


@pytest.fixture(autouse=True)
def registries():
    """What a test registers is taken out again."""
    yield
    ns.POLICIES.pop("mine", None)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("mistake, message", IN_PYTHON, ids=[message[:40] for _, message in IN_PYTHON])
def test_a_mistake_in_python(mistake, message):
    with pytest.raises((ValueError, TypeError, AttributeError, FileNotFoundError, UserWarning)) as caught:
        mistake()
    assert is_said(message, str(caught.value)), caught.value


@pytest.mark.parametrize("name", WITH_A_NETWORK)
@pytest.mark.parametrize("given, kind", NO_NETWORKS, ids=[kind for _, kind in NO_NETWORKS])
def test_what_is_no_network(name, given, kind):
    such = ", such as Net()" if given is Net else ""
    with pytest.raises(ValueError, match=f"^{re.escape(f'net of type {kind}: allowed are torch.nn.Module{such}')}$"):
        WITH_A_NETWORK[name](given)


@pytest.mark.parametrize("text, message", IN_A_STUDY)
def test_a_mistake_in_a_study_file(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["run", "mine.yaml", "--dry-run"]) == 2
    assert is_said(f"neuronsplit: {message}", capsys.readouterr().err.removesuffix("\n"))


@pytest.mark.parametrize("words, message", ON_THE_COMMAND_LINE)
def test_a_mistake_on_the_command_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("policy: random")
    assert main([*words, "--dry-run"]) == 2
    assert is_said(f"neuronsplit: {message}", capsys.readouterr().err.removesuffix("\n"))


def test_a_message_that_is_not_the_expected_one_is_seen():
    assert is_said("rule 'x': allowed are …", "rule 'x': allowed are a, b")
    assert not is_said("rule 'x': allowed are …", "rule 'y': allowed are a, b")
    assert not is_said("rule 'x': allowed are …", "rule 'x': allowed are a,\nb")


def test_what_is_no_mistake():
    """A network in half precision splits, and so does one channel that LayerNorm joins to others."""
    half, normed = Net().half(), nn.Sequential(nn.Linear(8, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    split(net=half, example_inputs=X.half())
    split("0", net=normed)
    assert (half.encoder.out_features, normed[0].out_features) == (6, 6) and half.encoder.weight.dtype == torch.half


def test_an_optimizer_that_was_given_or_is_of_other_layers_or_has_gone_is_no_mistake(recwarn):
    net = Net()
    optimizer = adam(net)
    split(net=net, optimizer=optimizer)
    other = Net()
    of_other_layers, kept = torch.optim.Adam(nn.Linear(2, 2).parameters()), [*other.parameters()]
    split(net=other)
    gone = Net()
    adam(gone)
    split(net=gone)
    assert not recwarn.list and of_other_layers.param_groups and kept
