"""Results are in a folder, or at an address that fsspec knows, such as s3://bucket/study."""

from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec
from fsspec import AbstractFileSystem

Place = Path | str  # a folder, or an address with ://


def place(text: str) -> Place:
    """Read the place of results from the command line: an address as it is, a folder as an absolute path.

    Raises ArgumentTypeError for an empty address, and for one in the memory of a process.
    """
    if "://" not in text:
        return Path(text).absolute()
    kind, _, rest = text.partition("://")
    if not kind or not rest.strip("/") or kind == "memory":
        raise ArgumentTypeError(f"{text}: allowed are folders and addresses such as s3://bucket/study")
    return text.rstrip("/")


@contextmanager
def at_hand(results: Place, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Path]:
    """A folder with the results of a place: the folder itself, or a copy of the wanted files from an address.

    Changes in a copy are stored at the end. JSON files come last, because they say that a table is complete.
    Raises OSError where an address cannot be reached or written.
    Raises ValueError where fsspec lacks a package that the address needs.
    """
    if isinstance(results, Path):
        yield results
        return
    with TemporaryDirectory() as folder:
        try:
            files, root = fsspec.core.url_to_fs(results)
            files.invalidate_cache()  # others write there too
            for name in filter(wanted, _names(files, root)):
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # set aside by others meanwhile
                    files.get_file(f"{root}/{name}", f"{folder}/{name}")
        except ImportError as error:
            raise ValueError(f"{results}: {error}") from error
        except Exception as error:
            raise OSError(f"{results} cannot be reached ({type(error).__name__}: {error})") from error
        before = _digests(Path(folder))
        try:
            yield Path(folder)
        finally:
            after = _digests(Path(folder))
            try:
                for name in sorted(after, key=lambda name: name.endswith(".json")):
                    if after[name] != before.get(name):
                        files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                        files.put_file(f"{folder}/{name}", f"{root}/{name}")
                for name in before.keys() - after.keys():
                    files.rm_file(f"{root}/{name}")
            except Exception as error:
                raise OSError(f"{results} cannot be written ({type(error).__name__}: {error})") from error


def _names(files: AbstractFileSystem, root: str) -> list[str]:
    """The names of the files under an address, without names that only stand for a folder."""
    try:
        found = [file.removeprefix(root).lstrip("/") for file in files.find(root)]
    except FileNotFoundError:
        return []
    return [name for name in found if name and not name.endswith("/")]


def _digests(folder: Path) -> dict[str, bytes]:
    """A digest of each file by its name, apart from files that are being written."""
    found = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".part")
    return {file.relative_to(folder).as_posix(): sha256(file.read_bytes()).digest() for file in found}
