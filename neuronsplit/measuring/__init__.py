"""What is measured of networks in training: every split, how twins diverge, growth in any network, times of steps.

Here too are the policies that are fitted to such measurements.
"""

import lazy_loader

from neuronsplit.checks import suggesting

# The modules are imported when they are first used, and completion shows them.
_MODULES = "all_splits any_module fit_network fit_policies step_times twin_divergence".split()
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach(__name__, submodules=_MODULES))
