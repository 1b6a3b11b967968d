"""The README and its companions are correct: examples, links, length and the length of sentences."""

import contextlib
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from prose import MAX_WORDS, markdown_of, n_words, sentences, too_long

import neuronsplit as ns
from neuronsplit.analysis import tables
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.plots.style import COLORS, color_of
from neuronsplit.study import cli, grid

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REGISTRIES = {"which": ns.POLICIES, "how": ns.GROWTHS, "when": ns.SCHEDULES, "on what": ns.DATASETS}
TEXTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "notebooks/00_start_here.py", "notebooks/14_what_it_costs.py"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
EXAMPLES = re.findall(r"```python\n(.*?)```\n(?:\n?```text\n(.*?)```)?", README, re.S)
EXTENSIONS = next(code for code, _ in EXAMPLES if "ns.DATASETS[" in code)


def prose(file: str) -> str:
    """The text of a Markdown file, or of the Markdown cells of a notebook."""
    return markdown_of(ROOT / file)


@pytest.fixture(scope="module")
def scope():
    """The names that the README's examples leave behind, and under "printed" what each of them prints."""
    before = {question: dict(registry) for question, registry in REGISTRIES.items()}
    names = {"printed": []}
    for code, _ in EXAMPLES:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        names["printed"].append(printed.getvalue())
    names["added"] = {q: [name for name in registry if name not in before[q]] for q, registry in REGISTRIES.items()}
    yield names
    for question, registry in REGISTRIES.items():
        registry.clear()
        registry.update(before[question])


@pytest.mark.parametrize("file", TEXTS)
def test_a_sentence_has_at_most_25_words(file):
    found = sentences(prose(file))
    assert len(found) > 15
    assert too_long(found) == []


def test_the_readme_is_short_and_begins_with_an_example():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert lines.index("```python") + 1 < 30
    assert "ns.split_neuron(net" in EXAMPLES[0][0] and EXAMPLES[0][1]
    assert README.index("notebooks/00_start_here.ipynb") < README.index("```python")  # the glossary is there


def test_the_readme_prints_what_it_says_it_prints(scope):
    assert len(EXAMPLES) == 3
    assert scope["printed"] == [expected for _, expected in EXAMPLES]


@pytest.mark.parametrize("text", [README, *map(prose, TEXTS[1:3])], ids=TEXTS[:3])
def test_links_lead_to_files_that_exist(text):
    assert [path for path in re.findall(r"\]\(((?!http)[^)#]+)\)", text) if not (ROOT / path).exists()] == []


def test_links_of_notebooks_lead_to_files_that_exist():
    for file in NOTEBOOKS:
        linked = re.findall(r"\]\(([\w./]+\.\w+)\)", prose(f"notebooks/{file.name}"))
        assert linked or file.stem == "report"  # which is about a study of the reader
        assert [path for path in linked if not (file.parent / path).exists()] == [], file.name


def test_every_notebook_is_in_the_maps():
    names = [file.stem for file in NOTEBOOKS]
    assert [name for name in names if f"(notebooks/{name}.ipynb)" not in README] == []
    assert [name for name in names[1:] if f"({name}.ipynb)" not in prose("notebooks/00_start_here.py")] == []


def test_the_glossary_has_at_most_20_words_and_a_sentence_each():
    _, glossary = prose("notebooks/00_start_here.py").split("## Glossary")
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", glossary, re.M)[2:]
    assert 15 < len(rows) <= 20
    for word, meaning in rows:
        assert len(sentences(meaning)) == 1 and n_words(sentences(meaning)[0]) <= MAX_WORDS, word


def test_the_commands_of_the_readme_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", README + prose("CONTRIBUTING.md"), re.M)) <= {*targets}
    commands = re.findall(r"bin/neuronsplit (.*?) *(?:#.*)?$", README, re.M)
    assert [cli.parser().parse_args(command.split()).study for command in commands] == ["mine.yaml", "mine.yaml"]


def test_the_coverage_is_read_off_the_committed_table():
    table = ns.read_table(ROOT / "figures" / "data" / "coverage.parquet")
    layers = table[table.outcome.isin(["split", "none", "refused", "raised", "wrong"])]  # with channels of their own
    n_split = (layers.outcome == "split").sum()
    n_networks = table.groupby("origin").network.nunique().sum()
    assert f"{n_split:,} of {len(layers):,} layers in {n_networks} networks split exactly" in README
    alone = (layers.set_size[layers.outcome == "split"] == 1).mean()
    assert 0.45 < alone < 0.55 and ": half of them neuron by neuron, the rest in sets." in README
    assert not table.outcome.isin(["raised", "wrong"]).any()


def test_the_rule_whose_twins_part_most_is_read_off_the_committed_table():
    twins = ns.read_table(ROOT / "figures" / "data" / "twins.parquet").query("optimizer == 'sgd'")
    last = twins[(twins.epoch == twins.epoch.max()) & twins.growth.isin([*SPLIT_RULES])]
    angles = last.groupby("growth").angle.median()
    assert f'With one hidden layer, those of `rule="{angles.idxmax()}"` part most' in README and angles["even"] < 0.1


def test_where_antisymmetric_twins_stay_alike_is_read_off_the_committed_table():
    table = ns.read_table(ROOT / "figures" / "data" / "language-model.parquet").query("arm == 'antisymmetric'")
    assert "In a residual stream they stay alike" in README
    assert table.distance_width.max() < 1e-6 < 0.1 < table.distance_MLP.max()


def test_each_way_to_extend_takes_fewer_than_ten_lines_of_code():
    parts = [part for part in EXTENSIONS.split("\n\n") if re.search(r"^ns\.[A-Z]+\[", part, re.M)]
    assert [re.findall(r"^ns\.([A-Z]+)\[", part, re.M) for part in parts] == [
        ["POLICIES"], ["GROWTHS"], ["SCHEDULES"], ["DATASETS"],
    ]  # fmt: skip
    assert max(len(part.strip().splitlines()) for part in parts) < 10


def test_each_extension_runs_and_has_a_label_and_a_color_of_its_own(scope):
    assert [len(names) for names in scope["added"].values()] == [1, 1, 1, 1]
    (policy,), (growth,), (schedule,), (dataset,) = scope["added"].values()
    table = pd.concat(scope["study"])
    assert {policy} < set(table["policy"]) and {growth} < set(table["growth"]) and {schedule} < set(table["schedule"])
    assert set(table["dataset"]) == {dataset}
    summary = tables.summary(tables.with_labels(table), "test_accuracy")
    for name in (policy, growth, schedule):
        (label,) = [label for label in summary.index if name in label.split(" · ")]
        assert summary.loc[label, "n"] == 5 and summary.loc[label, "mean"] > 0.9
        assert color_of(label) == color_of(name)
    own = [color_of(name) for name in (policy, growth, schedule, dataset)]
    assert len({*own, *COLORS.values()}) == len(own) + len({*COLORS.values()})


def test_the_study_file_of_the_readme_is_one_and_can_name_the_extensions(scope, tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    assert len(grid.read_study(str(file)).plan) == 1 + 2 * 2  # the control knows no growth
    (tmp_path / "mine.py").write_text(EXTENSIONS, encoding="utf-8")
    (policy,) = scope["added"]["which"]
    file.write_text(f"{text}extensions: mine.py\n".replace("max-loss", policy), encoding="utf-8")
    assert policy in {experiment.policy for experiment in grid.read_study(str(file)).plan}
