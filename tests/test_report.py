"""The report of any study: its sentences agree with the table, and say no more than it can carry."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import scipy.stats
from synthetic import all_splits_table, study_table

from neuronsplit.analysis import comparison, oracle, sentences, split_sentences, stats, study_sentences, tables, wording
from neuronsplit.analysis.files import write_table
from neuronsplit.names import CONTROLS, NEURON, SHUFFLE_LOSSES

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "report.ipynb"
EIGHT = ["no-split", "random", "max-loss", "min-loss", "loss-probs", "max-fire", "min-fire", "half-fire"]
THE_CONTROL = "no-split, the control with the final width from the start,"


def shifted(shifts, n_seeds=10, **kwargs):
    """A study's table in which policies end so much above the others, give or take a little."""
    table, rng = study_table(list(shifts), n_seeds=n_seeds, **kwargs), np.random.default_rng(1)
    noise = rng.normal(0, 0.002, size=len(table))
    return table.assign(test_accuracy=0.8 + 0.01 * table.seed + table.policy.map(shifts) + noise)


def answer(table):
    """The only setting's answer, as plain text."""
    (rows,) = comparison.settings_of(table).values()
    return sentences.answer(rows).replace("**", "").replace("`", "")


def test_the_answer_says_what_an_independent_computation_says():
    table = shifted({"no-split": 0, "random": -0.05, "max-loss": 0.03, "min-loss": 0})
    last = table[table.epoch == 5].pivot(index="seed", columns="policy", values="test_accuracy")
    control = last["no-split"]
    low, high = scipy.stats.t.interval(0.95, 9, control.mean(), scipy.stats.sem(control))
    gap = (last.sub(control, axis=0)).mean()
    text = answer(table)
    assert f"{THE_CONTROL} ends at a test accuracy of {control.mean():.4f} [{low:.4f}, {high:.4f}] (n = 10)." in text
    assert f"1 of the 3 others ends below no-split, by {-gap['random']:.4f} of test accuracy: random." in text
    assert f"1 of the 3 others ends above no-split, by {gap['max-loss']:.4f} of test accuracy: max-loss." in text
    assert "No difference to no-split is established for 1 of the 3 others: min-loss." in text
    low, high = scipy.stats.t.interval(0.95, 9, gap["max-loss"], scipy.stats.sem(last["max-loss"] - control))
    assert f"max-loss ends highest of the others, at {last['max-loss'].mean():.4f} [" in text
    assert f"(n = 10): +{gap['max-loss']:.4f} [+{low:.4f}, +{high:.4f}] from no-split at the same seed." in text
    assert "Training the others took 80% of the multiply-adds of no-split" in text  # (3 + 4 + 5 + 6 + 6) / 30
    (rows,) = comparison.settings_of(table).values()
    corrected = "corrected for 3 comparisons with `no-split` and 2 comparisons with `random` (max-T)."
    assert corrected in sentences.definition(rows)


def test_those_that_grow_are_compared_with_random_as_if_there_were_no_control():
    """The same sentences and the same tests; what decides whether a policy of one's own beats `random`."""
    table = shifted({"no-split": 0, "random": -0.05, "mine": -0.03, "min-loss": -0.05, "stay-narrow": -0.2})
    said = answer(table).splitlines()[-1]
    alone = answer(table[~table.policy.isin(CONTROLS)]).splitlines()
    last = table[table.epoch == 5].pivot(index="seed", columns="policy", values="test_accuracy")
    gap = (last["mine"] - last["random"]).mean()
    assert f"1 of the 2 others ends above random, by {gap:.4f} of test accuracy: mine." in said
    assert f": +{gap:.4f} [+0.0" in said and said.endswith("] from random at the same seed.")
    shown = [
        sentence.removeprefix("- ") for sentence in alone if "control" not in sentence and "Training" not in sentence
    ]
    assert said == f"- Among those that grow, {' '.join(shown)}" and len(shown) == 4
    _, grow = comparison.families_of(*comparison.settings_of(table).values())
    low, high = scipy.stats.t.interval(0.95, 9, gap, scipy.stats.sem(last["mine"] - last["random"]))
    assert comparison.compare(grow).loc["mine", ["low", "high"]].tolist() == pytest.approx([low, high])
    assert set(comparison.paired_differences(grow, "test_loss")) == {"mine", "min-loss"}


