"""Which neuron is split, how and when, and the training around it."""

import lazy_loader

from neuronsplit.checks import suggesting

# The modules are imported when they are first used, and completion shows them.
_MODULES = "curvature greedy how learned metrics scores train when which".split()
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach(__name__, submodules=_MODULES))
