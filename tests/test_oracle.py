"""What is read off tables of branches, against plain loops on made-up ones."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from neuronsplit import learned, oracle
from neuronsplit.branches import DRAWS
from neuronsplit.policies import POLICIES
from neuronsplit.scores import FEATURES


def made_up(widths=(4, 7), seeds=(0, 1), batch_sizes=(32,), rng=None):
    """A table of branches with losses and features drawn at random."""
    rng, rows = rng or np.random.default_rng(0), []
    for width, seed, batch_size, horizon in itertools.product(widths, seeds, batch_sizes, (1, 10)):
        of = {"dataset": "digits", "rule": "scaled", "optimizer": "sgd", "learning_rate": 0.01, "width": width}
        of |= {"grown": 0, "age": 5, "batch_size": batch_size, "seed": seed, "horizon": horizon}
        for kind, count in (("neuron", width), ("draw", DRAWS), ("unsplit", 1)):
            for neuron in range(count):
                losses = dict(zip(oracle.LOSSES, rng.normal(size=2)))
                features = {f.__name__: rng.random() for f in FEATURES} if kind != "unsplit" else {}
                rows.append(of | {"kind": kind, "neuron": neuron} | losses | features)
    return pd.DataFrame(rows)


def test_gains_are_differences_to_the_mean_branch():
    table = made_up()
    gains = oracle.gains(table)
    for (width, seed, horizon), rows in table[table.kind == "neuron"].groupby(["width", "seed", "horizon"]):
        mine = gains[(gains.width == width) & (gains.seed == seed) & (gains.horizon == horizon)].set_index("policy")
        a, b = rows.loss_a.tolist(), rows.loss_b.tolist()
        both = [(x + y) / 2 for x, y in zip(a, b)]
        mean = sum(both) / width
        fires = rows.fire_rate.tolist()
        chosen = {"max-fire": fires.index(max(fires)), "min-fire": fires.index(min(fires))}
        chosen["half-fire"] = min(range(width), key=lambda j: abs(fires[j] - 0.5))
        for policy, neuron in chosen.items():
            assert mine.gain[policy] == pytest.approx(mean - both[neuron])
        odds = np.exp(10 * rows.loss_after_removal.to_numpy())
        assert mine.gain["loss-probs"] == pytest.approx(mean - np.dot(odds / odds.sum(), both))
        assert mine.gain["random"] == pytest.approx(0, abs=1e-12)
        oracles = [np.mean(b) - b[np.argmin(a)], np.mean(a) - a[np.argmin(b)]]
        assert mine.gain["oracle"] == pytest.approx(np.mean(oracles))
        assert mine["rank"]["oracle"] == pytest.approx(spearmanr(a, b).statistic)
        assert mine["rank"]["max-fire"] == pytest.approx(spearmanr(fires, -np.array(both)).statistic)
        assert mine["rank"]["min-fire"] == pytest.approx(-mine["rank"]["max-fire"])
        unsplit = table[(table.kind == "unsplit") & (table.width == width) & (table.seed == seed)]
        unsplit = unsplit[unsplit.horizon == horizon][oracle.LOSSES].to_numpy().mean()
        assert mine.split.tolist() == pytest.approx([unsplit - mean] * len(mine))


def test_what_learned_from_such_tables_is_not_judged_by_them():
    assert set(oracle.gains(made_up()).policy) == {"oracle", *POLICIES} - {"learned"}


def test_networks_that_differ_in_anything_are_not_pooled():
    assert len(oracle.variances(made_up(batch_sizes=(16, 32)))) == 2 * 2 * 2 * 2
    assert set(oracle.settings(made_up(widths=(4,), batch_sizes=(16, 32)))) == {
        "sgd 0.01 · scaled · width 4, age 5, batch size 16", "sgd 0.01 · scaled · width 4, age 5, batch size 32"
    }  # fmt: skip
    assert set(oracle.settings(made_up(widths=(4,)))) == {"sgd 0.01 · scaled · width 4, age 5"}


def test_variances_find_again_what_losses_were_made_of():
    """Unbiased: means over many networks, of a choice of sd 2, coefficients of 0, an order of 3 and a rest of 1."""
    table, rng = made_up(widths=(10,), seeds=range(2000)), np.random.default_rng(1)
    table = table[table.horizon == 10].reset_index(drop=True)
    order = pd.Series(rng.normal(scale=3, size=2000))
    other = pd.Series(rng.normal(scale=3, size=2000))
    choice = np.where(table.kind == "neuron", rng.normal(scale=2, size=len(table)), 0)
    table["loss_a"] = choice + order[table.seed].to_numpy() + rng.normal(size=len(table))
    table["loss_b"] = choice + other[table.seed].to_numpy() + rng.normal(size=len(table))
    found = oracle.variances(table)[["choice", "coefficients", "order", "rest"]].mean()
    assert found["choice"] == pytest.approx(4, rel=0.05) and found["rest"] == pytest.approx(1, rel=0.05)
    assert found["coefficients"] == pytest.approx(0, abs=0.05) and found["order"] == pytest.approx(9, rel=0.1)


def test_examples_are_gains_over_the_network_unsplit():
    table = made_up()
    examples = oracle.examples(table, 10)
    assert len(examples) == 4
    for e in examples:
        rows = table[(table.width == e.of["width"]) & (table.seed == e.of["seed"]) & (table.horizon == 10)]
        unsplit = rows[rows.kind == "unsplit"].iloc[0]
        for place, (_, row) in enumerate(rows[rows.kind == "neuron"].iterrows()):
            assert e.gains[0, place].item() == pytest.approx(unsplit.loss_a - row.loss_a, rel=1e-5)
            assert e.gains[1, place].item() == pytest.approx(unsplit.loss_b - row.loss_b, rel=1e-5)
            assert e.x[0, place, learned.INPUTS.index("fire_rate")].item() == pytest.approx(row.fire_rate)


def test_to_import_the_package_is_not_to_import_pandas():
    code = "import sys, neuronsplit; print('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