def test_what_is_said_of_all_is_not_said_again_of_those_that_grow():
    text = answer(shifted({"no-split": 0, "random": -1, "mine": 1}, n_seeds=5))
    assert text.count("With 5 seeds the smallest possible p-value") == 1 and "1.9" in text.splitlines()[-1]


@pytest.mark.parametrize("policies", [["no-split", "random"], ["random", "mine"], ["no-split", "stay-narrow", "mine"]])
def test_without_a_control_or_with_one_that_grows_there_is_one_comparison(policies):
    table = study_table(policies, n_seeds=6)
    (only,) = comparison.families_of(table)
    assert only is table and "Among those that grow" not in answer(table)


def test_the_word_established_is_explained_whatever_was_found():
    """The explanation has the word itself, so that it does not refer to one above it."""
    for shifts in ({"no-split": 0, "random": 1}, {"no-split": 0, "random": 0}):
        (rows,) = comparison.settings_of(shifted(shifts)).values()
        assert sentences.definition(rows).startswith("A difference is established if the p-value of a permutation")
        assert "comparisons" not in sentences.definition(rows)  # there is one


def test_loss_is_better_where_it_is_lower():
    table = shifted({"no-split": 0, "random": -0.05})
    table["test_loss"] = 1 - table.test_accuracy
    assert "random ends above no-split, by 0.0" in sentences.answer(table, "test_loss").replace("**", "").replace(
        "`", ""
    )
    assert comparison.compare(table, "test_loss").verdict["random"] == "worse"
    table = pd.concat([table, shifted({"max-loss": -0.1}).assign(test_loss=lambda rows: 1 - rows.test_accuracy)])
    assert "`random` ends lowest of the others, at 0.2" in sentences.answer(table, "test_loss")


def test_the_only_other_is_not_called_the_highest():
    table = shifted({"no-split": 0, "random": -0.05})
    last = table[table.epoch == 5].pivot(index="seed", columns="policy", values="test_accuracy")
    gap = (last["random"] - last["no-split"]).mean()
    assert "highest" not in answer(table) and f"- random ends at {last['random'].mean():.4f} [0.7" in answer(table)
    assert f"(n = 10): −{-gap:.4f} [−0.0" in answer(table)


def test_few_seeds_establish_nothing_and_the_report_says_so():
    """Seven policies that all end far below the control, at five seeds."""
    text = answer(shifted({policy: -(policy != "no-split") for policy in EIGHT}, n_seeds=5))
    assert "With 5 seeds the smallest possible p-value is 0.062, so no difference can be established." in text
    assert "At least 6 seeds are needed." in text
    assert "below" not in text and "difference found" not in text and "is established" not in text
    text = answer(shifted({policy: -(policy != "no-split") for policy in EIGHT}, n_seeds=6))
    assert "All 7 others end below no-split" in text and "smallest possible" not in text


def test_one_experiment_is_not_compared():
    text = answer(study_table(["random"], n_seeds=1))
    assert re.fullmatch(
        r"- random ends at a test accuracy of 0\.\d{4} \(n = 1\)\. There is nothing to compare it with\.", text
    )


def test_an_interval_of_two_seeds_is_not_clipped_and_its_minus_is_one():
    table = study_table(["random"], n_seeds=2).assign(test_accuracy=lambda rows: 0.1 + 0.8 * rows.seed)
    low, high = scipy.stats.t.interval(0.95, 1, 0.5, 0.4)
    assert answer(table).startswith(f"- random ends at a test accuracy of 0.5000 [−{-low:.4f}, {high:.4f}] (n = 2).")
    table = pd.concat([shifted({"no-split": 0, "random": -0.05}, n_seeds=6)], ignore_index=True)
    (rows,) = comparison.settings_of(table).values()
    assert "of few seeds they can leave the range of a metric" in sentences.definition(rows)


