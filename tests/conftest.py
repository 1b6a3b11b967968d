"""Hypothesis profiles: HYPOTHESIS_PROFILE=deep tries tens of thousands of cases instead of hundreds."""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=200)
settings.register_profile("deep", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
