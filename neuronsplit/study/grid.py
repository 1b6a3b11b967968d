"""Read a study file: a list of grids of the fields of experiments."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import NamedTuple

import yaml

from neuronsplit.extensions import load_extensions
from neuronsplit.locations import NOTEBOOKS, STUDIES
from neuronsplit.study.base import MAX_COUNT, MAX_SEED, BaseExperiment
from neuronsplit.study.batches import Plan
from neuronsplit.study.exhaustive_splits import ExhaustiveSplits
from neuronsplit.study.experiment import Experiment

MAX_EXPERIMENTS = 10_000  # in a study
TYPES = {"experiment": Experiment, "all-splits": ExhaustiveSplits}
SEEDS = {"n_seeds": int, "first_seed": int}
ONCE = {"type": str, "extensions": str, "report": str, "grids": list}  # only at the top of a file
FIELD_TYPES = {field.name: field.type for kind in TYPES.values() for field in fields(kind)} | SEEDS | ONCE
WORDS = {int: "whole numbers", float: "numbers", str: "texts", list: "lists of grids"}  # what a type allows
NEW_NAMES = {  # of parameters, by their names in earlier versions
    "rule": "growth", "still": "epochs = splits + still", "repeats": "n_seeds", "grown": "prior_splits",
    "age": "epochs_before", "each": "grids", "zip": "grids", "kind": "type", "seed": "first_seed",
}  # fmt: skip


class Parameter(NamedTuple):
    """The values of a parameter, and where they stand: a file and a line, or the command line."""

    values: list
    where: str


Grid = dict[str, Parameter]


@dataclass(frozen=True)
class Study:
    """What a study file says: the experiments with their seeds, and the notebook that reports on them."""

    name: str
    plan: Plan
    report: Path
    extensions: str  # the path of a Python file, or ""
    changes: Mapping[str, str]  # of its parameters, as given on the command line


def read_study(name: str, changes: Mapping[str, object] | None = None) -> Study:
    """Read a study by its name in notebooks/studies, or by the path of a .yaml or .yml file.

    changes: values for parameters at the top of the file, as on the command line. Extensions are executed.
    Parameters are the fields of `Experiment`, or of the class in TYPES that `type` names, and n_seeds and first_seed.
    Each is a value or a list of values, and every combination of them is an experiment. `grids` is a list of further
    parameters, and stands for several studies in one. Of experiments that train the same, the first is kept.
    `extensions` is a file for `load_extensions`, and `report` a notebook of the user; paths count from the study file.

    Raises ValueError where the file is missing or does not define a study; the message names the line.
    """
    file, changes = study_file(name), {name: str(value) for name, value in (changes or {}).items()}
    top = _read_grid(_compose(file.read_bytes(), str(file)), file)
    grids = [_read_grid(node, file) for node in top.pop("grids", Parameter([], "")).values]
    if "grids" in changes:
        raise ValueError("-p grids: allowed are parameters with values")
    for key, text in changes.items():
        top[key] = _read_parameter(key, _compose(text.encode(), f"-p {key}"), f"-p {key}")
    for key, parameter in [(key, parameter) for grid in grids for key, parameter in grid.items()]:
        if key in changes or key in ONCE:
            raise ValueError(f"{parameter.where}: {key!r} is set in a grid: allowed is the top of the file, without -p")
    once = {key: parameter for key in ONCE if (parameter := top.pop(key, None)) and parameter.values != [""]}
    kind = once.pop("type", Parameter(["experiment"], "")).values[0]
    if kind not in TYPES:
        raise ValueError(f"{file}: type {kind!r}: allowed are {', '.join(TYPES)}")
    folders = {key: Path() if key in changes else file.parent for key in once}
    paths = {key: (folders[key] / parameter.values[0]).absolute() for key, parameter in once.items()}
    load_extensions(paths.get("extensions", ""))
    report = paths.get("report", NOTEBOOKS / f"{TYPES[kind].report}.ipynb")
    if report.suffix != ".ipynb" or not report.is_file():
        raise ValueError(f"{file}: report {str(report)!r}: allowed are notebooks that exist")
    plan = _expand(TYPES[kind], [top | grid for grid in grids or [{}]], file)
    return Study(file.stem, plan, report, str(paths.get("extensions", "")), changes)


def study_file(name: str) -> Path:
    """Return the file of a study. Raises ValueError if there is none."""
    is_path = name.endswith((".yaml", ".yml"))
    for file in [Path(name)] if is_path else [STUDIES / f"{name}.yaml", STUDIES / f"{name}.yml"]:
        if file.is_file():
            return file
    names = sorted(file.stem for file in STUDIES.glob("*.y*ml"))
    raise ValueError(f"study {name!r}: allowed are {', '.join(names)}, and paths of .yaml files")


def _compose(text: bytes, where: str) -> yaml.Node | None:
    """Return the nodes of a YAML text, of which nothing is constructed."""
    try:
        return yaml.compose(text.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def _read_grid(node: yaml.Node | None, file: Path) -> Grid:
    """Read parameters from a mapping; a list stands for its grids."""
    if isinstance(node, yaml.SequenceNode):
        return {"grids": _read_parameter("grids", node, str(file))}
    if not isinstance(node, yaml.MappingNode):
        where = f"{file}, line {node.start_mark.line + 1}" if node else str(file)
        raise ValueError(f"{where}: allowed are lines of 'parameter: value'")
    grid: Grid = {}
    for key, value in node.value:
        where, name = f"{file}, line {key.start_mark.line + 1}", _text_of(key)
        if name in grid:
            raise ValueError(f"{where}: {name!r} is given twice: allowed is once")
        grid[name] = _read_parameter(name, value, where)
    return grid


def _read_parameter(name: str, node: yaml.Node | None, where: str) -> Parameter:
    """Read the values of a parameter; its type decides what a value means, so that a policy may be called 1 or null."""
    if name not in FIELD_TYPES:
        allowed = f"is now {NEW_NAMES[name]}" if name in NEW_NAMES else f"are {', '.join(FIELD_TYPES)}"
        raise ValueError(f"{where}: parameter {name!r}: allowed {allowed}")
    kind, values = FIELD_TYPES[name], []
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node] if node and kind is not list else []
    if not nodes or (name in ONCE and kind is str and len(nodes) > 1):
        allowed = "is one text" if name in ONCE and kind is str else f"are {WORDS[kind]}, one or more"
        raise ValueError(f"{where}: {name} has {len(nodes)} values: allowed {allowed}")
    for one in nodes:
        try:
            values.append(one if kind is list else kind(_text_of(one)))
        except ValueError:
            raise ValueError(f"{where}: {name} {_text_of(one)!r}: allowed are {WORDS[kind]}") from None
        if values[-1] in values[:-1]:
            raise ValueError(f"{where}: {name} {values[-1]!r} is given twice: allowed are different values")
    return Parameter(values, where)


def _text_of(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else "[…]"


def _expand(kind: type[BaseExperiment], grids: list[Grid], file: Path) -> Plan:
    """Return the experiments of all grids with their seeds."""
    size = sum(math.prod(len(parameter.values) for parameter in grid.values()) for grid in grids)
    if size > MAX_EXPERIMENTS:
        raise ValueError(f"{file}: {size} experiments: allowed are {MAX_EXPERIMENTS} in a study")
    allowed = [*(field.name for field in fields(kind)), *SEEDS]
    first: dict[BaseExperiment, BaseExperiment] = {}  # of those that train the same
    plan: dict[BaseExperiment, dict[int, None]] = {}
    for grid in grids:
        for name, parameter in grid.items():
            if name not in allowed:
                raise ValueError(f"{parameter.where}: parameter {name!r}: allowed are {', '.join(allowed)}")
        for values in product(*(parameter.values for parameter in grid.values())):
            given = dict(zip(grid, values))
            n_seeds, start = given.pop("n_seeds", 5), given.pop("first_seed", 0)
            if not (0 < n_seeds <= MAX_COUNT and 0 <= start <= MAX_SEED - n_seeds + 1):
                allowed_seeds = f"1 to {MAX_COUNT} seeds from 0 to {MAX_SEED}"
                where = grid.get("n_seeds", grid.get("first_seed")).where
                raise ValueError(f"{where}: n_seeds {n_seeds}, first_seed {start}: allowed are {allowed_seeds}")
            try:
                experiment = kind(**given)
            except ValueError as error:  # its message begins with the field's name
                raise ValueError(f"{grid.get(str(error).split()[0], Parameter([], file)).where}: {error}") from error
            experiment = first.setdefault(experiment.canonical, experiment)
            plan.setdefault(experiment, {}).update(dict.fromkeys(range(start, start + n_seeds)))
    return {experiment: tuple(seeds) for experiment, seeds in plan.items()}
