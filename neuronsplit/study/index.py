"""The page of a study that has run: each experiment with its state, its numbers and a small picture, in one file."""

import base64
import io
import json
from dataclasses import asdict
from html import escape
from pathlib import Path

from PIL import Image

from neuronsplit.study.experiment import Plan
from neuronsplit.study.store import load

THUMBNAIL = (320, 120)  # pixels
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { text-align: left; padding: .4rem .8rem; border-bottom: 1px solid #ddd }
td.number { text-align: right; font-variant-numeric: tabular-nums } .failed { color: #b2182b } img { display: block }
"""


def write_index(study: str, states: dict[Plan, str], folder: Path) -> None:
    """Write index.html into the folder of a study. Its links are relative, so that the folder can be moved."""
    given = [asdict(experiment) for experiment in states]
    same = {name: value for name, value in given[0].items() if all(one[name] == value for one in given)}
    differ = [name for name in given[0] if name not in same]
    ends = next(iter(states)).ends
    names = [*differ, "state", *ends, "curves", ""]
    rows = "\n".join(_row(experiment, state, differ, folder) for experiment, state in states.items())
    report = '<p><a href="report.html">The report</a></p>' if (folder / "report.html").exists() else ""
    (folder / "index.html").write_text(
        f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(study)}</title><style>{STYLE}</style>
<h1>{escape(study)}</h1>
<p>{len(states)} experiments; the same in all: {escape(", ".join(f"{k} {v}" for k, v in same.items()))}.</p>
{report}
<table><thead><tr>{"".join(f"<th>{escape(name)}</th>" for name in names)}</tr></thead>
<tbody>
{rows}
</tbody></table></html>
"""
    )


def _row(experiment: Plan, state: str, differ: list[str], folder: Path) -> str:
    cells = [f"<td>{escape(str(getattr(experiment, name)))}</td>" for name in differ]
    cells.append(f'<td class="{escape(state.split(":")[0])}">{escape(state)}</td>')
    cells += [f'<td class="number">{value}</td>' for value in _ends(experiment, folder)]
    notebook = folder / f"{experiment.name}.ipynb"
    picture = thumbnail(notebook)
    source = "" if picture is None else f'<img alt="curves" src="data:image/png;base64,{picture}">'
    files = [notebook, notebook.with_suffix(".csv"), notebook.with_suffix(".json")]
    links = " ".join(f'<a href="{escape(f.name)}">{f.suffix[1:]}</a>' for f in files if f.exists())
    return f"<tr>{''.join(cells)}<td>{source}</td><td>{links}</td></tr>"


def _ends(experiment: Plan, folder: Path) -> list[str]:
    table = load(experiment, folder)
    if table is None:
        return [""] * len(experiment.ends)
    last = table[table[experiment.by] == table[experiment.by].max()]
    return [f"{number(last):.4f}" for number in experiment.ends.values()]


def outputs(notebook: Path) -> list[dict]:
    """The outputs of all cells of an executed notebook; none where it does not exist or is damaged."""
    try:
        cells = json.loads(notebook.read_text())["cells"]
    except (FileNotFoundError, ValueError):
        return []
    return [output for cell in cells for output in cell.get("outputs", [])]


def thumbnail(notebook: Path) -> str | None:
    """The first picture in an executed notebook as a small PNG in base64; None where there is none."""
    found = (output.get("data", {}).get("image/png") for output in outputs(notebook))
    picture = next(filter(None, found), None)
    if picture is None:
        return None
    image, small = Image.open(io.BytesIO(base64.b64decode(picture))), io.BytesIO()
    image.thumbnail(THUMBNAIL)
    image.save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()
