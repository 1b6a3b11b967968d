import numpy as np
import plain
import pytest
import torch

from neuronsplit import batch, oracle, study
from neuronsplit.__main__ import main
from neuronsplit.branches import DRAWS, HORIZONS, Branching, every_split, trained
from neuronsplit.data import load_dataset
from neuronsplit.policies import POLICIES, choose
from neuronsplit.scores import FEATURES, look
from neuronsplit.seeds import stream
from neuronsplit.split import draw

SMALL = Branching(width=4, age=2, repeats=2, seed=3)


@pytest.fixture(scope="module")
def table():
    torch.set_num_threads(1)
    return every_split(SMALL)


def test_a_row_is_a_branch_and_a_horizon(table):
    assert table.groupby(["seed", "kind", "horizon"]).size().to_dict() == {
        (seed, kind, horizon): n
        for seed in (3, 4)
        for kind, n in (("neuron", 4), ("draw", DRAWS), ("unsplit", 1))
        for horizon in HORIZONS
    }
    neurons = table[(table.kind == "neuron") & (table.horizon == 1)].groupby("seed").neuron.agg(list).tolist()
    assert neurons == [[0, 1, 2, 3]] * 2 and set(table[table.kind == "draw"].neuron) == {0}
    assert table.loss_a.lt(table.loss_before).all() and not np.allclose(table.loss_a, table.loss_b)


@pytest.mark.parametrize("seed", SMALL.seeds)
@pytest.mark.parametrize("name, turn", [("loss_a", 0), ("loss_b", 1)])
def test_a_branch_is_what_its_network_becomes_alone(table, seed, name, turn):
    """One network at a time, split and trained on with torch.nn and torch.optim; the last is not split."""
    digits = load_dataset("digits")
    mlp, *_ = trained(SMALL, digits)
    coefficients = draw("scaled", [stream(seed, "coefficients")], 10)[0]
    for neuron in [*range(4), None]:
        net = plain.network(mlp, seed - 3)
        net = net if neuron is None else plain.split(net, neuron, coefficients)
        rng = stream(seed, "order").spawn(2)[turn]
        for epoch in range(1, max(HORIZONS) + 1):
            plain.epoch_of(net, torch.from_numpy(rng.permutation(len(digits.train.labels))), digits.train, SMALL)
            of_branch = (table.kind == "unsplit") if neuron is None else (table.kind == "neuron")
            rows = table[(table.seed == seed) & of_branch & (table.horizon == epoch)]
            rows = rows if neuron is None else rows[rows.neuron == neuron]
            assert len(rows) == (epoch in HORIZONS)
            for found in rows[name]:
                assert found == pytest.approx(plain.evaluate("val", net, *digits.validation)["val_loss"], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_is_split_is_what_an_experiment_trains(optimizer):
    """As many epochs, with the same draws, of a study's own loop; the optimiser comes along."""
    e = Branching(width=5, grown=2, age=3, repeats=2, optimizer=optimizer, learning_rate=0.01)
    mlp, at_work, _ = trained(e, load_dataset("digits"))
    assert mlp.width == 5 and all(mean.width == 5 for mean in at_work.means.values())
    assert at_work.steps == 3 * (len(load_dataset("digits").train.labels) // 32)
    assert mlp.ages.amin().item() == 1 and mlp.ages.amax().item() == 3
    whole = study.Experiment("no-split", optimizer=optimizer, width=5, splits=0, still=3, repeats=2, learning_rate=0.01)
    _, _, losses = (table for (table,) in study.run_epochs([whole]))
    plainly, *_ = trained(Branching(width=5, age=3, repeats=2, optimizer=optimizer, learning_rate=0.01),
                         load_dataset("digits"))  # fmt: skip
    found = plain.evaluate("val", plain.network(plainly, 1), *load_dataset("digits").validation)["val_loss"]
    assert found == pytest.approx(losses.val_loss.iloc[1], rel=1e-5)


def test_the_scores_are_those_that_policies_choose_by(table):
    digits = load_dataset("digits")
    mlp, *_ = trained(SMALL, digits)
    seen = list(look(mlp, digits.validation))
    rows = table[(table.kind == "neuron") & (table.horizon == 1)]
    for feature in FEATURES:
        np.testing.assert_allclose(rows[feature.__name__], feature(mlp, seen).flatten(), rtol=1e-5, atol=1e-7)
    for policy in POLICIES:
        if policy not in ("random", "learned") and not policy.endswith("-probs"):
            chosen = choose([policy], mlp, seen, [None] * 2).tolist()
            assert [oracle.chances(policy, of).argmax() for _, of in rows.groupby("seed")] == chosen, policy


def test_a_study_of_branches_is_run_cut_and_taken_up_by_the_batch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch, "RUNS", tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text("kind: branches\nrepeats: 2\nage: [1, 2]\nwidth: 3\n")
    assert main(["run", str(file)]) == 0
    folder = tmp_path / "mine"
    table, about = study.read_table(folder / "table.csv")
    assert set(table.age) == {1, 2} and about["parameters"]["kind"] == "branches"
    assert len(list(folder.glob("branches-????????.ipynb"))) == 2
    expected = every_split(Branching(width=3, age=2, repeats=2))
    found = table[table.age == 2].sort_values(["horizon", "kind", "seed", "neuron"])
    expected = expected.sort_values(["horizon", "kind", "seed", "neuron"])
    np.testing.assert_allclose(found[["loss_a", "loss_b"]], expected[["loss_a", "loss_b"]], rtol=1e-4)
    kept, lost = sorted(folder.glob("branches-????????.csv"))
    lost.with_suffix(".json").unlink()
    at = kept.stat().st_mtime_ns
    assert main(["status", str(file)]) == 0
    assert "1 done, 0 running, 0 failed, 0 damaged, 1 missing" in capsys.readouterr().out
    assert main(["run", str(file)]) == 0
    assert kept.stat().st_mtime_ns == at and study.read_table(folder / "table.csv")[0].equals(table)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rule": "fresh"}, "^rule 'fresh': allowed are scaled, "),
        ({"grown": 4, "width": 4}, "^grown 4: allowed are at most 3, one an epoch, of width 4 and age 5$"),
        ({"grown": 6, "width": 9}, "^grown 6: allowed are at most 5, one an epoch, of width 9 and age 5$"),
        ({"age": -1}, "^age -1: allowed are whole numbers from 0 to 100000$"),
        ({"learning_rate": 0}, "^learning_rate 0: allowed are numbers above 0$"),
    ],
)
def test_a_bad_branching_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Branching(**changes)
