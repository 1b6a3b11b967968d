"""The inputs of fitted policies, neuron by neuron, and scores to make them from."""

import numpy as np
import torch

from neuronsplit.growing import learned
from neuronsplit.growing.scores import FEATURES

NAMES = [feature.__name__ for feature in FEATURES]


def some_scores(replicas, width, seed):
    """Scores of neurons, some of them equal."""
    g = torch.Generator().manual_seed(seed)
    scores = {name: torch.randint(6, (replicas, width), generator=g) / 5.0 for name in NAMES}
    return scores | {"epochs_since_split": torch.randint(4, (replicas, width), generator=g).float()}


def expected_features(scores, r):
    """The features of one replica, a row per neuron."""
    width = scores["fire_rate"].shape[1]
    rows = []
    for j in range(width):
        row = []
        for name in learned.RANK_FEATURES:
            others = [scores[name][r, k].item() for k in range(width) if k != j]
            own = scores[name][r, j].item()
            below = sum(own > other for other in others) + 0.5 * sum(own == other for other in others)
            row.append(below / (width - 1) - 0.5 if others else 0.0)
        oldest = scores["epochs_since_split"][r].max().item()
        row += [scores["fire_rate"][r, j].item(), scores["max_correlation"][r, j].item()]
        row += [scores["epochs_since_split"][r, j].item() / max(oldest, 1), np.log(width), np.log(1 + oldest)]
        rows.append(row)
    return np.array(rows)
