"""Neuron splitting: grow a neural network while it trains, without a change of its output at the moment of a split."""

from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.policies import POLICIES, Policy
from neuronsplit.split import RULES
from neuronsplit.surgery import replay, split_neuron

__version__ = "0.1.0"
__all__ = [
    "MLP", "POLICIES", "RULES", "Experiment", "Policy", "load_dataset", "replay", "run_experiment", "split_neuron",
]  # fmt: skip


def __getattr__(name: str):
    """What needs pandas, whose import takes longer than all the rest here: obtained when it is first asked for."""
    if name not in ("Experiment", "run_experiment"):
        raise AttributeError(f"module 'neuronsplit' has no attribute {name!r}")
    from neuronsplit import study

    return getattr(study, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
