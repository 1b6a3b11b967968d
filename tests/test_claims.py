"""Every claim of the study, with the table and the test behind it.

A finding of the README is the docstring of the test that checks it, so `pytest tests/test_claims.py -k twins` runs one.
What a notebook claims is asserted by its own cells, from the tables in BY_NOTEBOOK: `pytest notebooks/NAME.ipynb` runs
them.
"""

import inspect
import re
from functools import cache
from pathlib import Path

import jupytext
import pytest
from prose import MAX_WORDS, n_words, sentences

import neuronsplit as ns
from neuronsplit.analysis import design, oracle
from neuronsplit.measuring.all_splits import HORIZONS

ROOT = Path(__file__).parents[1]
DATA = ROOT / "figures" / "data"
FINDINGS = (ROOT / "README.md").read_text(encoding="utf-8").split("## What we found")[1].split("\n## ")[0]
DESIGN = ["design-digits", "design-mnist-1d"]
GROWN = [f"oracle-{name}-grown" for name in design.COMMITTED]
BY_NOTEBOOK = {  # the tables behind what a notebook says under "What we see"
    "00_start_here": DESIGN,
    "04_comparison": [*DESIGN, "fashion-mnist"],
    "05_split_your_own_network": ["coverage"],
    "06_the_2021_study": ["replay"],
    "07_do_twins_part": ["twins"],
    "08_which_neuron": DESIGN,
    "09_how_to_split": [*DESIGN, "twins"],
    "10_when_to_split": [*DESIGN, "step-times"],
    "11_how_good_could_a_choice_be": GROWN,
    "12_a_network_that_decides": [*GROWN, *DESIGN],
    "13_grow_a_language_model": ["language-model"],
    "14_what_it_costs": ["speed", "speed-growth", "speed-branches"],
    "15_beyond_one_hidden_layer": ["beyond-one-layer"],
    "16_can_growth_win": ["search-digits"],
    "design": [*DESIGN, "step-times"],
}
LIVE = {"01_split_a_neuron", "02_grow_while_training", "03_experiment", "all_splits"}  # claims about what they train


