"""Tables are written as Parquet and read from it and from CSV: whole, typed, and refused where they are damaged."""

import csv
import gzip
import json
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import study_table

from neuronsplit.analysis import tables
from neuronsplit.analysis.files import provenance, read_table, write_table
from neuronsplit.plots.families import family_trees

NAMES = ["None", "NA", "nan", "null", "1", "0.5", "true", "", "größe", "a,b", 'a"b']
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(NAMES)
ROWS = st.tuples(
    TEXT, st.integers(0, 2**32), st.floats(), st.floats(width=32), st.none() | st.sampled_from(["3", "3 5"])
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda value: st.lists(value, max_size=3) | st.dictionaries(TEXT, value, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def tmp_file(tmp_path_factory):
    """A file for hypothesis, which uses it again and again."""
    return tmp_path_factory.mktemp("files") / "table.parquet"


def small_table():
    rows = {"policy": ["random", "None"], "seed": [0, 1], "learning_rate": [0.05, 0.05000001]}
    table = pd.DataFrame(rows | {"split_neuron": ["3", None], "test_loss": np.float32([0.7856, np.nan])})
    return table.astype({"split_neuron": "string"})


@given(st.lists(ROWS, min_size=1, max_size=8), st.dictionaries(TEXT, JSON, max_size=3))
def test_a_written_table_comes_back(tmp_file, rows, made_by):
    """Single precision comes back with the digits that NumPy prints, and all else bit for bit."""
    table = pd.DataFrame(rows, columns=["policy", "seed", "learning_rate", "test_loss", "split_neuron"])
    table = table.astype({"seed": "int64", "test_loss": "float32", "split_neuron": "string"})
    write_table(table, tmp_file, made_by)
    found = read_table(tmp_file)
    assert provenance(tmp_file) == made_by
    assert found.dtypes.map(str)[1:].tolist() == ["int64", "float64", "float64", "string"]
    assert found["policy"].tolist() == [row[0] for row in rows] and found["seed"].equals(table["seed"])
    assert found["learning_rate"].equals(table["learning_rate"])
    assert np.array_equal(found["test_loss"], [float(str(x)) for x in table["test_loss"].to_numpy()], equal_nan=True)
    assert found["split_neuron"].tolist() == table["split_neuron"].tolist()
    raw = pq.read_table(tmp_file)  # by other code, which knows nothing of this package
    assert raw.schema.field("test_loss").type == pa.float32() and raw.column_names == list(table)
    assert np.array_equal(raw["test_loss"].to_numpy(), table["test_loss"], equal_nan=True)
    assert np.array_equal(raw["learning_rate"].to_numpy(), table["learning_rate"], equal_nan=True)


@given(st.lists(st.tuples(TEXT, st.integers(0, 9), st.floats(width=32)), min_size=1, max_size=8))
def test_csv_and_parquet_say_the_same(tmp_file, rows):
    """The CSV is made by Python's own writer, and holds the digits that NumPy prints."""
    table = pd.DataFrame(rows, columns=["policy", "seed", "test_loss"]).astype({"test_loss": "float32"})
    write_table(table, tmp_file, {})
    with tmp_file.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerows([list(table), *((policy, seed, float(str(np.float32(x)))) for policy, seed, x in rows)])
    found = read_table(tmp_file.with_suffix(".csv"))
    found["policy"] = found["policy"].str.replace("\r\n", "\n")
    parquet = read_table(tmp_file)
    parquet["policy"] = parquet["policy"].str.replace("\r\n", "\n")
    pd.testing.assert_frame_equal(found, parquet, check_exact=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_text_comes_back_as_text(suffix, name, tmp_path):
    """Also where every row holds what pandas takes for a missing value or a number."""
    table = study_table([name], growth=name, schedule=name).assign(dataset=name, optimizer=name)
    file = tmp_path / f"table{suffix}"
    write_table(table, file, {}) if suffix == ".parquet" else table.to_csv(file, index=False)
    found = read_table(file)
    for column in ("policy", "growth", "schedule", "dataset", "optimizer"):
        assert set(found[column]) == {name}
    assert found["split_neuron"].dtype == "string" and found["split_neuron"].equals(table["split_neuron"])


def test_learning_rates_keep_all_their_digits(tmp_path):
    rates = [0.05, 0.05000001, np.nextafter(0.1, 1), 1e-300]
    table = pd.DataFrame({"policy": "random", "learning_rate": rates})
    write_table(table, tmp_path / "table.parquet", {})
    table.to_csv(tmp_path / "table.csv")
    for name in ("table.parquet", "table.csv"):
        assert read_table(tmp_path / name)["learning_rate"].tolist() == rates


def test_numbers_of_neurons_stay_whole_where_some_are_missing(tmp_path):
    table = pd.DataFrame({"neuron": pd.array([2**60 + 1, None], "Int64"), "seed": [0, 1]})
    write_table(table, tmp_path / "table.parquet", {})
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.parquet"), table)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    file = tmp_path / "table.parquet"
    write_table(small_table(), file, {"commit": "abc"})
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        with pytest.raises(ValueError, match="table.parquet is damaged"):
            read_table(file)
    with pytest.raises(ValueError, match="table.parquet is damaged"):
        provenance(file)


def test_a_bit_flipped_anywhere_is_refused(tmp_path):
    """Also in the names of columns, in the provenance, and in the checksum itself."""
    file = tmp_path / "table.parquet"
    write_table(small_table(), file, {"commit": "abc"})
    data, rng = file.read_bytes(), np.random.default_rng(0)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="table.parquet is damaged"):
            read_table(file)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"policy,seed\nrandom,0\n", b"PAR1" * 30, os.urandom(500)])
