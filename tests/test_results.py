"""The files of a study's folder are put together: each seed once, of one version, without what else is in it."""

import os
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import study_table

from neuronsplit.analysis import tables
from neuronsplit.analysis.files import provenance, read_results, read_table, write_table
from neuronsplit.names import EXPERIMENT, RESULTS_VERSION


def unit(file, policies, seeds=(0, 1, 2), finished="2026-01-01", version=RESULTS_VERSION, **fields):
    """Write the file of some experiments, whose id is their policy, and return its table."""
    table = study_table(policies, n_seeds=max(seeds) + 1).assign(**{"learning_rate": 0.05} | fields)
    table = table[table["seed"].isin(seeds)].astype({"test_loss": "float32"})
    table = table.assign(**{EXPERIMENT: fields.get("id", table["policy"])}).drop(columns="id", errors="ignore")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, file, {"results": version, "finished": finished})
    return table.drop(columns=EXPERIMENT)


@pytest.fixture(params=["folder", "zip"])
def packed(request):
    """A function that turns a folder into what is read: the folder, or a .zip of it."""

    def pack(folder):
        if request.param == "folder":
            return folder
        return shutil.make_archive(folder.parent / "packed", "zip", folder.parent, folder.name)

    return pack


def test_a_folder_is_one_table(packed, tmp_path):
    """Controls come first, then what was trained, in the order of names; of an experiment, epoch by epoch."""
    later = unit(tmp_path / "s" / "units" / "b.parquet", ["random", "stay-narrow"])
    first = unit(tmp_path / "s" / "units" / "a.parquet", ["max-loss", "no-split"])
    write_table(first, tmp_path / "s" / "table.parquet", {"study": "s"})
    found = read_table(packed(tmp_path / "s"))
    assert list(found["policy"].unique()) == ["no-split", "stay-narrow", "max-loss", "random"]
    assert found["epoch"].head(4).tolist() == [1, 1, 1, 2] and found["seed"].head(4).tolist() == [0, 1, 2, 0]
    expected = pd.concat([first, later]).sort_values(["policy", "epoch", "seed"]).set_index("policy")
    found = found.sort_values(["policy", "epoch", "seed"]).set_index("policy")
    assert found["test_loss"].tolist() == [float(str(x)) for x in expected["test_loss"].to_numpy()]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)


@pytest.mark.long
@settings(max_examples=50)
@given(st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_whatever_holds_the_seeds_the_table_is_the_same(tmp_path_factory, parts, random):
    """Every seed has the same rows in all files, which are trained in any order and have any names."""
    folder = tmp_path_factory.mktemp("merged")
    for n, seeds in enumerate(parts):
        unit(folder / f"{random.random()}" / f"{n}.parquet", ["random"], seeds, finished=str(random.random()))
    seeds = set.union(*parts)
    (found,), problems = read_results(folder)[0].values(), read_results(folder)[1]
    whole = unit(folder / "whole.parquet", ["random"], seeds)
    assert problems == [] and list(found["seed"].unique()) == sorted(seeds)
    pd.testing.assert_frame_equal(found, whole.reset_index(drop=True), check_exact=True)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["._a.parquet", ".a.parquet.0123abcd.part", "Thumbs.db", "desktop.ini", ".DS_Store"])
@pytest.mark.parametrize("place", ["s", "s/units", "s/__MACOSX/s/units", "s/.ipynb_checkpoints"])
def test_litter_is_ignored(place, name, packed, tmp_path):
    unit(tmp_path / "s" / "units" / "a.parquet", ["random"])
    expected = read_table(tmp_path / "s")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / name).write_bytes(os.urandom(82))
    if place.startswith("s/_") or place.startswith("s/."):
        (tmp_path / place / "a.parquet").write_bytes(os.urandom(82))
    assert read_table(packed(tmp_path / "s")).equals(expected)


def test_names_in_an_archive_made_elsewhere(tmp_path):
    """Of Windows, with backslashes; with a path that leads out of the folder; in capitals."""
    unit(tmp_path / "a.parquet", ["random"])
    data = (tmp_path / "a.parquet").read_bytes()
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("s\\units\\a.parquet", data)
        archive.writestr("../../outside.parquet", data)
        archive.writestr("s/GRÖSSE.PARQUET", data)
        archive.writestr("s\\.hidden\\b.parquet", b"")
    before = set(tmp_path.parent.rglob("*"))
    tables_by_id, problems = read_results(tmp_path / "s.zip")
    assert list(tables_by_id) == ["random"] and len(tables_by_id["random"]) == 15
    assert problems == []
    assert set(tmp_path.parent.rglob("*")) == before


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def foreign(file):
    study_table(["random"]).to_parquet(file)


def older(file):
    unit(file, ["random"], version=RESULTS_VERSION - 1)


def without_seeds(file):
    write_table(pd.DataFrame({"policy": ["random"]}), file, {"results": RESULTS_VERSION})