def plain(markdown: str) -> str:
    """Text without links and line breaks."""
    return " ".join(re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", markdown).split())


@cache
def against(dataset: str):
    """Every arm against the final width from the start, in test loss."""
    return design.against_control(ns.read_table(DATA / f"design-{dataset}.parquet"), "test_loss")


@cache
def verdicts(dataset: str):
    """The tests of all families, in test loss."""
    return design.tests(ns.read_table(DATA / f"design-{dataset}.parquet"), "test_loss")


def fewer_epochs(dataset: str) -> str:
    """The name of the control that trains for fewer epochs."""
    (name,) = [name for name in against(dataset).index if re.fullmatch(r"no-split · \d+ epochs", name)]
    return name


def test_if_you_can_afford_the_final_width():
    """If you can afford the final width, start with it: on both data sets, no way to grow ends below it at equal
    multiply-adds."""
    for dataset in ("digits", "mnist-1d"):
        found = verdicts(dataset).loc["equal multiply-adds"]
        assert len(found) == 37 and not (found["verdict"] == "better").any() and (found["mean"] > 0).all()


def test_growing_costs_more_than_it_saves():
    """Growing costs more than it saves: a split per epoch saves 14 to 21 % of the multiply-adds. Fewer epochs save as
    much, and end lower."""
    saved = []
    for dataset in ("digits", "mnist-1d"):
        arms, control = against(dataset), fewer_epochs(dataset)
        saved.append(round(100 * (1 - arms["cost"]["random"])))
        assert arms["cost"][control] == pytest.approx(arms["cost"]["random"], rel=design.SAME_COST)
        found = verdicts(dataset).loc[("equal multiply-adds", "random")]
        assert found["baseline"] == control and found["verdict"] == "worse"
    assert (min(saved), max(saved)) == (14, 21)


def test_split_any_neuron():
    """Split any neuron: no policy beats a random choice. Even the best neuron gains 0.002 or less for one split."""
    for dataset in ("digits", "mnist-1d"):
        assert not (verdicts(dataset).loc["which", "verdict"] == "better").any()
    for name in GROWN:
        table = ns.read_table(DATA / f"{name}.parquet")
        gains = oracle.gains(table[table["horizon"] == max(HORIZONS)], {})
        assert 0 < round(gains.groupby("seed")["gain"].mean().mean(), 3) <= 0.002


def test_how_and_when_depend_on_the_data():
    """How and when depend on the data: growing at once after epoch 10 is better than gradually on digits, and worse on
    MNIST-1D."""
    found = [verdicts(dataset).loc[("when", "all-at-10"), "verdict"] for dataset in ("digits", "mnist-1d")]
    assert found == ["better", "worse"]


def test_twins_stay_close():
    """Twins stay close: 20 epochs after a `scaled` split, the median angle between their weights is 19°."""
    twins = ns.read_table(DATA / "twins.parquet")
    last = twins[(twins["epoch"] == 20) & (twins["growth"] == "scaled") & (twins["optimizer"] == "sgd")]
    assert twins["epoch"].max() == 20 and round(last["angle"].median()) == 19


CHECKS = [check for name, check in globals().items() if name.startswith("test_")]


def test_each_finding_of_the_readme_is_one_of_these_claims():
    bullets = re.findall(r"^- (.*)$", FINDINGS, re.M)
    assert [plain(bullet) for bullet in bullets] == [plain(inspect.getdoc(check)) for check in CHECKS]
    assert all(re.search(r"\(notebooks/\d\d_\w+\.ipynb\)", bullet) for bullet in bullets)
    assert all(sum(map(n_words, sentences(bullet))) <= MAX_WORDS for bullet in bullets)


def test_the_table_of_the_readme_is_read_off_the_committed_ones():
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", FINDINGS, re.M)
    assert len(rows) == 5
    for name, cells in rows:
        expected = []
        for dataset in ("digits", "mnist-1d"):
            arm = fewer_epochs(dataset) if "fewer epochs" in name else name.strip("`")
            row = against(dataset).loc[arm]
            assert row["n"] == 20 and "n = 20 seeds" in FINDINGS
            expected += [f"{row['cost']:.0%}", "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[["mean", "low", "high"]])]
        assert cells.replace("−", "-").split(" | ") == expected, name


def test_what_the_caption_says_of_the_figure():
    for dataset in ("digits", "mnist-1d"):
        arms, table = against(dataset), ns.read_table(DATA / f"design-{dataset}.parquet")
        grown = arms[~arms.index.str.startswith("no-split")]
        assert (grown["mean"] > 0).all() and set(table["hidden"]) >= {10, 60}
        assert grown["mean"]["random"] > arms["mean"][fewer_epochs(dataset)]


def test_every_notebook_with_claims_is_listed():
    files = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "notebooks").glob("*.py")}
    claiming = {name for name, text in files.items() if re.search(r"^# ## What we see", text, re.M)}
    assert claiming <= {*BY_NOTEBOOK, *LIVE} and {*BY_NOTEBOOK, *LIVE} <= {*files}


@pytest.mark.parametrize("name", BY_NOTEBOOK)
def test_a_notebook_asserts_what_it_claims_from_committed_tables(name):
    cells = jupytext.read(ROOT / "notebooks" / f"{name}.py").cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    (claims,) = [i for i, cell in enumerate(cells) if re.search(r"^## What .*see", cell.source, re.M)]
    after = "\n".join(cell.source for cell in cells[claims:] if cell.cell_type == "code")
    assert re.search(r"^ *assert ", after, re.M)
    for table in BY_NOTEBOOK[name]:
        assert (DATA / f"{table}.parquet").exists()
        pattern = table.replace("fashion-mnist-", "{}-").replace("digits-", "{}-").replace("mnist-1d-", "{}-")
        pattern = re.sub("search-digits", "search-{}", pattern)
        assert table in code or pattern in code or (table in DESIGN and "design.read_tables(" in code)