def test_what_is_not_parquet_is_refused(content, tmp_path):
    file = tmp_path / "table.parquet"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="table.parquet is damaged"):
        read_table(file)


def test_a_cut_csv_is_refused_if_it_is_packed(tmp_path):
    file = tmp_path / "table.csv.gz"
    file.write_bytes(gzip.compress(study_table(["random"]).to_csv().encode())[:-9])
    with pytest.raises(ValueError, match="table.csv.gz is damaged"):
        read_table(file)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match="empty.csv is damaged"):
        read_table(tmp_path / "empty.csv")


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_table_of_another_program_is_read(suffix, index, tmp_path):
    """Also one that pandas saved with its index, and with a mark that spreadsheets put at the start."""
    table, file = study_table(["random", "no-split"]).sample(frac=1, random_state=0), tmp_path / f"mine{suffix}"
    if suffix == ".parquet":
        table.to_parquet(file, index=index)
    else:
        table.to_csv(file, index=index, encoding="utf-8-sig")
    found = read_table(file)
    pd.testing.assert_frame_equal(found, table.reset_index(drop=True), check_dtype=False, check_exact=True)
    assert provenance(file) == {}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_pandas_saved_anew_has_the_same_families(suffix, tmp_path):
    """Pandas takes the number of a neuron for 3.0 where other rows have none."""
    table, first, again = study_table(["random"]), tmp_path / "first.csv", tmp_path / f"again{suffix}"
    table.to_csv(first, index=False)
    naive = pd.read_csv(first)
    assert naive["split_neuron"].dtype == float
    naive.to_csv(again, index=False) if suffix == ".csv" else naive.to_parquet(again)
    found = read_table(again)
    assert found["split_neuron"].equals(table["split_neuron"])
    rows = table["seed"] == 1
    assert tables.lineage(naive[rows]).equals(tables.lineage(table[rows])) and len(family_trees(found, 1).axes) == 1


@pytest.mark.parametrize("folder", ["r_{run}", "{}", "a b", "größe – 大", "100%", "#x?*[a]", "back\\slash", "'q'"])
def test_a_path_is_taken_as_it_is(folder, tmp_path):
    file = tmp_path / folder / f"{folder}.parquet"
    file.parent.mkdir()
    write_table(small_table(), file, {"x": folder})
    assert provenance(str(file)) == {"x": folder} and read_table(str(file)).shape == (2, 5)
    small_table().to_csv(file.with_suffix(".csv"))
    assert read_table(file.with_suffix(".csv")).shape == (2, 5)
    assert len(list(file.parent.iterdir())) == 2


