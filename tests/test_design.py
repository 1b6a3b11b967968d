"""The arms of a designed study, and the families in which they are compared."""

import numpy as np
import pandas as pd
import pytest
from synthetic import study_table

from neuronsplit.analysis import cost, design, stats, tables
from neuronsplit.analysis.files import read_table
from neuronsplit.experiments import random_search
from neuronsplit.locations import ROOT
from neuronsplit.locations import STUDIES as STUDIES_FOLDER
from neuronsplit.names import ID_COLUMNS
from neuronsplit.study import tune
from neuronsplit.study.grid import read_study

BASE = {"optimizer": "sgd", "state": "carry", "splits": 3, "epochs": 5, "width": 3}
SETTINGS = {"weight_decay": 0.0, "dropout": 0.0, "rate_schedule": "constant", "rate_after_split": 1.0}


def arm(policy, learning_rate, growth="scaled", schedule="every-epoch", n_seeds=6, **setting):
    setting = BASE | setting
    table = study_table([policy], n_seeds, setting["width"], setting["splits"], setting["epochs"], growth, schedule)
    noise = np.random.default_rng(int(1000 * learning_rate)).normal(0, 0.01, len(table))
    return table.assign(**setting, learning_rate=learning_rate, test_loss=learning_rate + noise)


@pytest.fixture(scope="module")
def table():
    arms = [
        arm("no-split", 0.10), arm("no-split", 0.11, epochs=4), arm("no-split", 0.12, width=9, splits=0),
        arm("stay-narrow", 0.30), arm("random", 0.20), arm("max-loss", 0.19), arm("random", 0.21, growth="even"),
        arm("random", 0.05, schedule="all-at-1"), arm("max-loss", 0.22, growth="even"),
        arm("random", 0.23, state="warm-up"), arm("no-split", 0.13, optimizer="adam"),
        arm("random", 0.24, optimizer="adam"), arm("random", 0.25, optimizer="adam", state="reset"),
    ]  # fmt: skip
    return pd.concat(arms, ignore_index=True).assign(**SETTINGS)


def test_arms_are_named_by_what_differs_from_the_base_arm_whatever_was_tuned(table):
    assert design.arms_of(table).index.tolist() == [
        "no-split", "no-split · 4 epochs", "no-split of any width", "stay-narrow", "random", "max-loss", "even",
        "all-at-1", "max-loss · even", "state warm-up", "no-split · adam", "adam", "state reset · adam",
    ]  # fmt: skip
    named = design.with_arms(table)
    assert named.policy.unique().tolist() == design.arms_of(table).index.tolist()
    assert (named.groupby("policy").learning_rate.nunique() == 1).all() and len(named) == len(table)


def test_families_compare_each_arm_with_its_own_baseline(table):
    found = design.families(table)
    assert found["which"] == {"max-loss": "random"} and found["how"] == {"even": "random"}
    assert found["when"] == {"all-at-1": "random"} and found["combined"] == {"max-loss · even": "random"}
    assert found["state"] == {"state warm-up": "random", "state reset · adam": "adam"}
    growing = ["random", "max-loss", "even", "all-at-1", "max-loss · even", "state warm-up"]
    assert found["equal epochs"] == dict.fromkeys(["no-split of any width", "stay-narrow", *growing], "no-split") | {
        "adam": "no-split · adam", "state reset · adam": "no-split · adam",
    }  # fmt: skip
    assert found["any width"] == dict.fromkeys(growing, "no-split of any width")


def test_multiply_adds_are_equal_to_a_control_within_five_percent():
    """Widths 3, 4, 5 and then 6 for 8 epochs: 60 neuron-epochs, as many as 6 neurons take in 10 epochs."""
    arms = [arm("no-split", 0.1, epochs=11), arm("no-split", 0.2, epochs=10), arm("random", 0.3, epochs=11)]
    assert design.families(pd.concat(arms))["equal multiply-adds"] == {"random": "no-split · 10 epochs"}
    arms[1] = arm("no-split", 0.2, epochs=9)
    assert "equal multiply-adds" not in design.families(pd.concat(arms))


def test_the_tests_are_those_of_the_family_at_the_epoch_that_validation_picks(table):
    found = design.tests(table, "test_loss")
    values = tables.at_best_validation(design.with_arms(table), "test_loss")
    growing = list(design.families(table)["any width"])
    expected = stats.paired_tests(values[growing].sub(values["no-split of any width"], axis=0), "test_loss")
    pd.testing.assert_frame_equal(found.loc["any width"][expected.columns], expected, check_names=False)
    assert (found.loc["any width", "baseline"] == "no-split of any width").all()
    assert found.loc[("when", "all-at-1"), "verdict"] == "better" and found.loc[("how", "even"), "n"] == 6


def test_arms_of_one_optimizer_are_compared_with_the_control_in_loss_and_in_cost(table):
    found = design.against_control(table, "test_loss")
    assert not [name for name in found.index if "adam" in name] and "stay-narrow" in found.index
    keys = [*design.CHOICES, "splits", "seed"]
    picked = table.loc[table.groupby(keys).val_loss.idxmin()].set_index("seed")
    control = picked.query("policy == 'no-split' and epochs == 5 and splits > 0 and optimizer == 'sgd'")
    of_arms = {"max-loss": "policy == 'max-loss' and growth == 'scaled'", "stay-narrow": "policy == 'stay-narrow'"}
    for name, query in of_arms.items():
        own = picked.query(query)
        assert found.loc[name, "mean"] == pytest.approx((own.test_loss - control.test_loss).mean())
    assert found.loc["stay-narrow", "cost"] == pytest.approx(3 / 6) and found.loc["no-split", "cost"] == 1
    assert found.loc["no-split · 4 epochs", "cost"] == pytest.approx(4 / 5)
    assert found.loc["max-loss", "cost"] == pytest.approx((3 + 4 + 5 + 6 + 6) / (5 * 6))


