"""What the cells of a notebook define, so that a network of one notebook can be used in another."""

import json
from types import SimpleNamespace

from neuronsplit.locations import NOTEBOOKS


def definitions(notebook: str, tag: str) -> SimpleNamespace:
    """Execute the cells of a notebook of this project that have a tag; return what they define.

    Raises ValueError where no cell has the tag.
    """
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if tag in cell["metadata"].get("tags", ())]
    if not sources:
        raise ValueError(f"tag {tag!r}: allowed are tags of cells in {notebook}")
    names: dict[str, object] = {"__name__": notebook}
    exec("\n\n".join(sources), names)
    return SimpleNamespace(**names)