def test_text_is_utf_8_whatever_the_environment_says(tmp_path):
    code = """
import locale, sys, pandas as pd
from pathlib import Path
from neuronsplit.analysis.files import read_table, write_table
assert locale.getpreferredencoding(False) not in ("UTF-8", "utf-8")
folder = Path(sys.argv[1])
table = read_table(folder / "given.csv")
write_table(table, folder / "made.parquet", {"name": table["policy"][0]})
assert read_table(folder / "made.parquet").equals(table)
"""
    folder = tmp_path / "größe"
    folder.mkdir()
    (folder / "given.csv").write_text("policy,seed\ngröße – 大,0\n", encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, folder], env=environment, check=True)
    assert provenance(folder / "made.parquet") == {"name": "größe – 大"}
    assert read_table(folder / "made.parquet")["policy"].tolist() == ["größe – 大"]


def test_nothing_in_a_file_is_executed(tmp_path):
    """Old versions of pyarrow loaded a type of a column by pickle."""

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Harm())}
    field = pa.field("policy", pa.string(), metadata=metadata)
    pq.write_table(pa.table([["random"]], schema=pa.schema([field])), tmp_path / "table.parquet")
    assert read_table(tmp_path / "table.parquet")["policy"].tolist() == ["random"]
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(Harm()))
    assert (tmp_path / "harm").exists()  # so it would have been seen


def test_a_disk_without_space_leaves_the_old_file_and_nothing_else(tmp_path):
    code = """
import resource, signal, sys
from neuronsplit.analysis.files import read_table, write_table
table = read_table(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_table(table, sys.argv[1], {"new": True})
except OSError as error:
    print(error.strerror)
"""
    file = tmp_path / "table.parquet"
    write_table(small_table(), file, {"new": False})
    found = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert found.stdout == "File too large\n"
    assert provenance(file) == {"new": False} and list(tmp_path.iterdir()) == [file]


def test_two_that_write_the_same_file_leave_a_whole_one(tmp_path):
    file, table = tmp_path / "table.parquet", study_table(["random"], n_seeds=50)
    write_table(table, file, {"writer": 0})

    def write(writer):
        for _ in range(40):
            write_table(table, file, {"writer": writer})

    writers = [threading.Thread(target=write, args=(writer,)) for writer in (1, 2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert provenance(file)["writer"] in (0, 1, 2) and len(read_table(file)) == len(table)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "name, message",
    [
        ("none-of-these.parquet", "none-of-these.parquet does not exist: allowed are files of tables"),
        ("none.csv", "none.csv does not exist: allowed are files of tables"),
        ("text.json", r"text.json is no table: allowed are .parquet, .csv and .csv.gz files"),
        ("folder", r"folder is a folder: allowed are .parquet, .csv and .csv.gz files"),
        ("folder.parquet", r"folder.parquet is a folder: allowed are .parquet, .csv and .csv.gz files"),
    ],
)
def test_what_has_no_provenance_is_named(name, message, tmp_path):
    (tmp_path / "text.json").write_text(json.dumps({}))
    for folder in ("folder", "folder.parquet"):
        (tmp_path / folder).mkdir()
    kind = FileNotFoundError if name.startswith("none") else ValueError
    with pytest.raises(kind, match=f"^{tmp_path}/{message}$"):
        provenance(tmp_path / name)
    if not name.startswith("folder"):
        with pytest.raises(kind, match=message):
            read_table(tmp_path / name)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_version_0_1_is_refused(suffix, tmp_path):
    file = tmp_path / f"old{suffix}"
    old = pd.DataFrame({"policy": ["random"], "rule": ["even"], "still": [5]})
    old.to_csv(file, index=False) if suffix == ".csv" else old.to_parquet(file)
    message = r"is of version 0.1: columns have other names since 0.2 \(rule → growth, still → epochs\)$"
    with pytest.raises(ValueError, match=message):
        read_table(file)
