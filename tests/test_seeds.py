from itertools import product

from neuronsplit.seeds import PURPOSES, stream


def test_a_stream_is_its_seed_and_purpose_and_nothing_else():
    first = {key: stream(*key).random() for key in product(range(20), PURPOSES)}
    assert first == {key: stream(*key).random() for key in reversed(first)}
    assert len(set(first.values())) == len(first)
