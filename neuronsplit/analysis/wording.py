"""Words of computed sentences: names, lists, ranges and counts."""

from collections.abc import Iterable

_MANY = 6  # texts that one sentence lists


def code(text: object) -> str:
    """Set a text as code, in one line."""
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def join(texts: Iterable[str]) -> str:
    """List texts, as in "a, b and c"; those after the first few are only counted."""
    texts = list(texts)
    if len(texts) > _MANY + 1:
        texts = [*texts[:_MANY], f"{len(texts) - _MANY} more"]
    return " and ".join([*([", ".join(texts[:-1])] if texts[1:] else []), texts[-1]])


def span(values: Iterable[float], form: str) -> str:
    """Return the range of some values, such as "3 to 5"; form: the format of one."""
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def count(numbers: Iterable[int], noun: str) -> str:
    """Return numbers with their noun, such as "1 seed" or "5 to 10 seeds"."""
    return f"{span(numbers, '{}')} {noun}{'s' * bool(max(numbers) != 1)}"
