"""The configurations that experiments are tuned over: their own settings, and random ones.

All experiments try the same numbers (Bergstra & Bengio 2012, Random search for hyper-parameter optimization). A control
without splits tries widths too, because it trains its width from the start and has no other one to end at.
"""

from dataclasses import replace

import numpy as np

from neuronsplit.experiments.experiment import Experiment
from neuronsplit.names import NO_SPLIT

N_CONFIGURATIONS = 16
SPACE = {  # fields of experiments, and how they are drawn for an arm; the same numbers are drawn for every arm
    "learning_rate": lambda rng, arm: _rounded(arm.learning_rate * 10 ** rng.uniform(-1, 1)),
    "rate_schedule": lambda rng, arm: str(rng.choice(["constant", "cosine"])),
    "rate_after_split": lambda rng, arm: float(rng.choice([0.3, 1, 3])),
    "weight_decay": lambda rng, arm: _rounded(10 ** rng.uniform(-4, 0)) * int(rng.integers(4) > 0),
    "dropout": lambda rng, arm: float(rng.choice([0, 0.1, 0.2, 0.3])),
    "width": lambda rng, arm: _width(arm, rng.choice([0.5, 1, 1.5, 2, 3])),
}


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _width(arm: Experiment, factor: float) -> int:
    return max(1, round(factor * arm.width)) if arm.policy == NO_SPLIT and not arm.splits else arm.width


def configurations(arm: Experiment) -> list[Experiment]:
    """Return the configurations that an arm tries: itself, and random ones. Those that train the same count once."""
    rng = np.random.default_rng(0)
    draws = ({name: draw(rng, arm) for name, draw in SPACE.items()} for _ in range(N_CONFIGURATIONS - 1))
    return list({one.canonical: one for one in (arm, *(replace(arm, **drawn) for drawn in draws))}.values())
