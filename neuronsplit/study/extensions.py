"""Import policies, growths, schedules and data sets from a file of the user."""

import inspect
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

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


def _is_of_the_package(entry: object) -> bool:
    parts = entry if isinstance(entry, tuple) else (entry,)
    functions = [part.func if isinstance(part, partial) else part for part in parts if callable(part)]
    return all(str(function.__module__).startswith("neuronsplit.") for function in functions)


BUILT_IN = {  # as it is when this module is imported, by field and name; a notebook may have registered more by then
    field: {name: entry for name, entry in registry.items() if _is_of_the_package(entry)}
    for field, (registry, _, _) in REGISTRIES.items()
}
Entries = dict[tuple[str, str], object]  # by field and name
_imported: dict[Path, tuple[str, Entries]] = {}  # of each file: its digest when it was imported, and its entries
_registered: dict[tuple[str, str], tuple[object, str]] = {}  # by field and name: an entry, and its file's digest


def load_extensions(file: Path | str) -> None:
    """Import a Python file that puts entries of its own into POLICIES, GROWTHS, SCHEDULES or DATASETS.

    A file that this process has imported before is imported again only if its text has changed. Its entries become
    current in any case. Those that a changed file no longer registers are removed. "" imports nothing.
    The file is executed like any Python file, so give only files that you trust.

    Raises ValueError where the file cannot be imported, or registers something that is not an entry.
    """
    if file == "":
        return
    file = Path(file).absolute()
    if file.suffix != ".py" or not file.is_file():
        raise ValueError(f"extensions {file}: allowed are Python files that exist")
    digest = sha256(file.read_bytes()).hexdigest()
    known, entries = _imported.get(file, ("", {}))
    if known != digest:
        entries = _import_entries(file, f"neuronsplit_extensions_{digest[:12]}", entries)
    for (field, name), entry in entries.items():
        REGISTRIES[field][0][name] = entry
        _registered[field, name] = entry, digest
    _imported[file] = digest, entries


def refuse_reserved_names() -> None:
    """Raise ValueError where POLICIES has the name of a control or of the greedy choice."""
    for name in (reserved := (*CONTROLS, GREEDY)):
        if name in POLICIES:
            raise ValueError(f"policy {name!r} in POLICIES: allowed are names other than {', '.join(reserved)}")


def digests(experiment: object) -> list[str]:
    """Return a digest of each entry that an experiment names and the package does not register, so that changes count.

    It is that of the extension file that registered the entry, or else of the source of the entry's functions. What
    these call, and the attributes of objects, do not count. A data set does not, because its tensors have a digest.
    """
    found = []
    for field in ("policy", "growth", "schedule"):
        name = getattr(experiment, field, None)
        entry = REGISTRIES[field][0].get(name)
        if entry is not BUILT_IN[field].get(name):
            registered, digest = _registered.get((field, name), (None, ""))
            found.append(digest if registered is entry else sha256(_source(entry).encode()).hexdigest())
    return found


def _source(value: object) -> str:
    """Return the source of functions, or their code where there is none, with the values that are bound to them."""
    if isinstance(value, tuple | list):
        return str([_source(one) for one in value])
    if isinstance(value, partial):
        return _source([value.func, value.args, *sorted(value.keywords.items())])
    if inspect.iscode(value):
        return _source([value.co_code, value.co_names, value.co_consts])
    if not callable(value):
        return repr(value)
    function = value if hasattr(value, "__code__") else type(value).__call__
    if not hasattr(function, "__code__"):  # it is not written in Python
        return f"{value.__module__}.{getattr(value, '__name__', type(value).__name__)}"
    try:
        source = inspect.getsource(function)
    except OSError:
        source = function.__code__
    bound = [cell.cell_contents for cell in function.__closure__ or () if cell.cell_contents is not function]
    return _source([source, function.__defaults__, bound])


def _import_entries(file: Path, module: str, old: Entries) -> Entries:
    """Import a file under a module name, and return its entries; its old ones are taken out of the registries."""
    before = {field: dict(registry) for field, (registry, _, _) in REGISTRIES.items()}
    try:
        for (field, name), entry in old.items():
            registry = REGISTRIES[field][0]
            if registry.get(name) is entry:
                del registry[name]
                if name in BUILT_IN[field]:
                    registry[name] = BUILT_IN[field][name]
        others = {field: dict(registry) for field, (registry, _, _) in REGISTRIES.items()}
        _import(file, module)
        entries = {
            (field, name): entry for field, (registry, _, _) in REGISTRIES.items() for name, entry in registry.items()
            if others[field].get(name) is not entry
        }  # fmt: skip
        for (field, name), entry in entries.items():
            _, title, kind = REGISTRIES[field]
            if not isinstance(name, str) or not isinstance(entry, kind):
                raise ValueError(
                    f"extensions {file}: {title}[{name!r}] is a {type(entry).__name__}: allowed is a "
                    f"{kind.__name__} with a text as its name"
                )
        refuse_reserved_names()
    except ValueError:
        for field, all_entries in before.items():
            registry = REGISTRIES[field][0]
            registry.clear()
            registry.update(all_entries)
        raise
    return entries


def _import(file: Path, name: str) -> None:
    loader = _Loader(name, str(file))
    module = sys.modules[name] = module_from_spec(spec_from_loader(name, loader))
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"extensions {file} cannot be imported ({text}): allowed are files that can") from error


class _Loader(SourceFileLoader):
    """A loader without bytecode files, because these notice a change only by the file's time in full seconds."""

    def get_code(self, fullname: str):
        return self.source_to_code(self.get_data(self.path), self.path)
