"""The sub-package `analysis` needs only NumPy, pandas, SciPy and pyarrow."""

import subprocess
import sys
from pathlib import Path

import neuronsplit

CODE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*{name.split(".")[0] for name in sys.modules})
"""


def test_analysis_loads_no_other_large_library():
    """A new interpreter is needed, because this one has loaded all of them."""
    files = (Path(neuronsplit.__file__).parent / "analysis").glob("*.py")
    names = [f"neuronsplit.analysis.{file.stem}" for file in files if file.stem != "__init__"]
    assert len(names) > 3
    printed = subprocess.run([sys.executable, "-c", CODE, *names], capture_output=True, text=True, check=True).stdout
    large = {"numpy", "pandas", "pyarrow", "scipy", "matplotlib", "seaborn", "sklearn", "torch"}
    assert large & set(printed.split()) == {"numpy", "pandas", "pyarrow", "scipy"}
