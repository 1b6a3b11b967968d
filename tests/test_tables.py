"""Tables are read, labelled and reduced to their last epoch, and family trees are read from them."""

import gzip
import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from synthetic import final_table, study_table

from neuronsplit.analysis import tables
from neuronsplit.names import NO_SPLIT

POLICIES = ["no-split", "stay-narrow", "random", "max-loss", "min-fire"]


def save(table, file, **metadata):
    """Write a table and its JSON file."""
    text = table.to_csv(index=False).encode()
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    metadata |= {"sha256": hashlib.sha256(text).hexdigest()}
    tables.metadata_file(file).write_text(json.dumps(metadata), encoding="utf-8")


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_saved_table_comes_back(name, tmp_path):
    table = study_table(POLICIES)
    save(table, tmp_path / name, machine="a – b")
    found, metadata = tables.read_table(tmp_path / name)
    pd.testing.assert_frame_equal(found, table, check_dtype=False)
    assert found["split_neuron"].dtype == "string" and metadata["machine"] == "a – b"
    assert tables.read_table(str(tmp_path / name))[0].equals(found)


def test_the_metadata_stand_beside_a_table(tmp_path):
    for name in ("table.csv", "table.csv.gz"):
        assert tables.metadata_file(tmp_path / name) == tmp_path / "table.json"


@pytest.mark.parametrize("name", ["None", "NA", "nan", "null", "1", "0.5", "true", ""])
def test_text_comes_back_as_text(name, tmp_path):
    """Also where every row holds what pandas takes for a missing value or a number."""
    table = study_table([NO_SPLIT, name] if name == "1" else [name], growth=name, schedule=name)
    save(table.assign(dataset=name, optimizer=name), tmp_path / "table.csv")
    found, _ = tables.read_table(tmp_path / "table.csv")
    assert found["policy"].tolist() == table["policy"].tolist()
    for column in ("growth", "schedule", "dataset", "optimizer"):
        assert set(found[column]) == {name}


def test_what_is_missing_in_other_columns_is_missing(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("policy,seed,split_neuron,test_loss\nrandom,0,3 5,inf\nrandom,1,,nan\nrandom,2,4,\n")
    found, _ = tables.read_table(file)
    assert found["test_loss"].isna().tolist() == [False, True, True] and np.isinf(found["test_loss"][0])
    assert found["split_neuron"].isna().tolist() == [False, True, False] and found["split_neuron"][2] == "4"


def test_a_table_without_metadata_is_read(tmp_path):
    table = study_table(POLICIES)
    table.to_csv(tmp_path / "mine.csv", index=False)
    found, metadata = tables.read_table(tmp_path / "mine.csv")
    pd.testing.assert_frame_equal(found, table, check_dtype=False)
    assert metadata == {}
    with pytest.raises(ValueError, match="mine.json is damaged"):  # a study must know that its table is complete
        tables.read_verified(tmp_path / "mine.csv")


def test_a_table_of_version_0_1_is_refused(tmp_path):
    file = tmp_path / "old.csv"
    file.write_text("policy,rule,still\nrandom,even,5\n")
    with pytest.raises(ValueError, match="old.csv is of version 0.1: figures/rename_tables.py shows how to rename"):
        tables.read_table(file)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv does not exist: make run and make publish make such tables"):
        tables.read_table(tmp_path / "none.csv")


def cut_json(file):
    tables.metadata_file(file).write_text("{")


def no_checksum(file):
    tables.metadata_file(file).write_text("{}")


def cut_table(file):
    file.write_bytes(file.read_bytes()[:-9])


def other_table(file):
    file.write_bytes(gzip.compress(b"a"))


def empty_file(file):
    tables.metadata_file(file).unlink()
    file.write_bytes(gzip.compress(b""))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (cut_json, r"table.json is damaged"),
        (no_checksum, r"table.json is damaged \('sha256'\)"),
        (cut_table, r"table.csv.gz is damaged"),
        (other_table, r"table.csv.gz is damaged \(wrong checksum\)"),
        (empty_file, r"table.csv.gz is damaged"),
    ],
)
def test_damage_is_refused(spoil, message, tmp_path):
    file = tmp_path / "table.csv.gz"
    save(study_table(POLICIES), file)
    spoil(file)
    with pytest.raises(ValueError, match=message):
        tables.read_table(file)