@pytest.mark.parametrize(
    "policies, baseline",
    [
        (["max-loss", "random"], "random"), (["max-loss", "mine"], "max-loss"),
        (["random", "stay-narrow"], "stay-narrow"),
        (["stay-narrow", "no-split"], "no-split"), (["mine", "no-split", "random"], "no-split"),
    ],
)  # fmt: skip
def test_what_the_others_are_compared_with(policies, baseline):
    text = answer(study_table(policies, n_seeds=6))
    assert comparison.baseline_of(study_table(policies)) == baseline
    assert (f"no control here: the others are compared with {baseline}" in text) == (baseline not in CONTROLS)
    assert (f"{baseline}, the control with the f" in text) == (baseline in CONTROLS)
    assert f"of the multiply-adds of {baseline}" in text


def test_settings_are_compared_within_and_never_across():
    slow, fast = shifted({"no-split": 0, "random": -0.05}), shifted({"no-split": 1, "random": 0.95})
    table = pd.concat([slow.assign(learning_rate=0.01), fast.assign(learning_rate=0.1)], ignore_index=True)
    settings = comparison.settings_of(table)
    assert list(settings) == ["learning rate 0.01", "learning rate 0.1"]
    for rows, alone in zip(settings.values(), (slow, fast)):
        assert sentences.answer(rows) == sentences.answer(alone)
        assert comparison.baseline_of(rows) == "no-split"
    single = table[table.policy == "random"]
    (rows,) = comparison.settings_of(single).values()
    assert comparison.baseline_of(rows) is None and comparison.compare(rows).n.eq(0).all()
    assert sentences.answer(rows) == "- Every setting has one experiment only, so none is compared with another."
    assert comparison.paired_differences(rows, "test_loss").empty


def test_experiments_that_each_have_settings_of_their_own_are_compared():
    """As after `neuronsplit tune`; the number of epochs is not tuned, and still makes a setting."""
    plain = shifted({"no-split": 0, "random": -0.05, "max-loss": 0.03})
    rates = plain.policy.map({"no-split": 0.1, "random": 0.2, "max-loss": 0.1})
    tuned = plain.assign(learning_rate=rates, dropout=(plain.policy == "max-loss") * 0.1)
    (rows,) = comparison.settings_of(tuned).values()
    assert sentences.answer(rows) == sentences.answer(plain)
    assert "differ in policy, learning rate and dropout" in study_sentences.overview(tuned)
    shorter = tuned[(tuned.policy == "no-split") & (tuned.epoch < 5)].assign(epochs=4, learning_rate=0.3)
    both = comparison.settings_of(pd.concat([tuned.assign(epochs=5), shorter], ignore_index=True))
    assert list(both) == ["epochs 5", "epochs 4"] and sentences.answer(both["epochs 5"]) == sentences.answer(plain)


def test_differences_can_be_those_at_the_epoch_that_validation_picks():
    table = shifted({"no-split": 0, "random": -0.05, "max-loss": 0.03})
    last = table[table.epoch == 5]
    table.loc[table.epoch == 2, "val_loss"] = -1.0
    table.loc[table.epoch == 2, "test_accuracy"] += 1 * (table.policy == "random")
    found = comparison.paired_differences(table, "test_accuracy", tables.at_best_validation)
    assert found["random"].between(0.9, 1).all() and found["max-loss"].between(0, 0.06).all()
    at_the_end = comparison.paired_differences(table, "test_accuracy")
    by_seed = last.pivot(index="seed", columns="policy", values="test_accuracy")
    assert at_the_end["random"].tolist() == pytest.approx((by_seed["random"] - by_seed["no-split"]).tolist())


def test_growths_and_schedules_are_experiments_of_one_setting():
    parts = [
        study_table(["random"], growth=g, schedule=s) for g in ("even", "gradmax") for s in ("plateau", "all-at-1")
    ]
    table = pd.concat([study_table(["no-split"]), *parts], ignore_index=True)
    (rows,) = comparison.settings_of(table).values()
    labels = ["even · plateau", "even · all-at-1", "gradmax · plateau", "gradmax · all-at-1"]
    assert list(comparison.compare(rows).index) == ["no-split", *labels]
    assert (
        "5 experiments on `digits`, 3 seeds each, 5 epochs. Experiments differ in policy, growth and schedule."
        in study_sentences.overview(table)
    )


