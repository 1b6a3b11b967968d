"""Colours, markers, titles and files of figures."""

import base64
import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Bbox
from nbclient import NotebookClient

from neuronsplit.names import CONTROLS, GREEDY, RATE_SCHEDULES, STATES
from neuronsplit.plots import inline, style

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Each test starts like a new process, without names of its own."""
    monkeypatch.setattr(style, "_own_colors", {})
    monkeypatch.setattr(style, "_own_markers", {})


def test_everything_compared_has_its_color_and_no_two_of_a_kind_share_one():
    from neuronsplit.growing.how import GROWTHS
    from neuronsplit.growing.when import SCHEDULES
    from neuronsplit.growing.which import POLICIES

    kinds = [*CONTROLS, *POLICIES, GREEDY], list(GROWTHS), list(SCHEDULES)
    assert list(style.COLORS) == sum(kinds, [])
    for names in kinds:
        assert len({style.COLORS[name] for name in names}) == len(names)
    assert set(style.MARKERS) == set(SCHEDULES) and len(set(style.MARKERS.values())) == len(SCHEDULES)


def test_every_data_set_and_optimizer_is_known_as_a_setting():
    from neuronsplit.core.optimizers import OPTIMIZERS
    from neuronsplit.data.datasets import DATASETS

    assert set(style.SETTINGS) == {*DATASETS, *OPTIMIZERS, *RATE_SCHEDULES, *(f"state {state}" for state in STATES)}


def test_a_known_name_keeps_its_color():
    assert {name: style.color_of(name) for name in style.COLORS} == style.COLORS


@pytest.mark.parametrize(
    "label, name",
    [
        ("random · zero-outgoing", "zero-outgoing"), ("random · zero-outgoing · 0.1", "zero-outgoing"),
        ("no-split · sgd", "no-split"), ("random · even · 5e-05 · width 10", "even"),
        ("max-loss · fashion-mnist · batch size 32", "max-loss"),
        ("mine · scaled", "mine"), ("random · mine", "mine"), ("random · mine · every-epoch · adam", "mine"),
        ("even · cosine · weight decay 0.01 · dropout 0.2", "even"),
        ("even · rate after split 0.5 · state reset", "even"), ("even · learning rate 5e-05", "even"),
        ("mine · yours", "yours"), ("0.1", "0.1"), ("digits · 0.1", "0.1"),
    ],
)  # fmt: skip
def test_a_label_of_several_parts_has_the_color_of_one(label, name):
    assert style.color_of(label) == style.color_of(name)


def test_an_unknown_name_has_a_color_that_no_other_name_has():
    names = [f"policy {letter}" for letter in "abcdefghijkl"] + ["mine", "None", "1", "digits", ""]
    colors = {name: style.color_of(name) for name in names}
    used = [*set(style.COLORS.values()), *colors.values()]
    assert len(set(used)) == len(used)
    pairs = itertools.combinations(map(to_rgb, [*style.COLORS.values(), *colors.values()]), 2)
    assert min(np.linalg.norm(np.subtract(a, b)) for a, b in pairs if a != b) > 0.05
    assert {name: style.color_of(name) for name in reversed(names)} == colors  # remembered


@pytest.mark.long
def test_hundreds_of_unknown_names_have_colors_of_their_own():
    assert len({style.color_of(f"policy-{n}") for n in range(300)} | set(style.COLORS.values())) == 300 + len(
        set(style.COLORS.values())
    )


def test_two_names_of_one_hash_differ(monkeypatch):
    monkeypatch.setattr(style.zlib, "crc32", lambda data: 7)
    assert style.color_of("mine") != style.color_of("yours")
    assert style.marker_of("mine") != style.marker_of("yours")


def test_an_unknown_name_has_the_same_color_in_every_process():
    code = "from neuronsplit.plots.style import color_of, marker_of; print(color_of('mine'), marker_of('mine'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [style.color_of("mine"), style.marker_of("mine")]


def test_every_schedule_has_a_marker_of_its_own_even_if_there_are_many():
    names = [*style.MARKERS, *(f"schedule {n}" for n in range(30))]
    markers = [style.marker_of(name) for name in names]
    assert len(set(markers)) == len(names)
    assert [style.marker_of(name) for name in names] == markers
    for marker in markers:
        MarkerStyle(marker)  # matplotlib knows it


def test_a_figure_is_saved_from_the_projects_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "ROOT", tmp_path / "project")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project" / "figures").mkdir(parents=True)
    figure = plt.figure()
    style.save_figure(figure, "", "curves")
    style.save_figure(figure, "figures/digits-", "curves")
    style.save_figure(figure, f"{tmp_path}/", "curves")
    saved = [file.relative_to(tmp_path).as_posix() for file in sorted(tmp_path.rglob("*.png"))]
    assert saved == ["curves.png", "project/figures/digits-curves.png"]
    plt.close("all")


def test_the_root_is_the_folder_of_the_package():
    assert style.ROOT == Path(__file__).parents[1]


@pytest.mark.parametrize("width", [3, 5.6, 12])
def test_a_title_is_never_cut(width):
    figure, _ = plt.subplots(figsize=(width, 2), layout="constrained")
    style.set_title(
        figure, "final test loss − that of no-split: mean of n = 10 seeds and its 95 % interval (Student's t)"
    )
    figure.canvas.draw()
    box, whole = figure._suptitle.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1
    assert not Bbox.intersection(box, figure.axes[0].get_window_extent())
    plt.close("all")


def test_a_long_legend_fits_into_its_figure_and_stays_clear_of_the_title():
    figure, axis = plt.subplots(figsize=(6, 2), layout="constrained")
    for n in range(20):
        axis.plot([0, 1], [0, n], label=f"policy {n}")
    style.add_legend(figure, axis)
    style.set_title(figure, "a title above all of the figure, wide enough to stand above its legend as well")
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.y0 >= 0 and not Bbox.intersection(legend, figure._suptitle.get_window_extent())
    plt.close("all")


CELLS = """
import matplotlib.pyplot as plt
from neuronsplit.plots.style import use_style
use_style()
use_style()
---
figure, axis = plt.subplots()
axis.plot([0, 1], [0, 1], label="random")
axis.set(xlabel="epoch", ylabel="test loss")
_ = figure.suptitle("mean of n = 3 seeds")
---
for _ in range(2):
    plt.figure().add_subplot()
    plt.show()
