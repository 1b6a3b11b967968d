from itertools import product

import pytest

from neuronsplit.core.seeds import PURPOSES, stream


def test_a_stream_depends_on_its_seed_and_purpose_alone():
    first = {key: stream(*key).random() for key in product(range(20), PURPOSES)}
    assert first == {key: stream(*key).random() for key in reversed(first)}
    assert len(set(first.values())) == len(first)


def test_a_stream_of_a_place_is_another_one():
    places = [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]
    drawn = {(purpose, place): stream(3, purpose, *place).random() for purpose in PURPOSES for place in places}
    assert len(set(drawn.values())) == len(drawn)
    assert stream(3, "dropout", 1, 0).random() == drawn["dropout", (1, 0)]


def test_an_unknown_purpose_is_refused():
    allowed = "weights, order, coefficients, draws, split, dropout"
    with pytest.raises(ValueError, match=f"^purpose 'data': allowed are {allowed}$"):
        stream(0, "data")
