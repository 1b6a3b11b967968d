"""How Sphinx makes the site; `make site` puts a copy of the guide and of the notebooks beside this file."""

import inspect
import posixpath
import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.addnodes import pending_xref

import neuronsplit

PUBLIC = set(neuronsplit.__all__)

project, author, copyright = "neuronsplit", "the authors of neuronsplit", "the authors of neuronsplit"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.githubpages"]
exclude_patterns = ["README.md", "**/.ipynb_checkpoints"]  # pages of docs/ include the sections of the README
templates_path, html_static_path, smartquotes = ["_templates"], ["_static"], False  # quotes stay as in the code

html_theme, html_title = "furo", "neuronsplit"
html_favicon, html_css_files = "_static/favicon.svg", ["site.css"]
html_show_sourcelink = html_copy_source = False
html_math_renderer = "mathml"  # browsers draw it; MathJax would be fetched from the net

nb_execution_mode, nb_ipywidgets_js = "off", {}  # outputs are those in the notebooks; widgets would need the net
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions, myst_heading_anchors = ["dollarmath"], 3

autodoc_default_options, autodoc_inherit_docstrings = {"members": True, "member-order": "bysource"}, False
autosummary_context = {"public": PUBLIC}
add_module_names, maximum_signature_line_length = False, 130
nitpick_ignore_regex = [("py:.*", r"(?!neuronsplit).*")]  # names of other packages would need the net

ITEM = re.compile(r" *([A-Za-z_][\w\[\]{}-]*(?:,? [\w-]+){0,5}): (?=\S)")  # "width: …", "test loss, mean over cost: …"
END = re.compile(r"(^|[.:]|\b(are|columns|due to))$")  # how a line ends before one that begins something
NO_ITEM = ("Returns", "Raises", "Yields", "Source", "Other arguments")


def setup(app):
    """Add what follows to Sphinx."""
    app.add_html_math_renderer("mathml", (mathml("inline"), None), (mathml("block"), None))
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-skip-member", skip)
    app.connect("doctree-read", link_to_modules)


def mathml(display):
    """Return a visitor of formulas, "inline" or "block"."""

    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit


def skip(app, what, name, member, skipped, options):
    """Leave out of a module what stands on the page of public names, and fields that the docstring describes."""
    public = what == "module" and name in PUBLIC and member is getattr(neuronsplit, name)
    return public or (inspect.getdoc(member) or "").startswith("Alias for field number") or None


def link_to_modules(app, doctree):
    """Let links to files of the package lead to their page, to the README to the first, and to places in any case."""
    for node in doctree.findall(lambda node: isinstance(node, pending_xref) and node["reftype"] == "myst"):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(node["refdoc"]), node["reftarget"]))
        page = "index" if path == "README" else "api/" + re.sub(r"(/__init__)?\.py$", "", path).replace("/", ".")
        if page in app.env.found_docs:
            node.attributes.update({"refdomain": "doc", "reftarget": page, "reftargetid": None})
        slug = node["reftarget"].lower()  # nbconvert names places as in "#All-numbers"
        if slug in getattr(doctree, "myst_slugs", {}):
            node.attributes.update({"refdomain": "doc", "reftarget": node["refdoc"], "reftargetid": slug})


def docstring(app, what, name, obj, options, lines):
    """Turn a docstring, which is plain text with items such as "width: …", into reStructuredText in place."""
    if isinstance(obj, dict):
        lines[:] = ["Entries: " + ", ".join(f"`{entry}`" for entry in obj) + "."]
    found, literal, item, before = [], False, False, "the first line"
    for line in lines:
        indented, within, starts = line.startswith(" "), literal, END.search(before)
        literal = indented and not before or within and (indented or not line)
        if literal:
            found += [line] if within else ["::", "", line]
        elif starts and ITEM.match(line) and not line.startswith(NO_ITEM):
            item, line = True, ITEM.sub(r"- **\1**: ", line, count=1)
            line = re.sub(r"(?<=\.) ([a-z]\w*(?:, \w+)*): ", r"\n\n- **\1**: ", line)
            found += ["", *map(marked, line.split("\n"))]
        else:
            if starts and (item and not indented or line.startswith(NO_ITEM)):
                found, item = [*found, ""], False
            found.append(("  " * item + marked(line.strip())).rstrip())
        before = line.rstrip()
    lines[:] = found


def marked(text):
    """Return a line with its code set as code, or as a link, and all else as it stands."""
    parts = re.split(r"`([^`]+)`", re.sub(r"(\||(?<=\w)_(?!\w))", r"\\\1", text))
    for i, code in list(enumerate(parts))[1::2]:
        linked = f"{code} <neuronsplit.{code}>" if code in PUBLIC else f".{code}"
        parts[i] = f":py:obj:`{linked}`" if code in PUBLIC or re.fullmatch(r"[a-z_]+\.\w+", code) else f"``{code}``"
    return "".join(parts)
