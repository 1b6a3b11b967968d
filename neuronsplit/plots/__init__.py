"""Figures from tables; torch is not loaded."""

import lazy_loader

from neuronsplit.checks import suggesting

# The modules are imported when they are first used, and completion shows them.
_MODULES = (
    "comparisons curves families growth_in_training inline interactive labels neurons replay search style tested twins"
).split()
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach(__name__, submodules=_MODULES))
