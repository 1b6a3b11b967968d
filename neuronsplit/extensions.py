"""Policies, growths, schedules and data sets of the user: loaded from a file, and told apart by their source."""

import inspect
import runpy
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from neuronsplit.checks import EXTENSIONS, describe_error
from neuronsplit.data.datasets import DATASETS
from neuronsplit.growing.how import GROWTHS, Growth
from neuronsplit.growing.when import SCHEDULES, Schedule
from neuronsplit.growing.which import POLICIES, Policy
from neuronsplit.names import CONTROLS, GREEDY

REGISTRIES = {  # by the field that names an entry: the registry, its name, and what an entry is
    "policy": (POLICIES, "POLICIES", Policy),
    "growth": (GROWTHS, "GROWTHS", Growth),
    "schedule": (SCHEDULES, "SCHEDULES", Schedule),
    "dataset": (DATASETS, "DATASETS", Callable),
}
# what an error says besides the names that are there
OWN = {field: f", and your own in ns.{title} or a study's extensions" for field, (_, title, _) in REGISTRIES.items()}
_texts: dict[str, str] = {}  # of the files that were loaded, as they were then


def load_extensions(file: Path | str) -> None:
    """Execute a Python file that puts entries of its own into POLICIES, GROWTHS, SCHEDULES or DATASETS.

    "" executes nothing. Give only files that you trust.

    Raises ValueError where the file cannot be executed, or registers something that is not an entry.
    """
    if file == "":
        return
    path = Path(file).absolute()
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"extensions {str(file)!r}: allowed are Python files that exist")
    before = {field: dict(registry) for field, (registry, _, _) in REGISTRIES.items()}
    try:
        _execute(path)
        _refuse_what_is_no_entry(file)
        refuse_reserved_names()
    except ValueError:
        for field, (registry, _, _) in REGISTRIES.items():
            registry.clear()
            registry.update(before[field])
        raise


def _execute(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        sys.path.insert(0, str(path.parent))  # so that the file can import its neighbours
        runpy.run_path(str(path), run_name=EXTENSIONS)
        _texts[str(path)] = text
    except (Exception, SystemExit) as error:
        said = f"cannot be executed ({describe_error(error)})"
        raise ValueError(f"extensions {str(path)!r} {said}: allowed are files that can") from error
    finally:
        if str(path.parent) in sys.path:
            sys.path.remove(str(path.parent))


def _refuse_what_is_no_entry(file: Path | str) -> None:
    for field, (registry, _, _) in REGISTRIES.items():
        for name in registry:
            try:
                require_entry(field, name)
            except ValueError as error:
                raise ValueError(f"extensions {str(file)!r}: {error}") from error


def require_entry(field: str, name: object) -> None:
    """Raise ValueError where a registry has something under a name that is not an entry."""
    registry, title, kind = REGISTRIES.get(field, ({}, "", object))
    if name in registry and not (isinstance(name, str) and isinstance(registry[name], kind)):
        what = f"{title}[{name!r}] is a {type(registry[name]).__name__}"
        raise ValueError(f"{what}: allowed is a {kind.__name__} with a text as its name")


def refuse_reserved_names() -> None:
    """Raise ValueError where POLICIES has the name of a control or of the greedy choice."""
    for name in (reserved := (*CONTROLS, GREEDY)):
        if name in POLICIES:
            raise ValueError(f"policy {name!r} in POLICIES: allowed are names other than {', '.join(reserved)}")


def describe_entries(fields: dict) -> list[str]:
    """Return texts that change if what a policy, growth or schedule in some fields does is changed.

    A function of the package counts by its name, one of a file by the text of the file, and another by its own source.
    What the last calls, and the attributes of objects, do not count.
    """
    entries = [REGISTRIES[field][0].get(fields.get(field)) for field in ("policy", "growth", "schedule")]
    return [_describe(entry) for entry in entries if entry is not None]


def _describe(value: object) -> str:
    if isinstance(value, tuple | list):
        return str([_describe(one) for one in value])
    if isinstance(value, partial):
        return _describe([value.func, value.args, *sorted(value.keywords.items())])
    if not callable(value):
        return repr(value)
    code = getattr(value, "__code__", None) or getattr(type(value).__call__, "__code__", None)
    bound = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    bound = [content for content in bound if content is not value]
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return _describe([value.__module__, name, _source(code, value), getattr(value, "__defaults__", None), *bound])


def _source(code: object, value: Callable) -> str:
    if code is None or str(value.__module__).startswith("neuronsplit."):
        return ""
    if code.co_filename in _texts:
        return _texts[code.co_filename]
    if Path(code.co_filename).is_file():
        return Path(code.co_filename).read_text(encoding="utf-8")
    if code.co_filename != "<string>":  # that of exec, under which Python 3.13 has the text of `python -c`
        with suppress(OSError):  # it was typed into Python's prompt
            return inspect.getsource(code)  # of a notebook's cell
    constants = [_source(one, value) if inspect.iscode(one) else repr(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
