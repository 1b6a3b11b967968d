"""Every claim of the study, with the table and the test behind it.

A finding of the README is the docstring of the test that checks it: `pytest tests/test_claims.py -k accuracy` runs one.
What a notebook claims is asserted by its own cells, from the tables in BY_NOTEBOOK: `pytest notebooks/NAME.ipynb` runs
them.
"""

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import jupytext
import pytest
from prose import MAX_WORDS, n_words, sentences

import neuronsplit as ns
from neuronsplit.analysis import cost, design
from neuronsplit.names import NO_SPLIT, STAY_NARROW

ROOT = Path(__file__).parents[1]
DATA = ROOT / "figures" / "data"
FINDINGS = (ROOT / "README.md").read_text(encoding="utf-8").split("## What we found")[1].split("\n## ")[0]
DESIGN = [f"design-{name}" for name in design.COMMITTED]
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
    "16_can_growth_win": ["search-digits", "search-mnist-1d"],
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
def verdicts(dataset: str, metric: str = "test_loss"):
    """The tests of all families."""
    return design.tests(ns.read_table(DATA / f"design-{dataset}.parquet"), metric)


def fewer_epochs(dataset: str) -> str:
    """The name of the control that trains for fewer epochs."""
    (name,) = [name for name in against(dataset).index if re.fullmatch(r"no-split · \d+ epochs", name)]
    return name


def test_start_with_the_final_width():
    """Start with the final width if you know it: in test loss, no way to grow ends below it at equal multiply-adds."""
    for dataset, n_arms in {"digits": 37, "mnist-1d": 37, "fashion-mnist": 16}.items():
        found = verdicts(dataset).loc["equal multiply-adds"]
        assert len(found) == n_arms and not (found["verdict"] == "better").any() and (found["mean"] > 0).all()


def test_there_is_an_exception_in_accuracy():
    """There is an exception in accuracy: on MNIST-1D, `gradmax` and one other arm end above the control of equal cost,
    by at most 1 point."""
    for dataset, better in {"digits": 0, "mnist-1d": 2, "fashion-mnist": 0}.items():
        found = verdicts(dataset, "test_accuracy").loc["equal multiply-adds"].query("verdict == 'better'")["mean"]
        assert len(found) == better and (not better or (found.idxmax(), round(100 * found.max())) == ("gradmax", 1))


def test_growing_gradually_saves_little():
    """Growing gradually saves little: 14 to 21 % of the multiply-adds, and 1 to 4 % of the time on one core."""
    times, saved = ns.read_table(DATA / "step-times.parquet"), {"cost": [], "seconds": []}
    for dataset in design.COMMITTED:
        table = design.with_arms(ns.read_table(DATA / f"design-{dataset}.parquet"))
        saved["cost"].append(round(100 * (1 - against(dataset)["cost"]["random"])))
        saved["seconds"].append(round(100 * (1 - cost.relative_seconds(table, NO_SPLIT, times)["random"])))
    assert {name: (min(shares), max(shares)) for name, shares in saved.items()} == {"cost": (14, 21), "seconds": (1, 4)}


def test_split_a_random_neuron():
    """Split a random neuron: in test loss, no policy is established as better. In accuracy, `max-gradient` is
    better on Fashion-MNIST and worse on MNIST-1D."""
    better = {}
    for dataset, n_arms in {"digits": 18, "mnist-1d": 18, "fashion-mnist": 8}.items():
        found, accuracy = verdicts(dataset).loc["which"], verdicts(dataset, "test_accuracy").loc["which"]
        assert len(found) == n_arms and not (found["verdict"] == "better").any()
        better |= {
            (dataset, arm): round(mean, 3) for arm, mean in accuracy.query("verdict == 'better'")["mean"].items()
        }
    assert better == {("fashion-mnist", "max-gradient"): 0.002}
    assert verdicts("mnist-1d", "test_accuracy").loc[("which", "max-gradient"), "verdict"] == "worse"


