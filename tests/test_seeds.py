from itertools import product

import pytest

from neuronsplit.core.seeds import PURPOSES, stream


def test_a_stream_depends_on_its_seed_and_purpose_alone():
    first = {key: stream(*key).random() for key in product(range(20), PURPOSES)}
    assert first == {key: stream(*key).random() for key in reversed(first)}
    assert len(set(first.values())) == len(first)


def test_an_unknown_purpose_is_refused():
    with pytest.raises(ValueError, match="^purpose 'dropout': allowed are weights, order, coefficients, draws, split$"):
        stream(0, "dropout")
