"""Numbers of modules and of their configurations that may stand for a size that grows with a split."""

import re
from collections.abc import Iterator
from itertools import combinations, islice, product

from torch import nn

from neuronsplit.surgery.noted_sizes import Number

MAX_LISTS = 64  # that a list of numbers may become
Sizes = list[tuple[int, int]]  # before and after a split


def in_any_block(number: Number) -> tuple:
    """A number without the number of its block: modules that repeat have the same names but for these."""
    return re.sub(r"\d+", "#", number.module), number.attribute, str(number.old), str(number.new)


def are_alternatives(a: list[Number], b: list[Number]) -> bool:
    """Whether two lists change the same attributes, to other values."""
    return [(one.module, one.attribute) for one in a] == [(one.module, one.attribute) for one in b]


def candidate_lists(net: nn.Module, names: list[str], sizes: list[Sizes], failed: list[str]) -> list[list[Number]]:
    """Numbers that may stand for a size that grows: those of the modules that failed first, then of parameters' owners.

    They come one by one where a run failed, and then all of a module at once. Where it did not, those of one name that
    grow alike come at once, for each may have an effect only with the others. Last come two numbers of heads.
    """
    owners = dict.fromkeys(reversed(failed))
    for name in names:
        while name := name.rpartition(".")[0]:
            owners.setdefault(name)
    groups: dict[tuple, list[Number]] = {}
    of_modules: dict[str, dict[str, Number]] = {}
    for number in _numbers(net, [*owners, ""], sizes):
        alike = type(number.old) is int and not failed
        growth = number.new / number.old if alike else (str(number.old), str(number.new))
        group = groups.setdefault((number.attribute, growth, number.module if failed else ""), [])
        group += [number] if number not in group else []
        of_modules.setdefault(number.module, {}).setdefault(number.attribute, number)
    of_heads = dict.fromkeys(one for one in _numbers(net, [*owners, ""], sizes[:1]) if type(one.old) is int)
    pairs = [[a, b] for a, b in combinations(of_heads, 2) if a.module == b.module and a.old != b.old]
    return [*groups.values(), *(list(of.values()) for of in of_modules.values() if len(of) > 1), *pairs]


def _numbers(net: nn.Module, owners: list[str], sizes: list[Sizes]) -> Iterator[Number]:
    """The numbers of modules and of their configurations that may stand for a size that grows."""
    holders: dict[int, tuple[str, str, dict]] = {}  # modules may share a configuration
    for owner in owners:
        module = net.get_submodule(owner)
        for prefix, holder in (("", module), ("config.", getattr(module, "config", None))):
            holders.setdefault(id(holder), (owner, prefix, getattr(holder, "__dict__", {})))
    for grown in sizes:
        for owner, prefix, attributes in holders.values():
            for attribute, value in attributes.items():
                yield from (Number(owner, prefix + attribute, value, new) for new in _changed(value, grown))


def _changed(value: object, grown: Sizes) -> list:
    """What a number may become, or a list of numbers: one of them changes, or all that can, or some."""
    if type(value) is int:
        return sorted({after for before, after in grown if before == value != after})
    if type(value) not in (tuple, list) or not all(type(one) is int for one in value):
        return []
    choices = islice(product(*([one, *_changed(one, grown)] for one in value)), MAX_LISTS)
    n_changes = {new: sum(a != b for a, b in zip(new, value)) for new in choices}
    most = max(n_changes.values())
    likely_first = sorted(n_changes, key=lambda new: (n_changes[new] not in (1, most), n_changes[new]))
    return [type(value)(new) for new in likely_first if n_changes[new]]