@pytest.mark.parametrize(
    "spoil, message",
    [
        (cut, "b.parquet is damaged (wrong checksum)"),
        (foreign, "b.parquet is left out (of another program): allowed are files of experiments"),
        (older, f"b.parquet is left out (results version {RESULTS_VERSION - 1}): allowed is version {RESULTS_VERSION}"),
        (without_seeds, "b.parquet is left out (no experiment or seed): allowed are files of experiments"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_alone(spoil, message, packed, tmp_path):
    for name in ("a", "b"):
        unit(tmp_path / "s" / f"{name}.parquet", ["random" if name == "a" else "max-loss"])
    bad = tmp_path / "s" / "b.parquet"
    spoil(bad)
    data, place = bad.read_bytes(), packed(tmp_path / "s")
    found, (problem,) = read_results(place)
    assert list(found) == ["random"] and problem.endswith(f"/{message}") and problem.startswith(str(place))
    assert bad.read_bytes() == data
    with pytest.raises(ValueError, match="b.parquet is"):
        read_table(place)


def test_what_was_trained_last_counts(tmp_path):
    """Of one experiment, the later rows; of two that differ in the user's code only, the later experiment."""
    unit(tmp_path / "a.parquet", ["random"], finished="2026-01-02", train_loss=2.0)
    unit(tmp_path / "b.parquet", ["random"], seeds=(1, 2, 3), finished="2026-01-01", train_loss=1.0)
    found = read_results(tmp_path)[0]["random"]
    assert found.groupby("seed")["train_loss"].first().tolist() == [2, 2, 2, 1]
    unit(tmp_path / "c.parquet", ["random"], seeds=(0,), finished="2026-01-03", train_loss=3.0, id="changed")
    assert list(read_results(tmp_path)[0]) == ["changed", "random"]
    assert read_table(tmp_path)["train_loss"].unique().tolist() == [3]


def test_a_control_is_one_whatever_growth_it_was_given(tmp_path):
    unit(tmp_path / "a.parquet", ["no-split", "random"], seeds=(0, 1), growth="scaled")
    unit(tmp_path / "b.parquet", ["no-split"], seeds=(2,), growth="even", finished="2026-01-02")
    found = read_table(tmp_path)
    assert found.groupby("policy")["seed"].unique().map(list).to_dict() == {"no-split": [0, 1, 2], "random": [0, 1]}
    assert tables.final_values(tables.with_labels(found), "test_loss").notna().sum().tolist() == [3, 2]
    unit(tmp_path / "c.parquet", ["no-split"], seeds=(0,), growth="outgoing", finished="2026-01-03", id="changed")
    assert read_table(tmp_path).groupby("policy")["seed"].unique().map(list)["no-split"] == [0]


def test_learning_rates_that_differ_in_the_last_digits_are_two(tmp_path):
    rates = [0.05, 0.05000001, np.nextafter(0.05, 1)]
    for n, rate in enumerate(rates):
        unit(tmp_path / f"{n}.parquet", ["random"], learning_rate=rate, id=str(n))
    found = read_table(tmp_path)
    assert sorted(found["learning_rate"].unique()) == sorted(rates) and len(found) == 45
    assert len(tables.by_setting(found)) == 3 and tables.with_labels(found)["policy"].nunique() == 3


@pytest.mark.parametrize(
    "name, message",
    [
        ("empty", "empty holds no results: allowed are folders of a study that has run"),
        ("none", "none does not exist: allowed are files of tables"),
        ("none.zip", "none.zip does not exist: allowed are folders of a study, and .zip files of them"),
        ("text.zip", r"text.zip is damaged \(File is not a zip file\)"),
    ],
)
def test_what_holds_no_results_is_named(name, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("text")
    kind = FileNotFoundError if name.startswith("none") else ValueError
    with pytest.raises(kind, match=f"{message}$"):
        read_table(tmp_path / name)


def test_a_cut_archive_is_named(tmp_path):
    unit(tmp_path / "s" / "a.parquet", ["random"])
    file = tmp_path / "s.zip"
    shutil.make_archive(tmp_path / "s", "zip", tmp_path / "s")
    data = file.read_bytes()
    for length in range(0, len(data), 7):
        file.write_bytes(data[:length])
        with pytest.raises(ValueError, match="s.zip is damaged"):
            read_table(file)
    damaged = bytearray(data)
    damaged[200] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"s.zip/a.parquet is damaged \(Bad CRC-32|s.zip/a.parquet is damaged \(Error"):
        read_table(file)


def test_an_archive_has_no_provenance_of_its_own(tmp_path):
    shutil.make_archive(tmp_path / "s", "zip", tmp_path)
    with pytest.raises(ValueError, match="s.zip is no table: allowed are .parquet, .csv and .csv.gz files"):
        provenance(tmp_path / "s.zip")
