"""The data sets that networks learn."""

import lazy_loader

from neuronsplit.checks import suggesting

# The modules are imported when they are first used, and completion shows them.
_MODULES = "datasets download mnist_1d".split()
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach(__name__, submodules=_MODULES))
