"""Reading a table and drawing a figure loads no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

import neuronsplit

PACKAGE = Path(neuronsplit.__file__).parent
CODE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
loaded = {name.split(".")[0] for name in sys.modules}
print("torch" in loaded, {"pandas", "matplotlib"} & loaded)
"""


@pytest.mark.parametrize("part, loaded", [("analysis", "{'pandas'}"), ("plots", None)])
def test_no_module_loads_torch(part, loaded):
    """`analysis` loads no matplotlib either. A new interpreter is needed, because this one has loaded all of them."""
    files = [file for file in sorted((PACKAGE / part).glob("*.py")) if file.stem != "__init__"]
    assert len(files) > 3
    names = [f"neuronsplit.{part}.{file.stem}" for file in files]
    printed = subprocess.run([sys.executable, "-c", CODE, *names], capture_output=True, text=True, check=True).stdout
    torch, others = printed.strip().split(" ", 1)
    assert torch == "False" and others == (loaded or others)