"""


@pytest.mark.long
@pytest.mark.parametrize("backend", ["agg", "svg", "pdf", "TkAgg"])
def test_a_notebook_has_its_figures_as_png_whatever_the_environment_says(backend, monkeypatch):
    """In a real kernel, which takes over the environment."""
    monkeypatch.setenv("MPLBACKEND", backend)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS.split("---")])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [[o for o in cell.outputs if o.output_type == "display_data"] for cell in notebook.cells]
    assert [len(found) for found in outputs] == [0, 1, 2]
    for output in sum(outputs, []):
        assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    described = {"image/png": {"alt": "mean of n = 3 seeds. test loss, epoch. random"}}
    assert outputs[1][0].metadata == described
    assert not [o for cell in notebook.cells for o in cell.outputs if o.get("name") == "stderr"]


def test_outside_of_a_notebook_the_backend_stays():
    before = plt.get_backend()
    style.use_style()
    assert plt.get_backend() == before


def test_a_description_names_what_is_drawn():
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([0, 1], label="random")
    left.set(title="sgd", xlabel="epoch", ylabel="test loss")
    right.set_yticks([0, 1], ["max-loss", "1.5"])
    assert inline.describe(figure) == "sgd, test loss, epoch. random, max-loss"
    assert inline.describe(plt.figure()) == "figure"
    plt.close("all")


def test_names_are_printed_as_they_are():
    table = pd.DataFrame({"policy": ["_mine", r"$\\foo$ a_b", "random"]})
    figure, axis = plt.subplots()
    for name in style.printable(table).policy:
        axis.plot([0, 1], label=name)
    style.add_legend(figure, axis)
    figure.canvas.draw()  # an invalid formula would raise
    (legend,) = figure.legends
    assert [text.get_text().strip().replace("\\$", "$") for text in legend.get_texts()] == table.policy.tolist()
    plt.close("all")