def test_avoid_even_and_net2net():
    """Avoid `even` and `net2net`: on digits and MNIST-1D they are worse. None of the other growths or schedules
    beats `random` on two data sets."""
    for dataset in ("digits", "mnist-1d"):
        assert (verdicts(dataset).loc["how"].loc[["even", "net2net"], "verdict"] == "worse").all()
    found = [verdicts(dataset).loc[["how", "when"]].query("verdict == 'better'") for dataset in design.COMMITTED]
    better = [arm for tested in found for arm in tested.index]
    assert better and len(better) == len(set(better))


CHECKS = [check for name, check in globals().items() if name.startswith("test_")]


def test_each_finding_of_the_readme_is_one_of_these_claims():
    bullets = re.findall(r"^- (.*)$", FINDINGS, re.M)
    assert [plain(bullet) for bullet in bullets] == [plain(inspect.getdoc(check)) for check in CHECKS]
    assert all(re.search(r"\(notebooks/\d\d_\w+\.ipynb\)", bullet) for bullet in bullets)
    assert all(sum(map(n_words, sentences(bullet))) <= MAX_WORDS for bullet in bullets)


def test_the_table_of_the_readme_is_read_off_the_committed_ones():
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", FINDINGS, re.M)
    assert len(rows) == 5
    in_figure = re.search(
        r"^NAMED = (.*)$", (ROOT / "notebooks" / "04_comparison.py").read_text(encoding="utf-8"), re.M
    )
    assert {name.strip("`") for name, _ in rows[1:]} == {*ast.literal_eval(in_figure[1]), STAY_NARROW}
    for name, cells in rows:
        costs, expected = [], []
        for dataset in design.COMMITTED:
            arm = fewer_epochs(dataset) if "fewer epochs" in name else name.strip("`")
            if arm not in against(dataset).index:
                expected.append("–")
                continue
            row = against(dataset).loc[arm]
            assert row["n"] == 20 and "n = 20 seeds" in FINDINGS
            costs.append(f"{100 * row['cost']:.0f}")
            expected.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[["mean", "low", "high"]]))
        assert cells.replace("−", "-").split(" | ") == [f"{', '.join(costs)} %", *expected], name


def test_what_the_caption_says_of_the_figure():
    for dataset in design.COMMITTED:
        arms, table = against(dataset), ns.read_table(DATA / f"design-{dataset}.parquet")
        grown = arms[~arms.index.str.startswith(NO_SPLIT)]
        assert (grown["mean"] > 0).all() and set(table["hidden"]) >= {10, 60}
        assert grown["mean"]["random"] > arms["mean"][fewer_epochs(dataset)]
        at_1 = design.with_arms(table).query("policy == 'all-at-1'")
        assert set(at_1["hidden"]) == {60} and at_1["epoch"].min() == 1
    for dataset in ("digits", "mnist-1d"):
        table = design.with_arms(ns.read_table(DATA / f"design-{dataset}.parquet"))
        half = table.query("policy == 'zero-outgoing · all-at-half'").groupby("epoch")["hidden"].max()
        assert (half[24], half[25]) == (10, 60)


def test_what_the_caption_says_of_tuning_and_of_the_arm_that_is_better():
    assert verdicts("digits").loc[("combined", "zero-outgoing · all-at-half"), "verdict"] == "better"
    assert verdicts("mnist-1d").loc[("combined", "zero-outgoing · all-at-half"), "verdict"] != "better"
    for dataset in ("mnist-1d", "fashion-mnist"):
        assert not verdicts(dataset).loc["equal multiply-adds", "tuned_alike"].any()


def test_what_the_caption_says_of_gains_that_would_be_missed():
    for dataset, missed in {"digits": 0.027, "mnist-1d": 0.047, "fashion-mnist": 0.007}.items():
        found = verdicts(dataset).loc["which"]
        assert round(found["minimum_detectable_effect"].median(), 3) == missed and f"{missed}" in FINDINGS
        assert (found["verdict"] == "worse").any() == (dataset != "fashion-mnist")


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
        pattern = re.sub("search-(digits|mnist-1d)", "search-{}", pattern)
        assert table in code or pattern in code or (table in DESIGN and "design.read_tables(" in code)
