"""Of cases that test one thing in many ways, `make test` tries one in a few; `make test-long` tries the others."""

from collections.abc import Iterable

import pytest


def one_in(n: int, cases: Iterable) -> list:
    """Return cases for `parametrize`, of which every n-th is short; a tuple has a value for each name."""
    tuples = [case if type(case) is tuple else (case,) for case in cases]
    return [pytest.param(*case, marks=[pytest.mark.long] if i % n else []) for i, case in enumerate(tuples)]