def test_a_control_of_two_growths_is_one_experiment():
    """As in a grid of policies and growths."""
    parts = [study_table(["no-split", "random"], growth=growth) for growth in ("even", "gradmax")]
    table = pd.concat(parts, ignore_index=True)
    (rows,) = comparison.settings_of(table).values()
    assert list(comparison.compare(rows).index) == ["no-split", "even", "gradmax"]
    assert study_sentences.overview(table).startswith(
        "3 experiments on `digits`, 3 seeds each, 5 epochs. Experiments differ in policy and"
    )


def test_an_experiment_has_the_same_name_in_every_setting():
    """Though the growth varies in one of them only."""
    slow = pd.concat([study_table(["no-split"]), study_table(["random"]), study_table(["random"], growth="even")])
    fast = pd.concat([study_table(["no-split"]), study_table(["random"], growth="gradmax")])
    table = pd.concat([slow.assign(width=3), fast.assign(width=4)], ignore_index=True)
    found = {name: list(rows.policy.unique()) for name, rows in comparison.settings_of(table).items()}
    assert found == {"width 3": ["no-split", "scaled", "even"], "width 4": ["no-split", "gradmax"]}


def test_seeds_that_are_not_shared_are_no_pairs():
    table = study_table(["no-split", "random", "max-loss", "min-loss"], n_seeds=10)
    table.loc[table.policy == "random", "seed"] += 100
    table.loc[table.policy == "max-loss", "seed"] += 9
    text = answer(table)
    assert "random has no seeds in common with no-split." in text
    assert "max-loss has one seed in common with no-split, too few for a test." in text
    compared = comparison.compare(table)
    assert compared.n.tolist() == [0, 0, 1, 10] and compared.seeds.tolist() == [10] * 4
    assert set(comparison.paired_differences(table, "test_loss")) == {"max-loss", "min-loss"}


def test_seeds_that_diverged_are_counted_and_left_out():
    table = shifted({"no-split": 0, "random": -0.05, "max-loss": 0})
    late = table.epoch > 2
    table.loc[late & (table.policy == "random") & (table.seed < 2), "test_loss"] = np.inf
    table.loc[table.policy == "max-loss", "test_loss"] = np.nan
    text = answer(table)
    assert "2 of 10 seeds of random diverged and are left out." in text
    assert "All 10 seeds of max-loss diverged and are left out." in text
    assert "1 of the 2 others ends below no-split" in text and "max-loss has" not in text
    left = comparison.without_diverged(table)
    assert left.groupby("policy").seed.nunique().to_dict() == {"no-split": 10, "random": 8}
    assert "(n = 10)" in text and comparison.compare(table).n.tolist() == [0, 8, 0]
    table.loc[table.policy == "no-split", "test_loss"] = np.nan
    assert f"{THE_CONTROL} has no final test accuracy, so nothing can be compared with it." in answer(table)
    assert "below" not in answer(table) and "seeds in common" not in answer(table)


def test_experiments_of_different_lengths_count_at_their_own_ends():
    table = pd.concat([study_table(["no-split"]), study_table(["random"], epochs=8)], ignore_index=True)
    assert "Experiments end after 5 to 8 epochs; each counts at its own end." in answer(table)
    assert "5 to 8 epochs." in study_sentences.overview(table) and "own end" not in answer(
        study_table(["no-split", "random"])
    )


def test_greedy_is_said_to_cost_more_than_is_counted():
    assert "greedy also trained every possible split" in answer(study_table(["no-split", "greedy"]))
    assert "greedy" not in answer(study_table(["no-split", "random"]))


def test_a_table_of_ones_own_needs_few_columns_and_no_order():
    table = study_table(["no-split", "random"], n_seeds=6)
    own = table[comparison.REQUIRED].sample(frac=1, random_state=0)
    (rows,) = comparison.settings_of(own).values()
    expected = comparison.compare(table).drop(columns="cost")
    pd.testing.assert_frame_equal(comparison.compare(rows).drop(columns="cost").loc[expected.index], expected)
    assert comparison.compare(rows).cost.isna().all() and "multiply-adds" not in sentences.answer(rows)
    costs = comparison.compare(*comparison.settings_of(table.sample(frac=1, random_state=0)).values()).cost
    assert costs.tolist() == pytest.approx([1, 0.8])


