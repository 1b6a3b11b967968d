"""Results from tables of all splits agree with plain loops, on random tables."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from synthetic import all_splits_table

from neuronsplit.analysis import oracle
from neuronsplit.names import NETWORK_KEYS, SHUFFLE_LOSSES


def choices_of(table):
    """What policies choose, network by network, in plain loops."""
    neurons = table[table.branch_type == "neuron"]
    empty = pd.DataFrame({"probability": 0.0, "preference": np.nan}, neurons.index)
    found = {name: empty.copy() for name in ("random", "max-fire", "min-fire", "half-fire", "loss-probs")}
    for _, rows in neurons.groupby(NETWORK_KEYS):
        rates, odds = rows.fire_rate.to_dict(), np.exp(10 * rows.ablation_loss)
        for i, rate in rates.items():
            found["random"].loc[i, "probability"] = 1 / len(rates)
            found["max-fire"].loc[i] = float(rate == max(rates.values())), rate
            found["min-fire"].loc[i] = float(rate == min(rates.values())), -rate
            distance = [abs(other - 0.5) for other in rates.values()]
            found["half-fire"].loc[i] = float(abs(rate - 0.5) == min(distance)), -abs(rate - 0.5)
            found["loss-probs"].loc[i] = odds[i] / odds.sum(), table.ablation_loss[i]
    return found


def test_gains_are_differences_to_the_mean_branch():
    table = all_splits_table()
    gains = oracle.gains(table, choices_of(table))
    assert len(gains) == 2 * 2 * 2 * 6 and list(gains.policy.unique()[:2]) == ["oracle", "random"]
    for (width, seed, horizon), rows in table.groupby(["width", "seed", "horizon"]):
        of_network = (gains.width == width) & (gains.seed == seed) & (gains.horizon == horizon)
        found = gains[of_network].set_index("policy")
        neurons = rows[rows.branch_type == "neuron"]
        first, second = neurons.loss_shuffle_0.tolist(), neurons.loss_shuffle_1.tolist()
        losses = [(x + y) / 2 for x, y in zip(first, second)]
        mean = sum(losses) / width
        fires = neurons.fire_rate.tolist()
        chosen = {"max-fire": fires.index(max(fires)), "min-fire": fires.index(min(fires))}
        chosen["half-fire"] = min(range(width), key=lambda j: abs(fires[j] - 0.5))
        for policy, neuron in chosen.items():
            assert found.gain[policy] == pytest.approx(mean - losses[neuron])
        odds = np.exp(10 * neurons.ablation_loss.to_numpy())
        assert found.gain["loss-probs"] == pytest.approx(mean - np.dot(odds / odds.sum(), losses))
        assert found.gain["random"] == pytest.approx(0, abs=1e-12)
        best = [np.mean(second) - second[np.argmin(first)], np.mean(first) - first[np.argmin(second)]]
        assert found.gain["oracle"] == pytest.approx(np.mean(best))
        assert found.rank_correlation["oracle"] == pytest.approx(spearmanr(first, second).statistic)
        assert found.rank_correlation["max-fire"] == pytest.approx(spearmanr(fires, -np.array(losses)).statistic)
        assert found.rank_correlation["min-fire"] == pytest.approx(-found.rank_correlation["max-fire"])
        assert np.isnan(found.rank_correlation["random"])
        unsplit = rows[rows.branch_type == "unsplit"][SHUFFLE_LOSSES].to_numpy().mean()
        assert found.split_gain.tolist() == pytest.approx([unsplit - mean] * len(found))


def test_choices_are_found_by_the_index_of_the_table():
    table = all_splits_table()
    choices = choices_of(table)
    shuffled = {policy: choice.sample(frac=1, random_state=1) for policy, choice in choices.items()}
    part = table[table.horizon == 10]
    expected = oracle.gains(table, choices).query("horizon == 10").reset_index(drop=True)
    pd.testing.assert_frame_equal(oracle.gains(part, shuffled), expected)


def test_networks_that_differ_in_anything_are_not_pooled():
    table = all_splits_table(batch_sizes=(16, 32))
    assert len(oracle.variances(table)) == 2 * 2 * 2 * 2
    assert len(oracle.gains(table, {})) == 2 * 2 * 2 * 2


def test_settings_are_labelled_by_what_they_are():
    assert set(oracle.setting_labels(all_splits_table(widths=(4,), batch_sizes=(16, 32)))) == {
        "sgd 0.01 · scaled · width 4, after 5 epochs, batch size 16",
        "sgd 0.01 · scaled · width 4, after 5 epochs, batch size 32",
    }
    table = all_splits_table(widths=(4,))
    assert set(oracle.setting_labels(table)) == {"sgd 0.01 · scaled · width 4, after 5 epochs"}
    young = table.assign(epochs_before=1, prior_splits=1, growth="even", optimizer="adam", learning_rate=5e-5)
    assert set(oracle.setting_labels(young)) == {"adam 5e-05 · even · width 4, after 1 epoch, 1 prior split"}


@pytest.mark.long
def test_variances_find_again_what_losses_were_made_of():
    """Unbiased: means over many networks; choice of sd 2, coefficients of 0, shuffle of 3, residual of 1."""
    table, rng = all_splits_table(widths=(10,), seeds=range(2000)), np.random.default_rng(1)
    table = table[table.horizon == 10].reset_index(drop=True)
    choice = np.where(table.branch_type == "neuron", rng.normal(scale=2, size=len(table)), 0)
    for name in SHUFFLE_LOSSES:
        shuffle = rng.normal(scale=3, size=2000)[table.seed]
        table[name] = choice + shuffle + rng.normal(size=len(table))
    found = oracle.variances(table)[["choice", "coefficients", "shuffle", "residual"]].mean()
    assert found["choice"] == pytest.approx(4, rel=0.05) and found["residual"] == pytest.approx(1, rel=0.05)
    assert found["coefficients"] == pytest.approx(0, abs=0.05) and found["shuffle"] == pytest.approx(9, rel=0.1)
