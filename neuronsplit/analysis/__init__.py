"""Statistics on tables. Nothing here loads torch."""

import lazy_loader

from neuronsplit.checks import suggesting

# The modules are imported when they are first used, and completion shows them.
_MODULES = (
    "arms circumstances comparison cost design family_sentences files formats oracle sentences split_sentences stats "
    "study_sentences tables variance wording"
).split()
__getattr__, __dir__, __all__ = suggesting(*lazy_loader.attach(__name__, submodules=_MODULES))
