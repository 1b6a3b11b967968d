"""Sentences in docstrings, comments and errors are short. test_readme.py checks the README and its companions."""

import ast
from pathlib import Path

import jupytext
import pytest
from prose import comments, docstrings, markdown_of, messages, n_words, sentences, too_long

import neuronsplit

PACKAGE = Path(neuronsplit.__file__).parent
NOTEBOOKS = [PACKAGE.parent / "notebooks" / f"{name}.py" for name in ("01_split_a_neuron", "02_grow_while_training")]
FILES = sorted(PACKAGE.rglob("*.py"))
WORDS_25 = "One " + "word " * 23 + "end."


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_sentence_of_the_package_has_at_most_25_words(file):
    source = file.read_text(encoding="utf-8")
    assert docstrings(source)
    assert too_long([*docstrings(source), *comments(source), *messages(source)]) == []


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_sentence_of_a_notebook_has_at_most_25_words(file):
    code = "\n".join(cell.source for cell in jupytext.read(file).cells if cell.cell_type == "code")
    assert len(sentences(markdown_of(file))) > 30
    assert too_long([*sentences(markdown_of(file)), *docstrings(code), *comments(code)]) == []


def test_sentences_are_found():
    text = "# No\n\nOne [two](x.md) *three*.\nFour 0.5, Wu et al. 2019, eq. 3: five! `Six` seven.\n"
    text += "\n- Eight\n  nine.\n- Ten (a. b).\n"
    text += "\n```\nNo. No.\n```\n| no. No | no |\n![No.](no.png)\n*Eleven.* Twelve\n"
    found = sentences(text)
    assert found[:3] == ["One two three.", "Four 0.5, Wu et al 2019, eq 3: five!", "`Six` seven."]
    assert found[3:] == ["Eight nine.", "Ten (a. b).", "Eleven.", "Twelve"]
    assert [n_words(sentence) for sentence in found[:3]] == [3, 9, 2]


def test_docstrings_are_read_with_their_lists_of_arguments():
    source = '''"""First:

    x = 1. No.

Next.
"""

class A:
    """Second
    goes on.

    width: third.
    seeds: fourth, which
        goes on.
    """

    def f(self):
        """Fifth."""
        "no docstring"
'''
    found = ["First:", "Next.", "Second goes on.", "width: third.", "seeds: fourth, which goes on.", "Fifth."]
    assert sorted(docstrings(source)) == sorted(found)  # in the order of a walk through the syntax tree


def test_comments_over_several_lines_are_read_as_one():
    source = (
        "# One\n# goes on. Two.\nx = 1  # Three.\ny = '# no'  # fmt: skip\nz = 2  # noqa: E501\n\n# Four\n    # Five\n"
    )
    assert comments(source) == ["One goes on.", "Two.", "Three.", "Four", "Five"]


def test_messages_are_read_with_their_placeholders_as_words():
    source = 'def f(x):\n    warnings.warn(f"{x}; beware")\n    raise ValueError(f"x {x + 1!r}: allowed " "are {y}")\n'
    assert sorted(messages(source)) == ["X; beware", "x X: allowed are {y}"]


@pytest.mark.parametrize("n_more", [0, 1])
@pytest.mark.parametrize("place", ["docstring", "comment", "message", "markdown"])
def test_a_sentence_that_is_too_long_is_found_wherever_it_stands(place, n_more):
    text = "And " * n_more + WORDS_25
    assert n_words(text) == 25 + n_more
    begin, end = text[: text.index(" word")], text[text.index(" word") :]
    found = {
        "docstring": docstrings(f'def f():\n    """Short.\n\n    {text} Short.\n    """\n'),
        "comment": comments(f"# {begin}\n#{end}\n"),
        "message": messages(f'raise ValueError("{begin}" "{end}")'),
        "markdown": sentences(f"# Title\n\nShort. {text} Short.\n"),
    }
    assert too_long(found[place]) == [text] * n_more


def test_every_docstring_of_the_package_is_read():
    """The sum of all words is that of a plain walk, apart from blocks that are indented after an empty line."""
    for file in FILES:
        source = file.read_text(encoding="utf-8")
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        texts = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
        words = sum(n_words(text) for text in texts if "\n\n    " not in text)
        assert sum(map(n_words, docstrings(source))) >= words
