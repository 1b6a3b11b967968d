"""Fixtures, and hypothesis profiles: HYPOTHESIS_PROFILE=deep tries tens of thousands of cases instead of hundreds."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run in parallel, one per core

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

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
