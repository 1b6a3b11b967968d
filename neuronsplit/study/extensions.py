"""Import policies, growths, schedules and data sets from a file of the user."""

import sys
from collections.abc import Callable
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from neuronsplit.data.datasets import DATASETS
from neuronsplit.growing.how import GROWTHS, Growth
from neuronsplit.growing.when import SCHEDULES, Schedule
from neuronsplit.growing.which import POLICIES, Policy

REGISTRIES = {  # by the field that names an entry: the registry, its name, and what an entry is
    "policy": (POLICIES, "POLICIES", Policy),
    "growth": (GROWTHS, "GROWTHS", Growth),
    "schedule": (SCHEDULES, "SCHEDULES", Schedule),
    "dataset": (DATASETS, "DATASETS", Callable),
}
_imported: dict[Path, str] = {}  # the digest of each file when it was imported
_registered: dict[tuple[str, str], tuple[object, str]] = {}  # by field and name: an entry, and its file's digest


def load_extensions(file: Path | str) -> None:
    """Import a Python file that puts entries of its own into POLICIES, GROWTHS, SCHEDULES or DATASETS.

    A file that this process has imported before is imported again only if its text has changed. "" imports nothing.
    The file is executed like any Python file, so give only files that you trust.

    Raises ValueError where the file cannot be imported, or registers something that is not an entry.
    """
    if file == "":
        return
    file = Path(file).absolute()
    if file.suffix != ".py" or not file.is_file():
        raise ValueError(f"extensions {file}: allowed are Python files that exist")
    digest = sha256(file.read_bytes()).hexdigest()
    if _imported.get(file) == digest:
        return
    before = {field: dict(registry) for field, (registry, _, _) in REGISTRIES.items()}
    try:
        _import(file, f"neuronsplit_extensions_{digest[:12]}")
        new = [
            (field, name, entry) for field, (registry, _, _) in REGISTRIES.items() for name, entry in registry.items()
            if before[field].get(name) is not entry
        ]  # fmt: skip
        for field, name, entry in new:
            _, title, kind = REGISTRIES[field]
            if not isinstance(name, str) or not isinstance(entry, kind):
                raise ValueError(
                    f"extensions {file}: {title}[{name!r}] is a {type(entry).__name__}: allowed is a "
                    f"{kind.__name__} with a text as its name"
                )
    except ValueError:
        for field, entries in before.items():
            registry = REGISTRIES[field][0]
            registry.clear()
            registry.update(entries)
        raise
    _registered.update({(field, name): (entry, digest) for field, name, entry in new})
    _imported[file] = digest


def digests(experiment: object) -> list[str]:
    """The digests of the extension files that registered what an experiment names, so that a changed file counts.

    A data set is not among them, because its tensors have a digest of their own.
    """
    found = []
    for field in ("policy", "growth", "schedule"):
        name = getattr(experiment, field, None)
        entry, digest = _registered.get((field, name), (None, ""))
        if digest and REGISTRIES[field][0].get(name) is entry:
            found.append(digest)
    return found


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
