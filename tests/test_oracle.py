import numpy as np
import plain
import pytest
import torch

from neuronsplit import oracle
from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.optimizers import start
from neuronsplit.oracle import every_split
from neuronsplit.policies import choose, look
from neuronsplit.seeds import stream
from neuronsplit.split import draw
from neuronsplit.training import train_epoch

SMALL = {"seeds": [3, 4], "width": 4, "age": 2, "rule": "scaled", "horizons": [1, 3], "learning_rate": 0.05}


@pytest.fixture(scope="module")
def table():
    torch.set_num_threads(1)
    return every_split(load_dataset("digits"), **SMALL, draws=2)


def test_a_row_is_a_branch_and_a_horizon(table):
    assert table.groupby(["seed", "kind", "horizon"]).size().to_dict() == {
        (seed, kind, horizon): n for seed in (3, 4) for kind, n in (("neuron", 4), ("draw", 2)) for horizon in (1, 3)
    }
    neurons = table[(table.kind == "neuron") & (table.horizon == 1)].groupby("seed").neuron.agg(list).tolist()
    assert neurons == [[0, 1, 2, 3]] * 2 and set(table[table.kind == "draw"].neuron) == {0}
    assert table.loss_a.lt(table.loss_before).all() and not np.allclose(table.loss_a, table.loss_b)


@pytest.mark.parametrize("seed", SMALL["seeds"])
def test_a_branch_is_what_its_network_becomes_alone(table, seed):
    """One network at a time, split and trained on with torch.nn and torch.optim."""
    digits = load_dataset("digits")
    mlp, order = MLP((64, 4, 10), 1, seed), [stream(seed, "order")]
    for _ in range(2):
        train_epoch(mlp, digits.train, order, start("sgd", mlp, 0.05), 32)
    coefficients = draw("scaled", [stream(seed, "coefficients")], 10)[0]
    for neuron in range(4):
        net = plain.split(plain.network(mlp, 0), neuron, coefficients)
        sgd, rng = torch.optim.SGD(net.parameters(), 0.05), stream(seed, "order").spawn(2)[0]
        for epoch in range(1, 4):
            for batch in torch.from_numpy(rng.permutation(len(digits.train.labels))).split(32):
                if len(batch) == 32:
                    sgd.zero_grad()
                    torch.nn.functional.cross_entropy(
                        net(digits.train.images[batch]), digits.train.labels[batch]
                    ).backward()
                    sgd.step()
            rows = table[(table.seed == seed) & (table.kind == "neuron") & (table.neuron == neuron)]
            for found in rows[rows.horizon == epoch].loss_a:
                assert found == pytest.approx(plain.evaluate("val", net, *digits.validation)["val_loss"], rel=1e-4)


def test_the_scores_are_those_that_policies_choose_by(table):
    digits = load_dataset("digits")
    mlp, order = MLP((64, 4, 10), 2, 3), [stream(seed, "order") for seed in (3, 4)]
    for _ in range(2):
        train_epoch(mlp, digits.train, order, start("sgd", mlp, 0.05), 32)
    rows = table[(table.kind == "neuron") & (table.horizon == 1)]
    for policy in oracle.SCORES:
        chosen = choose([policy], mlp, list(look(mlp, digits.validation)), [None] * 2).tolist()
        best = rows.groupby("seed")[policy].agg(np.argmin if policy.startswith("min") else np.argmax).tolist()
        assert best == chosen, policy


def test_the_networks_that_are_followed_stay_as_they_were():
    digits, mlp = load_dataset("digits"), MLP((64, 4, 10), 2)
    before = [p.clone() for p in mlp.parameters()]
    list(oracle.follow(mlp, digits, [stream(0, "order")], [1], 0.05, 32))
    assert all(torch.equal(p, q) for p, q in zip(mlp.parameters(), before))
