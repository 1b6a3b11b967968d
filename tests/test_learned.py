"""The network that decides, against plain loops over numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronsplit import learned
from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.policies import POLICIES, choose
from neuronsplit.scores import FEATURES, look
from neuronsplit.study import Experiment, run_experiment

NAMES = [feature.__name__ for feature in FEATURES]


def some_known(replicas, width, seed):
    """Numbers of neurons, some of them equal."""
    g = torch.Generator().manual_seed(seed)
    known = {name: torch.randint(6, (replicas, width), generator=g) / 5.0 for name in NAMES}
    return known | {"since_split": torch.randint(4, (replicas, width), generator=g).float()}


def inputs_plainly(known, r):
    """A row a neuron."""
    width = known["fire_rate"].shape[1]
    rows = []
    for j in range(width):
        row = []
        for name in learned.RANKED:
            others = [known[name][r, k].item() for k in range(width) if k != j]
            mine = known[name][r, j].item()
            below = sum(mine > other for other in others) + 0.5 * sum(mine == other for other in others)
            row.append(below / (width - 1) - 0.5 if others else 0.0)
        oldest = known["since_split"][r].max().item()
        row += [known["fire_rate"][r, j].item(), known["nearest"][r, j].item()]
        row += [known["since_split"][r, j].item() / max(oldest, 1), np.log(width), np.log(1 + oldest)]
        rows.append(row)
    return np.array(rows)


@given(replicas=st.integers(1, 3), width=st.integers(1, 9), seed=st.integers(0, 1000))
def test_what_it_sees_and_says_equal_the_plain_way(replicas, width, seed):
    known = some_known(replicas, width, seed)
    x = learned.inputs(known)
    assert x.shape == (replicas, width, len(learned.INPUTS))
    w, said = learned.weights(), learned.predict(learned.weights(), x)
    for r in range(replicas):
        plainly = inputs_plainly(known, r)
        np.testing.assert_allclose(x[r], plainly, rtol=1e-5, atol=1e-6)
        hidden = np.maximum((plainly - w["mean"]) / w["sd"] @ w["fan_in"] + w["bias"], 0)
        worth, choice = (hidden @ w["fan_out"]).T
        expected = worth.mean() * w["worth"] + (choice - choice.mean()) * w["choice"]
        np.testing.assert_allclose(said[r], expected, rtol=1e-3, atol=1e-6)


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 100))
def test_what_it_sees_is_free_of_scale(scale, seed):
    known = some_known(2, 7, seed)
    scaled = known | {name: values * scale for name, values in known.items() if name in learned.RANKED}
    torch.testing.assert_close(learned.inputs(scaled), learned.inputs(known))


def test_it_learns_which_neuron_is_best_and_what_a_split_is_worth():
    """Gains that follow from the fire rate and the width: found again on networks of a width that it never saw."""

    def made(width, seed):
        known = some_known(1, width, seed)
        return learned.inputs(known), 1e-3 * (known["fire_rate"] - 0.5 + width / 10)

    networks = [made(width, seed) for width in (6, 12) for seed in range(40)]
    weights = learned.fit(networks, torch.Generator(), steps=500, decay=0.01)
    told = [(learned.predict(weights, x), gain) for x, gain in (made(9, seed) for seed in range(100, 120))]
    for said, gain in told:
        assert np.corrcoef(said[0], gain[0])[0, 1] > 0.95
    assert [said.mean().item() for said, _ in told] == pytest.approx([gain.mean().item() for _, gain in told], rel=0.2)


def test_it_learns_from_networks_of_one_neuron_and_of_equal_gains():
    networks = [(learned.inputs(some_known(1, width, width)), torch.full((1, width), 1e-3)) for width in (1, 4, 6)]
    weights = learned.fit(networks, torch.Generator(), steps=20)
    assert all(np.isfinite(values).all() for values in weights.values())


def test_a_network_that_diverged_is_nothing_to_learn_from():
    with pytest.raises(ValueError, match="^gains of nan or inf: allowed are those of networks that did not diverge$"):
        learned.fit([(learned.inputs(some_known(1, 3, 0)), torch.tensor([[0.1, torch.nan, 0.2]]))], torch.Generator())


def test_training_it_twice_gives_the_same():
    networks = [(learned.inputs(some_known(1, 5, seed)), torch.rand(1, 5)) for seed in range(5)]
    first, second = (learned.fit(networks, torch.Generator().manual_seed(1), steps=20) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


def test_the_policy_splits_the_neuron_of_the_highest_predicted_gain():
    digits, mlp = load_dataset("digits"), MLP((64, 6, 10), 3)
    mlp.ages += torch.arange(6)
    seen = list(look(mlp, digits.validation))
    known = {feature.__name__: feature(mlp, seen) for feature in FEATURES}
    said = learned.predict(learned.weights(), learned.inputs(known))
    torch.testing.assert_close(POLICIES["learned"].score(mlp, seen), said)
    neurons = choose(["learned"], mlp, seen, [None] * 3)
    assert (said.gather(1, neurons[:, None])[:, 0] >= said.amax(1) - 1e-6).all()


def test_it_enters_an_experiment_like_any_other_policy():
    table = run_experiment(Experiment("learned", width=3, splits=3, still=1, repeats=2))
    assert table.hidden.tolist() == [4, 4, 5, 5, 6, 6, 6, 6] and table.split_neuron.notna().sum() == 6


def test_the_weights_are_small_and_no_code():
    assert learned.FILE.stat().st_size < 10_000
    with np.load(learned.FILE, allow_pickle=False) as file:
        assert {values.dtype for values in file.values()} == {np.dtype("float32")}


def test_ages_are_epochs_since_a_neuron_was_split():
    mlp = MLP((64, 3, 10), 2)
    mlp.ages += 4
    mlp.split(torch.tensor([1, 2]), [(0.5, 0.5, 1.0, 1.0)] * 2)
    assert mlp.ages.tolist() == [[4, 0, 4, 0], [4, 4, 0, 0]]
    mlp.append(torch.zeros(2, 1, 64), torch.zeros(2, 1, 1), torch.zeros(2, 10, 1))
    assert mlp.ages.tolist() == [[4, 0, 4, 0, 0], [4, 4, 0, 0, 0]]
