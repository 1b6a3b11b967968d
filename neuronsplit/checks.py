"""Checks of what a user gives, and what their errors say: the value, the nearest allowed name, and all of them."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path
from traceback import walk_tb

MAX_SEED = 2**32
MAX_COUNT = 100_000  # the largest number of neurons, epochs, seeds and the like
EXTENSIONS = "neuronsplit_extensions"  # the name that a file of a user has as a module
NEAR = 0.75  # the similarity from which a name is suggested; at 0.6, "width" would be suggested for "depth"


def nearest(value: object, names: Iterable[object]) -> str:
    """Return " (did you mean 'name'?)" with the name that is nearest to a value, or "" where none is near."""
    value, names = str(value), [*map(str, names)]
    ends = [name for name in names if name.endswith(f".{value}")]  # its own name in a wrapper, such as module.fc
    near = ends or get_close_matches(value, names, n=1, cutoff=NEAR)
    return f" (did you mean {near[0]!r}?)" if near else ""


def not_allowed(what: str, value: object, names: Iterable[object], more: str = "") -> str:
    """Return the message of an error: a value is none of some names.

    more: what is allowed besides them, such as ", or a path".
    """
    names = [*map(str, names)]
    return f"{what} {value!r}{nearest(value, names)}: allowed are {', '.join(names)}{more}"


def require_name(what: str, value: object, names: Iterable[object], more: str = "") -> None:
    """Raise ValueError unless a value is one of some names."""
    if value not in (names := tuple(names)):
        raise ValueError(not_allowed(what, value, names, more))


def require_fields(cls: type, given: Iterable[str]) -> None:
    """Raise TypeError unless all of some names are those of fields of a dataclass."""
    allowed = [field.name for field in fields(cls)]
    for name in given:
        if name not in allowed:
            raise TypeError(not_allowed(f"{cls.__name__} field", name, allowed))


def require_whole_number(name: str, value: object, lowest: int, highest: int) -> None:
    """Raise ValueError unless a value is a whole number between two others."""
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{name} {value!r}: allowed are whole numbers from {lowest} to {highest}")


def checked_seeds(seeds: Iterable[int]) -> list[int]:
    """Return seeds as a list. Raises ValueError unless they are one or more different whole numbers."""
    if not isinstance(seeds, Iterable):
        raise ValueError(f"seeds {seeds!r}: allowed is a list, such as range(5)")
    seeds = [int(seed) if isinstance(seed, Integral) and not isinstance(seed, bool) else seed for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds) or any(type(s) is not int or not 0 <= s <= MAX_SEED for s in seeds):
        raise ValueError(f"seeds {seeds}: allowed are different whole numbers from 0 to {MAX_SEED}")
    return seeds


def does_not_exist(path: Path | str, allowed: str) -> str:
    """Return the message of an error: a file or folder is not there. A relative path is one from the current folder."""
    path = Path(path)
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    first_missing = path.absolute().relative_to(folder).parts[0]
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    return f"{path} does not exist{where}{nearest(first_missing, _names_in(folder))}: allowed are {allowed}"


def _names_in(folder: Path) -> list[str]:
    try:
        return [one.name for one in folder.iterdir()]
    except OSError:  # no right to look into it
        return []


def suggesting(getter: Callable, lister: Callable, names: list[str]) -> tuple[Callable, Callable, list[str]]:
    """Return what `lazy_loader` attaches to a module, such that an unknown name is told the nearest one."""

    def get(name: str) -> object:
        if name not in names and not name.startswith("_"):  # tools look for names such as __path__
            raise AttributeError(not_allowed("name", name, names))
        return getter(name)

    return get, lister, names


def describe_error(error: BaseException) -> str:
    """Return an error in one line, with the innermost line of a user's file that it comes from, if there is one."""
    frames = [(frame.f_globals.get("__name__"), frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    places = [f"at {Path(code.co_filename).name}:{line}" for module, code, line in frames if module == EXTENSIONS]
    return " ".join([*f"{type(error).__name__}: {error}".split(), *places[-1:]])
