"""Read the sentences out of Markdown, notebooks and Python files, and count their words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import jupytext

MAX_WORDS = 25


def markdown_of(file: Path) -> str:
    """Return the text of a Markdown file, or of the Markdown cells of a notebook."""
    if file.suffix == ".md":
        return file.read_text(encoding="utf-8")
    return "\n\n".join(c.source for c in jupytext.read(file).cells if c.cell_type == "markdown")


def sentences(text: str) -> list[str]:
    """Return the sentences of paragraphs and bullets.

    Code blocks, formulas, tables, headings and pictures are left out.
    """
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<!--.*?-->", "\n\n", text, flags=re.S)
    text = re.sub(r"^(\||#|!\[).*$", "", text, flags=re.M)
    text = re.sub(r"\[([^][]*)\]\([^()]*\)", r"\1", text)  # a link is its text
    paragraphs = re.split(r"\n\s*\n|^\s*[-*] ", text, flags=re.M)
    found = []
    for paragraph in paragraphs:
        words = " ".join(paragraph.replace("*", "").split()).replace("et al. ", "et al ").replace("eq. ", "eq ")
        found += re.split(r"(?<=[.!?])\)? (?=[\"'`(\[]?[^\sa-z])", words)
    return [sentence for sentence in found if sentence]


def n_words(sentence: str) -> int:
    """Count the words of a sentence. A word has spaces around it, and contains a letter or a digit."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def too_long(found: list[str]) -> list[str]:
    """Return the sentences that have more than MAX_WORDS words."""
    return [sentence for sentence in found if n_words(sentence) > MAX_WORDS]


def docstrings(source: str) -> list[str]:
    """Return the sentences of all docstrings. An item such as "width: …" in a list of arguments begins a sentence.

    Blocks that are indented after an empty line, such as formulas, are left out.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            text = re.sub(r"\n\n(    .*\n?)+", "\n\n", text)
            found += sentences(re.sub(r"(?<=[.:])\n(?= *[\w, ()=[\]-]+: )", "\n\n", text))
    return found


def comments(source: str) -> list[str]:
    """Return the sentences of all comments. Comments that fill consecutive lines are read as one text."""
    blocks, last = [], None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = re.sub(r"^#+ ?(fmt: skip|noqa.*|%%.*)?", "", token.string)
        if token.type != tokenize.COMMENT or not text:
            continue
        fills_line = not token.line[: token.start[1]].strip()
        if fills_line and last == (token.start[0] - 1, token.start[1]):
            blocks[-1] += f"\n{text}"
        else:
            blocks.append(text)
        last = (token.start[0], token.start[1]) if fills_line else None
    return [sentence for block in blocks for sentence in sentences(block)]


def messages(source: str) -> list[str]:
    """Return the sentences of all errors and warnings. The value of a placeholder counts as one word."""
    found = []
    for node in ast.walk(ast.parse(source)):
        is_warning = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("warn")
        if is_warning or isinstance(node, ast.Raise):
            for text in _texts(node):
                found += sentences(text)
    return found


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)
