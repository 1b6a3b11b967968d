"""What is measured of networks in training: every possible split, how twins diverge, and the time of a step."""

import lazy_loader

# The modules are imported when they are first used, and completion shows them.
_MODULES = "all_splits step_times twin_divergence".split()
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=_MODULES)
