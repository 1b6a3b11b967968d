"""Where files are: in the checkout, or, for an installed package, in the current folder and next to the package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_CHECKOUT = (_PACKAGE.parent / "pyproject.toml").is_file()

ROOT = _PACKAGE.parent if _IN_CHECKOUT else Path.cwd()  # relative paths of data, results and tables start here
NOTEBOOKS = (_PACKAGE.parent if _IN_CHECKOUT else _PACKAGE) / "notebooks"
STUDIES = NOTEBOOKS / "studies"