def test_arms_that_were_tuned_alike_have_every_tuned_setting_of_their_baseline(table):
    alike = table.assign(learning_rate=0.1)
    assert design.tests(alike, "test_loss")["tuned_alike"].all()
    for name, other in {**SETTINGS, "learning_rate": 0.1}.items():
        changed = alike.copy()
        changed.loc[changed["growth"] == "even", name] = "cosine" if name == "rate_schedule" else other + 0.5
        found = design.tests(changed, "test_loss")["tuned_alike"]
        assert not found["how", "even"] and found["which", "max-loss"] and not found["combined", "max-loss · even"]
        assert not design.tuned_settings(changed).loc["even"].equals(design.tuned_settings(changed).loc["random"])


def test_tables_that_are_there_are_read_by_data_set():
    assert design.read_tables({}).keys() == design.COMMITTED.keys()
    found = design.read_tables({"mine": design.COMMITTED["digits"], "missing": "figures/data/missing.parquet"})
    assert found.keys() == {"mine"} and found["mine"].equals(read_table(ROOT / design.COMMITTED["digits"]))


def test_a_table_has_the_columns_that_name_arms():
    assert {*design.CHOICES, "splits"} <= {*ID_COLUMNS}


@pytest.mark.parametrize("name", ["design-digits", "design-mnist-1d", "design-fashion-mnist"])
def test_the_studies_have_the_arms_and_families_that_the_design_says(name):
    plan = read_study(name).plan
    arms = design.arms_of(pd.DataFrame(list(plan)))
    assert arms.index.is_unique and {*plan.values()} == {tuple(range(100, 120))}
    assert {"no-split", design.ANY_WIDTH, "stay-narrow", "random"} < {*arms.index}
    assert {e.width + e.splits for e in plan} == {60} and {e.width for e in plan} == {10, 60}
    if name == "design-fashion-mnist":
        assert len(arms) <= 20
    else:
        assert {"state warm-up", "state reset · momentum", "state warm-up · adam"} < {*arms.index}


@pytest.mark.parametrize("epochs, shorter", [(100, 79), (150, 129)])
def test_the_shorter_control_costs_as_much_as_one_split_per_epoch(epochs, shorter):
    given = (("no-split", shorter), ("no-split", epochs), ("random", epochs))
    arms = [arm(policy, 0.1, epochs=of_arm, width=10, splits=50, n_seeds=1) for policy, of_arm in given]
    costs = cost.relative_cost(design.with_arms(pd.concat(arms)), f"no-split · {shorter} epochs")
    assert costs["random"] == pytest.approx(1, abs=0.005)


def test_the_written_design_says_what_the_code_does():
    text = " ".join((STUDIES_FOLDER / "design.md").read_text(encoding="utf-8").split())
    sizes = {1: "alone", 5: "in a family of 5", 16: "in one of 16", 40: "in one of 40"}
    found = [f"{stats.minimum_detectable_effect(20, 0.05 / n):.2f} {words}" for n, words in sizes.items()]
    assert f"{found[0]}, {found[1]}, {found[2]} and {found[3]}" in text
    assert f"less than {design.SAME_COST:.0%}".replace("%", " %") in text
    assert (
        f"tries the same {random_search.N_CONFIGURATIONS} configurations on the seeds 1,000,000 and 1,000,001" in text
    )
    assert list(tune.SEEDS) == [1_000_000, 1_000_001]


def test_the_trial_showed_what_the_design_says():
    table = read_table(ROOT / "figures" / "data" / "mnist-1d-trial.parquet")
    text, found = (STUDIES_FOLDER / "design.md").read_text(encoding="utf-8").replace("−", "-"), {}
    for dropout, rows in table.groupby("dropout"):
        arms = []
        for policy in ("no-split", "min-eigenvalue"):
            of_rates = {rate: of_rate for rate, of_rate in rows[rows.policy == policy].groupby("learning_rate")}
            losses = {rate: r[r.seed < 5].groupby("seed").val_loss.min().mean() for rate, r in of_rates.items()}
            chosen = of_rates[min(losses, key=losses.get)]
            arms.append(chosen[chosen.seed >= 100])
        for metric in ("test_loss", "test_accuracy"):
            difference = tables.paired_differences(pd.concat(arms), metric, "no-split", tables.at_best_validation)
            found[dropout, metric] = stats.paired_tests(difference, metric).iloc[0]
    bare, accuracy, regularised = found[0.0, "test_loss"], found[0.0, "test_accuracy"], found[0.2, "test_loss"]
    assert f"{-bare['mean']:.3f} [{-bare['high']:.3f}, {-bare['low']:.3f}] lower" in text
    points = 100 * accuracy[["mean", "low", "high"]]
    assert f"{points['mean']:.1f} points [{points['low']:.1f}, {points['high']:.1f}] higher" in text
    assert (
        f"{regularised['mean']:.3f} higher in test loss [{regularised['low']:.3f}, {regularised['high']:.3f}]" in text
    )
    assert (bare["verdict"], accuracy["verdict"], regularised["verdict"]) == ("better", "better", "no difference found")
