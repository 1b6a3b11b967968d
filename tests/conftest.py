"""Fixtures, and hypothesis profiles: HYPOTHESIS_PROFILE=deep tries tens of thousands of cases instead of hundreds."""

import os

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=200)
settings.register_profile("deep", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SWEEP = """
policy: [no-split, random, max-loss, min-fire, half-fire, max-variance, max-gradient]
dataset: digits
width: 3
splits: 6
epochs: 36
n_seeds: 3
"""


@pytest.fixture
def sweep(tmp_path):
    """The file of a small study."""
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    return file
