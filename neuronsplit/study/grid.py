"""Read a study file: a list of grids of the fields of experiments."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import NamedTuple

import yaml

from neuronsplit.checks import MAX_COUNT, MAX_SEED, does_not_exist, require_name, require_whole_number
from neuronsplit.experiments import base
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.experiments.experiment import Experiment
from neuronsplit.extensions import load_extensions
from neuronsplit.locations import NOTEBOOKS, STUDIES
from neuronsplit.study import batches

MAX_EXPERIMENTS = 10_000  # in a study
TYPES = {"experiment": Experiment, "all-splits": ExhaustiveSplits}
PATHS = "extensions", "report"
ONCE = ("type", *PATHS)  # parameters of one value, which only the top of a file may have
WORDS = {int: "whole numbers, or a list of them", float: "numbers, or a list of them"}  # what a type allows


class Parameter(NamedTuple):
    """The values of a parameter, as nodes of YAML at first, and where they stand: a file and a line, or the command."""

    values: list
    where: str


Grid = dict[str, Parameter]


class Study(NamedTuple):
    """What a study file says: the experiments with their seeds, and the notebook that reports on them."""

    name: str
    plan: batches.Plan
    report: Path
    extensions: str  # the path of a Python file, or ""


def read_study(name: str, changes: Mapping[str, object] | None = None) -> Study:
    """Read a study by its name in notebooks/studies, or by the path of a .yaml or .yml file.

    changes: values that replace those in the file, as on the command line. Extensions are executed.
    Parameters are the fields of `Experiment`, or of the class in TYPES that `type` names, and n_seeds and first_seed.
    Each is a value or a list of values, and every combination of them is an experiment. `grids` is a list of further
    parameters, and stands for several studies in one. Of experiments that train the same, the first is kept.
    `extensions` is a file for `load_extensions`, and `report` a notebook of the user. Paths count from the study file,
    and those on the command line from the current folder.

    Raises ValueError where the file is missing or does not define a study; the message names the line.
    """
    file = study_file(name)
    root = _read(file.read_bytes(), str(file))
    top = root if isinstance(root, dict) else {"grids": Parameter(_items(root), str(file))}
    grids, where = top.pop("grids", Parameter([{}], str(file)))
    if not grids or not all(isinstance(grid, dict) for grid in grids):
        raise ValueError(f"{where}: allowed are lines of 'parameter: value', or a list of grids of them")
    for key, value in (changes or {}).items():
        text = str(Path(value).absolute() if key in PATHS and value else value)  # it counts from the current folder
        top[key] = Parameter(_items(_read(text, f"-p {key}")), f"-p {key}")
        grids = [{name: inner for name, inner in grid.items() if name != key} for grid in grids]
    once = {key: ", ".join(map(str, top.pop(key).values)) for key in ONCE if key in top}
    require_name(f"{file}: type", kind := once.get("type", "experiment"), TYPES)
    kind = TYPES[kind]
    paths = {key: str((file.parent / once[key]).absolute()) for key in PATHS if once.get(key)}
    load_extensions(paths.get("extensions", ""))
    report = Path(paths.get("report", NOTEBOOKS / f"{kind.report}.ipynb"))
    if report.suffix != ".ipynb" or not report.is_file():
        raise ValueError(f"{file}: report {str(report)!r}: allowed are notebooks that exist")
    types = {field.name: field.type for field in fields(kind)} | {"n_seeds": int, "first_seed": int}
    grids = [{key: _typed(key, parameter, types) for key, parameter in (top | grid).items()} for grid in grids]
    size = sum(math.prod(len(parameter.values) for parameter in grid.values()) for grid in grids)
    if size > MAX_EXPERIMENTS:
        raise ValueError(f"{file}: {size} experiments: allowed are {MAX_EXPERIMENTS} in a study")
    plan = batches.make_plan(pair for grid in grids for pair in _expand(kind, grid, file))
    return Study(file.stem, plan, report, paths.get("extensions", ""))


def study_file(name: str) -> Path:
    """Return the file of a study. Raises ValueError if there is none."""
    if not name.endswith((".yaml", ".yml")):
        require_name("study", name, sorted(file.stem for file in STUDIES.glob("*.yaml")), ", and paths of .yaml files")
        return STUDIES / f"{name}.yaml"
    if not Path(name).is_file():
        raise ValueError(does_not_exist(name, "files of studies"))
    return Path(name)


class Loader(yaml.BaseLoader):
    """Reads every scalar as text, and each key with its line; a key may be given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Grid:
        found: Grid = {}
        for key, value in node.value:
            name, where = str(self.construct_object(key)), f"{self.name}, line {key.start_mark.line + 1}"
            if name in found:
                raise ValueError(f"{where}: {name!r} is given twice: allowed is once")
            found[name] = Parameter(_items(self.construct_object(value, deep=True)), where)
        return found


def _read(text: bytes | str, where: str) -> Grid | list | str | None:
    """Read YAML, of which nothing is made but texts, lists and mappings."""
    try:
        loader = Loader(text)
        loader.name = where
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def _items(value: object) -> list:
    return value if isinstance(value, list) else [value]


def _typed(name: str, parameter: Parameter, types: dict[str, type]) -> Parameter:
    """Return a parameter with values of its type; that decides what a value means, so a policy may be called 1."""
    values, where = parameter
    require_name(f"{where}: parameter", name, types, f", and at the top of a file {', '.join([*ONCE, 'grids'])}")
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{where}: {name}: allowed is a value, or a list of one or more")
    try:
        return Parameter([types[name](value) for value in values], where)
    except ValueError as error:
        raise ValueError(f"{where}: {name} {', '.join(values)!r}: allowed are {WORDS[types[name]]}") from error


def _expand(kind: type[base.BaseExperiment], grid: Grid, file: Path) -> Iterator[tuple[base.BaseExperiment, range]]:
    """Yield every combination of a grid: an experiment and its seeds."""
    for values in product(*(parameter.values for parameter in grid.values())):
        given = dict(zip(grid, values))
        n_seeds, first = given.pop("n_seeds", 5), given.pop("first_seed", 0)
        try:
            require_whole_number("n_seeds", n_seeds, 1, MAX_COUNT)
            require_whole_number("first_seed", first, 0, MAX_SEED + 1 - n_seeds)
            experiment = kind(**given)
        except ValueError as error:  # its message begins with the field's name, or says what else would be allowed
            where = next((grid[word].where for word in str(error).split() if word in grid), file)
            raise ValueError(f"{where}: {error}") from error
        yield experiment, range(first, first + n_seeds)
