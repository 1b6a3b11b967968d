"""A study file: which experiments are to be run."""

import math
from dataclasses import fields
from itertools import product
from pathlib import Path

import yaml

from neuronsplit.branches import Branching
from neuronsplit.study import ROOT, Experiment, Plan

STUDIES = ROOT / "notebooks" / "studies"
MOST = 10_000  # experiments in a study
KINDS = {"experiment": Experiment, "branches": Branching}


def read_study(name: str) -> dict:
    """The parameters of a study: notebooks/studies/NAME.yaml, or another .yaml file. Raises ValueError if it is none.

    They are those of `Experiment`, or of another of KINDS that `kind` names, each a value or a list; `each` and `zip`
    (see experiments); and `report`, the notebook that reports on the study's table, where it is not the kind's own.
    """
    file = Path(name) if name.endswith(".yaml") else STUDIES / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(f"study {name!r}: allowed are {', '.join(sorted(f.stem for f in STUDIES.glob('*.yaml')))}")
    try:
        parameters = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(parameters, dict):
        raise ValueError(f"{file} holds {type(parameters).__name__}: allowed are lines of 'parameter: value'")
    return number_or_text(parameters)


def number_or_text(value: object) -> object:
    """What a written value means, as papermill takes it on its command line: 1e-3 is a number (YAML says a text)."""
    if isinstance(value, dict):
        return {name: number_or_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [number_or_text(one) for one in value]
    for kind in (int, float):
        try:
            return kind(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value


def experiments(parameters: dict) -> list[Plan]:
    """The experiments of a study, all of one of KINDS, each once: every combination of the parameters that are lists.

    `each`, a list of further parameters, stands for as many studies in one: the rest with each of them. `zip` holds
    lists of one length that go side by side. Raises ValueError for a parameter that is none, a list that is empty or
    names a value twice, and more than MOST experiments.
    """
    common = {name: value for name, value in parameters.items() if name not in ("kind", "each", "zip")}
    kind = parameters.get("kind", "experiment")
    if kind not in tuple(KINDS):
        raise ValueError(f"kind {kind!r}: allowed are {', '.join(KINDS)}")
    each, beside = parameters.get("each", [{}]), parameters.get("zip", {})
    if not (isinstance(each, list) and each and all(isinstance(block, dict) for block in each)):
        raise ValueError(f"each {each!r}: allowed are lists of parameters")
    if not (isinstance(beside, dict) and all(isinstance(values, list) and values for values in beside.values())):
        raise ValueError(f"zip {beside!r}: allowed are parameters with lists")
    if len({len(values) for values in beside.values()}) > 1:
        raise ValueError(f"zip {beside!r}: allowed are lists of one length")
    zipped = [dict(zip(beside, values)) for values in zip(*beside.values())] or [{}]
    blocks = [common | block | one for block in each for one in zipped]
    size = sum(math.prod(len(v) for v in block.values() if isinstance(v, list)) for block in blocks)
    if size > MOST:
        raise ValueError(f"{size} experiments: allowed are {MOST} in a study")
    return list(dict.fromkeys(e for block in blocks for e in _combinations(KINDS[kind], block)))


def _combinations(kind: type[Plan], parameters: dict) -> list[Plan]:
    allowed = [field.name for field in fields(kind)]
    for name, value in parameters.items():
        if name not in allowed:
            raise ValueError(f"parameter {name!r}: allowed are {', '.join(allowed)}")
        if value == []:
            raise ValueError(f"{name} []: allowed are one value or more")
        if isinstance(value, list) and any(one in value[:place] for place, one in enumerate(value)):
            raise ValueError(f"{name} {value}: allowed are different values")
    lists = [value if isinstance(value, list) else [value] for value in parameters.values()]
    return [kind(**dict(zip(parameters, values))) for values in product(*lists)]
