"""A study file says which experiments are run."""

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import product
from pathlib import Path

import yaml

from neuronsplit.growing.how import GROWTHS
from neuronsplit.names import CONTROLS
from neuronsplit.study.exhaustive_splits import ExhaustiveSplits
from neuronsplit.study.experiment import Experiment, Plan
from neuronsplit.study.store import ROOT

STUDIES = ROOT / "notebooks" / "studies"
MOST = 10_000  # experiments in a study
KINDS = {"experiment": Experiment, "all-splits": ExhaustiveSplits}
NEW_NAMES = {  # of parameters and a kind, by their names in earlier versions
    "rule": "growth", "still": "epochs = splits + still", "repeats": "n_seeds", "grown": "prior_splits",
    "age": "epochs_before", "branches": "all-splits",
}  # fmt: skip
TEXTS = {field.name for kind in KINDS.values() for field in fields(kind) if field.type is str}
TEXTS |= {"kind", "report", "extensions"}  # parameters that are text, whatever they look like


def study_file(name: str) -> Path:
    """The file of a study: notebooks/studies/NAME.yaml, or another .yaml file. Raises ValueError if there is none."""
    file = Path(name) if name.endswith(".yaml") else STUDIES / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(f"study {name!r}: allowed are {', '.join(sorted(f.stem for f in STUDIES.glob('*.yaml')))}")
    return file


def read_study(name: str) -> dict:
    """Read the parameters of a study. Raises ValueError where it has no file, or the file does not define a study.

    Parameters are the fields of `Experiment`, or of another class in KINDS that `kind` names. Each is a value or a
    list. `each` and `zip` are explained in `experiments`. `report` names the notebook that reports on the study, if it
    is not the default. `extensions` names a Python file that `load_extensions` imports, relative to the study file.
    """
    file = study_file(name)
    try:
        parameters = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(parameters, dict):
        raise ValueError(f"{file} holds {type(parameters).__name__}: allowed are lines of 'parameter: value'")
    return {name: number_or_text(value, name) for name, value in parameters.items()}


def extensions_file(study: str, parameters: dict) -> str:
    """The file of a study's own policies, growths, schedules and data sets, from the root; "" where it has none."""
    file = parameters.get("extensions", "")
    if not isinstance(file, str):
        raise ValueError(f"extensions {file!r}: allowed are Python files that exist")
    return str((study_file(study).parent / file).absolute()) if file else ""


def number_or_text(value: object, name: str) -> object:
    """What a value means, as papermill takes it on its command line: 1e-3 is a number, which YAML takes for text.

    name is that of the parameter, for those of TEXTS stay text: a policy may be called "nan".
    """
    if isinstance(value, dict):
        return {inner: number_or_text(one, inner) for inner, one in value.items()}
    if isinstance(value, list):
        return [number_or_text(one, name) for one in value]
    for kind in (int, float) if isinstance(value, str) and name not in TEXTS else ():
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def experiments(parameters: dict) -> list[Plan]:
    """The experiments of a study, all of one of KINDS: every combination of the parameters that are lists.

    `each`, a list of further parameters, stands for as many studies in one: the rest with each of them. `zip` holds
    lists of one length that go side by side. Of experiments that would train the same, the first is kept.

    Raises ValueError for a parameter that does not exist, and for a list that is empty or names a value twice.
    Raises ValueError for more than MOST experiments.
    """
    own = ("kind", "each", "zip", "extensions")
    common = {name: value for name, value in parameters.items() if name not in own}
    if parameters.get("kind", "experiment") not in tuple(KINDS):
        raise ValueError(f"kind {parameters['kind']!r}: {_what_is_allowed(parameters['kind'], KINDS)}")
    kind = KINDS[parameters.get("kind", "experiment")]
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
    found: dict[Plan, Plan] = {}  # by what they would train
    for block in blocks:
        _refuse_bad_lists(kind, block)
        lists = [value if isinstance(value, list) else [value] for value in block.values()]
        for values in product(*lists):
            experiment = kind(**dict(zip(block, values)))
            found.setdefault(_what_it_trains(experiment), experiment)
    return list(found.values())


def _refuse_bad_lists(kind: type[Plan], parameters: dict) -> None:
    allowed = [field.name for field in fields(kind)]
    for name, value in parameters.items():
        if name not in allowed:
            raise ValueError(f"parameter {name!r}: {_what_is_allowed(name, allowed)}")
        if value == []:
            raise ValueError(f"{name} []: allowed are one value or more")
        if isinstance(value, list) and any(one in value[:place] for place, one in enumerate(value)):
            raise ValueError(f"{name} {value}: allowed are different values")


def _what_is_allowed(name: object, allowed: Iterable[str]) -> str:
    return f"allowed is now {NEW_NAMES[name]}" if name in tuple(NEW_NAMES) else f"allowed are {', '.join(allowed)}"


def _what_it_trains(experiment: Plan) -> Plan:
    """An experiment with the defaults of what has no effect: it is the same for all that would train the same."""
    if not isinstance(experiment, Experiment):
        return experiment
    if experiment.policy in CONTROLS:
        return replace(experiment, growth=Experiment.growth, schedule=Experiment.schedule)
    if not GROWTHS[experiment.growth].needs_parent:
        return replace(experiment, policy=Experiment.policy)
    return experiment
