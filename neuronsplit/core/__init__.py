"""The maths of a split, and the networks and optimisers that it applies to."""

import lazy_loader

from neuronsplit.checks import suggesting

# The modules are imported when they are first used, and completion shows them.
_MODULES = "dropout matmul mlp optimizers seeds split".split()
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach(__name__, submodules=_MODULES))
