"""The structure of the package: imports go one way, files and functions are short, everything public can be found."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import neuronsplit

PACKAGE = Path(neuronsplit.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))

MAY_IMPORT = {  # besides itself, `names` and `checks`
    "names": set(), "checks": set(), "locations": set(), "core": set(),
    "data": {"core", "locations"}, "growing": {"core", "data"},
    "measuring": {"core", "data", "growing", "surgery"},
    "surgery": {"core"}, "analysis": {"locations"}, "plots": {"analysis", "locations"},
    "extensions": {"data", "growing"},
    "experiments": {"core", "data", "growing", "measuring", "extensions"},
    "study": {"experiments", "extensions", "analysis", "locations"},
    "__init__": set(), "__main__": {"study"},
}  # fmt: skip


def part_of(file: Path) -> str:
    """The sub-package of a file, or the file itself if it is at the top."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(file: Path) -> set[str]:
    """The parts of neuronsplit that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import, line {node.lineno}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("neuronsplit.")}


@each_file
def test_imports_go_one_way(file):
    part = part_of(file)
    assert imported_parts(file) - {part, "names", "checks", "__version__"} <= MAY_IMPORT[part]


def test_every_sub_package_has_a_direction():
    assert {part_of(file) for file in FILES} == MAY_IMPORT.keys()


def code_lines(file: Path) -> int:
    """Lines that hold code: no blank line, no comment, no docstring."""
    source = file.read_text()
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
            tokenize.ENDMARKER}  # fmt: skip
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_a_line_of_code_is_counted_as_one(tmp_path):
    file = tmp_path / "example.py"
    file.write_text(
        '"""Doc."""\n\n# comment\nx = 1  # comment\ny = (\n    2\n)\n\n\ndef f():\n    """Doc\n    string."""\n'
    )
    assert code_lines(file) == 1 + 3 + 1


def test_what_must_be_read_is_at_most_1200_lines_of_code():
    assert sum(code_lines(file) for file in FILES if part_of(file) in ("core", "data", "growing")) <= 1200


def test_the_study_package_is_at_most_600_lines_of_code():
    assert sum(code_lines(file) for file in FILES if part_of(file) == "study") <= 600


@each_file
def test_files_and_functions_are_short(file):
    assert len(file.read_text().splitlines()) <= 200
    functions = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno >= 40] == []


@each_file
def test_every_public_function_and_class_says_what_it_is(file):
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree)
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, neuronsplit; print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    assert run(code) == "[]"


def test_analysis_and_plots_do_not_load_torch():
    modules = [".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts) for f in FILES]
    modules = [module for module in modules if module.split(".")[1] in ("analysis", "plots")]
    assert len(modules) > 10
    assert run(f"import sys, {', '.join(modules)}; print('torch' in sys.modules)") == "False"


def test_every_module_of_a_sub_package_is_listed_and_can_be_had():
    for name in MAY_IMPORT:
        if (PACKAGE / name).is_dir():
            modules = {file.stem for file in (PACKAGE / name).glob("*.py")} - {"__init__"}
            sub_package = getattr(neuronsplit, name)
            assert set(dir(sub_package)) == modules and all(hasattr(sub_package, module) for module in modules)


def test_the_guide_to_surgery_names_every_module():
    modules = {file.stem for file in (PACKAGE / "surgery").glob("*.py")} - {"__init__"}
    assert modules <= set(re.findall(r"\w+", neuronsplit.surgery.__doc__))


def test_every_public_name_is_listed_and_can_be_had():
    """Completion reads dir() in a notebook, and the stub in an editor."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imported = {a.asname or a.name for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    (listed,) = [ast.literal_eval(n.value) for n in stub.body if isinstance(n, ast.Assign)]
    assert imported == set(listed) == set(dir(neuronsplit))
    assert all(hasattr(neuronsplit, name) for name in listed)
    assert {"MLP", "Experiment", "run_experiment", "split_neuron", "replay", "load_dataset"} <= imported
    assert {"POLICIES", "GROWTHS", "SCHEDULES", "DATASETS"} <= imported
