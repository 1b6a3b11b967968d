"""What is measured of networks in training, such as every possible split, and the policies that are fitted to that."""

import lazy_loader

# The modules are imported when they are first used, and completion shows them.
_MODULES = "all_splits fit_network fit_policies step_times twin_divergence".split()
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=_MODULES)