@pytest.mark.parametrize(
    "table, message",
    [
        (
            study_table(["random"]).drop(columns=["seed", "test_loss"]),
            r"columns seed, test_loss are missing\): allowed are",
        ),
        (study_table(["random"]).head(0), r"it has no rows\): allowed are tables with policy"),
        (
            pd.concat([study_table(["random"])] * 2),
            r"experiment 'random' has seed 0, epoch 1 twice: allowed is a row for",
        ),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        comparison.settings_of(table)


def test_names_are_code_in_sentences():
    assert wording.code("a `b`\n\n<i>") == "`a 'b' <i>`"
    assert wording.join("ab") == "a and b" and wording.join(["a"]) == "a"
    assert wording.join("abcdefgh") == "a, b, c, d, e, f and 2 more"
    assert wording.count([1, 1], "seed") == "1 seed" and wording.count([1, 3], "seed") == "1 to 3 seeds"


def test_provenance_is_short_and_what_is_unfinished_is_said(tmp_path):
    made_by = {
        "study": "mine",
        "extensions": "my/own.py",
        "commit": "abc",
        "versions": {"torch": "2.13"},
        "unfinished": ["x: failed: E: no", "<b>: missing"],
    }
    write_table(study_table(["random"]), tmp_path / "table.parquet", made_by)
    said = ["What produced `table.parquet`:", "", "- study: `mine`", "- extensions: `my/own.py`", "- commit: `abc`"]
    said += ["- versions: `torch 2.13`"]
    assert study_sentences.origin(tmp_path / "table.parquet").splitlines() == said
    assert study_sentences.origin(tmp_path).splitlines()[1:] == said[1:]
    said = ["**Not finished**: 2 experiments. The table has what they trained.", "", "- `x: failed: E: no`"]
    assert study_sentences.unfinished(tmp_path).splitlines() == [*said, "- `<b>: missing`"]
    study_table(["random"]).to_csv(tmp_path / "mine.csv")
    no_provenance = "`mine.csv` has no provenance: nothing in it says what produced it."
    assert study_sentences.origin(tmp_path / "mine.csv") == no_provenance
    assert study_sentences.unfinished(tmp_path / "mine.csv") == ""


def summarised(table):
    gains, variances = oracle.gains(table, {}), oracle.variances(table)
    gains["setting"], variances["setting"] = oracle.setting_labels(gains), oracle.setting_labels(variances)
    return split_sentences.summary(gains, variances)


def with_choice(effect, n_seeds, widths=(4,)):
    """A table of all splits, where neuron 0 ends lower than the others by `effect`, under noise that all share."""
    table = all_splits_table(widths=widths, seeds=range(n_seeds))
    rng = np.random.default_rng(3)
    table["loss_shuffle_0"], table["loss_shuffle_1"] = rng.normal(0, 0.0001, size=(2, len(table)))
    best = (table.branch_type == NEURON) & (table.neuron == 0)
    common = table.seed.map(dict(enumerate(rng.normal(0, 0.05, n_seeds))))
    return table.assign(
        loss_shuffle_0=table.loss_shuffle_0 - effect * best + common,
        loss_shuffle_1=table.loss_shuffle_1 - effect * best,
    )


def test_what_the_best_split_gains_is_said_as_computed_by_hand():
    table = with_choice(0.4, n_seeds=8)
    last = table[(table.horizon == 10) & (table.branch_type == NEURON)]
    gains, sds = [], []
    for _, rows in last.groupby("seed"):
        a, b = rows[SHUFFLE_LOSSES].to_numpy().T
        gains.append((b.mean() - b[a.argmin()] + a.mean() - a[b.argmin()]) / 2)
        sds.append((a - b).mean() ** 2 / 2 - np.var(a - b, ddof=1) / 8)
    low, high = scipy.stats.t.interval(0.95, 7, np.mean(gains), scipy.stats.sem(gains))
    (row,) = (row for _, row in summarised(table).iterrows())
    text = split_sentences.answer(row).replace("**", "")
    said = f"The best of 4 splits gains +{np.mean(gains):.4f} [+{low:.4f}, +{high:.4f}] of validation loss"
    assert f"{said} against a random one, 10 epochs later (n = 8)." in text
    assert "The choice matters: the gain is established (p = 0.0078)." in text
    assert f"a standard deviation of {np.mean(sds) ** 0.5:.4f}: the gain beats this noise." in text
    assert "n = 8" in text and split_sentences.overall(summarised(table)) == ""


def test_few_networks_establish_no_gain_however_large():
    (row,) = (row for _, row in summarised(with_choice(0.4, n_seeds=5)).iterrows())
    text = split_sentences.answer(row).replace("**", "")
    assert "With 5 networks the smallest possible p-value is 0.062, so no gain can be established." in text
    (row,) = (row for _, row in summarised(with_choice(0.4, n_seeds=1)).iterrows())
    assert "There is one network, too few for a test." in split_sentences.answer(row)
    (row,) = (row for _, row in summarised(with_choice(0.001, n_seeds=8)).iterrows())
    assert "the gain is smaller than this noise" in split_sentences.answer(row)


def test_settings_of_all_splits_are_counted_and_corrected_for():
    found = summarised(with_choice(0.4, n_seeds=8, widths=(1, 4, 7)))
    text = split_sentences.overall(found).replace("**", "")
    assert "In 2 of 3 settings the gain of the best split is established." in text
    assert "It beats the noise of the mini-batches in 2, and is smaller than the noise in 0." in text
    assert found.p_adjusted.tolist() == pytest.approx([1, 2 / 2**8, 2 / 2**8])
    assert (
        split_sentences.answer(found.iloc[0])
        == "- A network of one neuron has one split only: there is nothing to choose."
    )
    assert split_sentences.texts_of(found).established.tolist() == ["no", "yes", "yes"]


def test_networks_that_diverged_are_left_out_of_all_splits():
    table = all_splits_table()
    broken = (table.seed == 1) & (table.width == 4) & (table.horizon == 1) & (table.neuron == 2)
    table.loc[broken, "loss_shuffle_1"] = np.inf
    left = oracle.without_diverged(table)
    assert set(map(tuple, left[["width", "seed"]].to_numpy())) == {(4, 0), (7, 0), (7, 1)}
    assert split_sentences.left_out(table) == "1 of 4 networks diverged and are left out."
    assert split_sentences.left_out(left) == ""


def test_neurons_gain_what_they_end_below_the_mean_split():
    table = all_splits_table()
    found = oracle.neuron_gains(table)
    one = found[(found.width == 7) & (found.seed == 1) & (found.horizon == 10)]
    for i in (0, 1):
        losses = one[f"loss_shuffle_{i}"].tolist()
        assert one[f"gain_shuffle_{i}"].tolist() == pytest.approx([sum(losses) / 7 - loss for loss in losses])


def test_two_others_are_both_others():
    table = shifted({"no-split": 0, "one": -0.3, "two": -0.4})
    assert "Both others end below `no-split`" in sentences.answer(table).replace("*", "")


def test_a_report_says_where_most_networks_still_improved():
    table = study_table(["no-split", "random"], n_seeds=5)
    last = table.epoch == table.epoch.max()
    improving = table.assign(val_loss=1 / (1 + table.epoch))
    assert sentences.still_learning(improving).startswith(
        "- In 10 of 10 networks the validation loss is lowest at the end"
    )
    some = improving.assign(val_loss=improving.val_loss.where(~last | (table.policy == "random"), 9))
    assert sentences.still_learning(some) == sentences.still_learning(table.drop(columns="val_loss")) == ""
    assert "In 6 of 10" in sentences.still_learning(
        some.assign(val_loss=some.val_loss.where(~last | (table.seed > 0), 0.0))
    )


def run(file, tmp_path, **parameters):
    """Run the report by papermill; return its headings, all its text, and its number of figures."""
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(str(NOTEBOOK), str(out), {"table": str(file), **parameters}, progress_bar=False)
    outputs = [o for cell in nbformat.read(out, as_version=4).cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    shown = [o.data for o in outputs if "data" in o]
    text = "\n".join(data["text/markdown"] for data in shown if "text/markdown" in data)
    return re.findall("^## (.*)", text, re.M), text, sum("image/png" in data for data in shown)


@pytest.mark.long
def test_the_report_of_awkward_names_and_settings(tmp_path):
    names = ["no-split", "<script>", "None", "a|b`c`", r"$\foo$ _y_", "_hidden", "né{run} ü"]
    table = pd.concat(
        [study_table(names).assign(learning_rate=rate, width=3) for rate in (0.1, 0.01)], ignore_index=True
    )
    write_table(table, tmp_path / "t.parquet", {"study": "mine"})
    (tmp_path / "figures").mkdir()
    found, text, n_figures = run(tmp_path / "t.parquet", tmp_path, title="a {title}", figures=f"{tmp_path}/figures/")
    sections = ["At the same seed", "While training", "At the end"]
    sections += ["What it costs", "Family trees"]
    assert found == ["`a {title}`", *sections]
    assert text.count("### `learning rate 0.1`") == text.count("### `learning rate 0.01`") == 9
    saved = {file.name for file in (tmp_path / "figures").iterdir()}
    assert len(saved) == n_figures == 22 and "cost-learning-rate-0.1.png" in saved


@pytest.mark.long
def test_all_numbers_have_the_differences_to_the_control_and_to_random_in_both_metrics(tmp_path):
    write_table(shifted({"no-split": 0, "random": -0.05, "mine": 0.03}, epochs=2), tmp_path / "t.parquet", {})
    _, text, _ = run(tmp_path / "t.parquet", tmp_path)
    assert "Among those that grow, `random` ends at a test accuracy of" in text
    for baseline in ("no-split", "random"):
        found = re.findall(rf"^Differences to `{baseline}` in (.*):$", text, re.M)
        assert [what.split(",")[0] for what in found] == ["test accuracy", "test loss", "test loss"]
    page = (tmp_path / "out.ipynb").read_text()
    for word in ("interquartile mean", "*Better in*", "A tie counts half", "p (max-T) gives", "*Detectable*"):
        assert word in page
    tests = stats.paired_tests(pd.DataFrame({"mine": [1.0, 0, -1, -1]}), "test_accuracy")
    assert tests.prob_improvement["mine"] == (1 + 1 / 2) / 4


@pytest.mark.long
def test_the_figures_of_a_report_show_the_control_and_those_that_end_best(tmp_path):
    """A figure of hundreds of lines takes long, and says nothing."""
    shifts = {"no-split": 0.1, **{f"mine-{n}": n / 100 for n in range(60)}}
    write_table(shifted(shifts, n_seeds=2, epochs=2), tmp_path / "t.parquet", {})
    _, text, n_figures = run(tmp_path / "t.parquet", tmp_path)
    assert "Figures show the 40 experiments of the highest final test accuracy, and `no-split` and `mine-0`." in text
    assert text.startswith("## `t.parquet`\n\n61 experiments") and n_figures == 10
    drawn = [o.metadata["image/png"]["alt"] for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
             for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]  # fmt: skip
    for alt in drawn[:8]:  # differences, curves and final values
        assert "mine-59" in alt and "mine-20" in alt and "mine-19" not in alt


@pytest.mark.long
def test_the_report_of_a_csv_of_one_experiment_and_one_seed(tmp_path):
    study_table(["random"], n_seeds=1)[comparison.REQUIRED].to_csv(tmp_path / "mine.csv")
    found, text, n_figures = run(tmp_path / "mine.csv", tmp_path)
    assert found == ["`mine.csv`", "While training", "At the end"]
    assert "has no provenance" in text and "established" not in text.lower() and n_figures == 5


@pytest.mark.long
def test_the_report_of_a_study_that_diverged(tmp_path):
    write_table(study_table(["no-split", "random"]).assign(test_loss=np.inf), tmp_path / "t.parquet", {})
    found, text, n_figures = run(tmp_path / "t.parquet", tmp_path)
    assert found == ["`t.parquet`"] and n_figures == 0 and text.count("All 3 seeds of") == 2