def test_experiments_are_labelled_by_what_tells_them_apart():
    rows = [("no-split", "scaled", "sgd"), ("random", "scaled", "sgd"), ("random", "zero-outgoing", "sgd")]
    table = pd.DataFrame(rows, columns=["policy", "growth", "optimizer"]).assign(schedule="every-epoch")
    assert tables.with_labels(table).policy.tolist() == ["no-split", "scaled", "zero-outgoing"]
    both = pd.concat([table, table.assign(optimizer="adam")], ignore_index=True)
    assert tables.with_labels(both).policy.tolist() == [
        "no-split · sgd", "scaled · sgd", "zero-outgoing · sgd",
        "no-split · adam", "scaled · adam", "zero-outgoing · adam",
    ]  # fmt: skip
    policies = pd.DataFrame({"policy": ["no-split", "random", "max-loss"], "growth": "scaled", "schedule": "plateau"})
    assert tables.with_labels(policies).policy.tolist() == ["no-split", "random", "max-loss"]
    assert tables.with_labels(policies.assign(width=[10, 10, 20])).policy.tolist() == [
        "no-split · width 10", "random · width 10", "max-loss · width 20"
    ]  # fmt: skip


def test_settings_are_told_apart_by_all_but_how_networks_grow():
    table = pd.concat([study_table(POLICIES).assign(learning_rate=rate, width=3) for rate in (0.1, 0.01)])
    parts = tables.by_setting(table)
    assert list(parts) == ["learning rate 0.1", "learning rate 0.01"]
    assert all(set(part.policy) == set(POLICIES) for part in parts.values())
    assert list(tables.by_setting(study_table(POLICIES))) == [""]


def test_paired_differences_are_taken_within_a_seed():
    table = final_table({"no-split": [1.0, 2, 4], "random": [1.5, 2, 3], "max-loss": [0, 0, 0]})
    paired = tables.paired_differences(table, "test_loss", "no-split")
    assert list(paired) == ["random", "max-loss"]
    assert paired["random"].tolist() == [0.5, 0, -1]
    assert paired["max-loss"].tolist() == [-1, -2, -4]


def test_diverged_seeds_are_counted_and_left_out_of_the_means():
    table = final_table({"no-split": [1.0, 3, np.nan], "random": [np.inf, np.nan, np.nan]})
    found = tables.summary(table, "test_accuracy")
    assert found["diverged"].tolist() == [1, 3] == tables.n_diverged(table).tolist()
    assert found["n"].tolist()[0] == 2
    assert found.loc["no-split", ["mean", "min", "max"]].tolist() == [2, 1, 3]
    assert np.isnan(found.loc["random", "mean"])


def test_lineage_by_hand():
    """Of 3 neurons: 1 splits (twin 3), 3 splits (twin 4), 0 splits (twin 5)."""
    rows = pd.DataFrame({"epoch": [1, 2, 3, 4], "hidden": [4, 5, 6, 6], "split_neuron": ["1", "3", "0", None]})
    tree = tables.lineage(rows.sample(frac=1, random_state=0))
    assert tree.founder.tolist() == [0, 1, 2, 1, 1, 0]
    assert tree.parent.tolist() == [0, 1, 2, 1, 3, 0]
    assert tree.born.tolist() == [0, 0, 0, 1, 2, 3]


def test_lineage_of_several_splits_per_epoch_and_of_new_neurons():
    """Of 2 neurons: 1 splits (twin 2), then its twin (3); a new one comes (4), which splits (5)."""
    rows = pd.DataFrame({"epoch": [1, 2, 3], "hidden": [4, 6, 6], "split_neuron": ["1 2", "new 4", None]})
    tree = tables.lineage(rows)
    assert tree.founder.tolist() == [0, 1, 1, 1, 4, 4]
    assert tree.parent.tolist() == [0, 1, 1, 2, 4, 4]
    assert tree.born.tolist() == [0, 0, 1, 1, 2, 2]


def test_every_neuron_has_a_lineage():
    for (policy, _), rows in study_table(POLICIES, splits=5, epochs=6).groupby(["policy", "seed"]):
        tree = tables.lineage(rows)
        assert len(tree) == (3 if policy == "stay-narrow" else 8)
        assert (tree.founder == tree.index).sum() == (8 if policy == "no-split" else 3)
        for neuron, row in tree[tree.born > 0].iterrows():
            assert row.parent < neuron and tree.founder[row.parent] == row.founder
