"""How the twins of a set of channels are scaled, so that the sums and the norms in which these channels meet stay.

    αγ + βδ = 1                          as a rule draws them, where nothing else meets the channels
    α = β = √½ or ½                      in sums of products, and in others
    α² + β² = 1                          in one channel more of a mean of squares, as in RMSNorm
    α = 1, β = 0, and the mean of all    in one channel more of a mean too, as in LayerNorm: its variance is Σ x² / h'

Norms whose h channels become h' then take √(Σ gain² / h') in their gains, and its square in their eps.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery.facts import MAKES, READS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.sets import Sets

NO_GAIN = "a norm without a gain"  # a set that is normalised as a whole may still take the scale
Sharing = Callable[[Coefficients], Coefficients]  # from coefficients that a rule has drawn


def by_squares(drawn: Coefficients) -> Coefficients:
    """Coefficients with α² + β² = 1 and αγ + βδ = 1."""
    norm = np.hypot(drawn.alpha, drawn.beta)
    return Coefficients(drawn.alpha / norm, drawn.beta / norm, drawn.gamma * norm, drawn.delta * norm)


def by_mean(drawn: Coefficients) -> Coefficients:
    """The coefficients of a channel, and of a second one that a norm makes 0, whatever reads it."""
    return Coefficients(1.0, 0.0, 1.0, 1.0)


def shares_of(labels: Labels, sets: Sets, masks: list[Tensor]) -> list[Sharing | None]:
    """How the twins of each of some sets (masks) share; None where they do as drawn.

    Raises ValueError where they cannot be copied in the way of these sets.
    """
    shared = [_sharing(labels, sets, mask) for mask in masks]
    if sets.even and not (any(shared) if sets.joined else {by_mean, by_squares} & {*shared}):
        raise ValueError("nothing is summed or normalised")
    as_drawn = [mask for mask, share in zip(masks, shared) if share is None]
    if names := [name for mask in as_drawn for name in tied_names(labels, mask)]:
        raise ValueError(f"{names[0]!r} makes channels and reads them")
    return shared


def _sharing(labels: Labels, sets: Sets, chosen: Tensor) -> Sharing | None:
    """How the twins of a set (a mask) share; None where they do as drawn.

    Raises ValueError where a mean of channels would stay, but something else reads them too.
    """
    means = [one for one in labels.means if sets.even and chosen[labels.channels.roots(one.channels)].any()]
    if means and not sets.joined:
        of_squares, averaged = all(one.squares for one in means), averaged_channels(labels)
        if why := _why_none_alone(labels, chosen, of_squares, averaged):
            raise ValueError(f"{why} and a norm over channels let no single one through")
        if of_squares:
            return by_squares
        for (name, _, role), owner in labels.owners.items():
            if role == READS and (averaged[owner] & chosen[labels.channels.roots(owner)]).any():
                raise ValueError(f"{name!r} reads channels whose mean is taken")
        return by_mean
    gain = _even_gain(labels, chosen) if sets.even else None
    return None if gain is None else lambda drawn: Coefficients(gain, gain, 0.5 / gain, 0.5 / gain)  # αγ + βδ = 1


def _why_none_alone(labels: Labels, chosen: Tensor, of_squares: bool, averaged: Tensor) -> str:
    """What bends channels such that no single one comes through a norm; "" if nothing does.

    Before a mean that has to stay, nothing may bend them. Where twins differ in scale, a scale has to pass.
    """
    in_norms = labels.scaled_as([*(one.channels for one in labels.means), *(of for _, _, of in labels.normalised)])
    scaled = in_norms if of_squares else labels.scaled_as([labels.begun])
    straight = torch.zeros_like(averaged) if of_squares else averaged
    for why, bent, passes in labels.bent:
        bent = labels.scales.roots(bent[bent >= 0])
        bars = straight if passes else straight | scaled
        if (bars[bent] & chosen[labels.channels.roots(bent)]).any():
            return why
    return ""


def _even_gain(labels: Labels, chosen: Tensor) -> float | None:
    """The gain of twins that are even, in each factor that is scaled; None where no channel of a set meets itself.

    In a tied parameter and in sums of products, two factors are scaled: each by √½. In other sums, one is: by ½.
    """
    fixed = labels.cannot_be_scaled()
    sums = [one for one in labels.sums if chosen[labels.channels.roots(one.factors[0])].any()]
    both = [one for one in sums if len(one.factors) == 2 and not fixed[torch.cat(one.factors)].any()]
    return 0.5**0.5 if both or tied_names(labels, chosen) else 0.5 if sums else None


def tied_names(labels: Labels, chosen: Tensor) -> list[str]:
    """The parameters that make channels of a set, and read them along the same axis, such as tied embeddings."""
    both = [key[:2] for key in labels.owners if key[2] == READS and (*key[:2], MAKES) in labels.owners]
    return [name for name, axes in both if chosen[labels.channels.roots(labels.owners[name, axes, READS])].any()]


def eps_factors(
    labels: Labels, splits: list[tuple[Tensor, Sharing | None]], coefficients: list[list]
) -> dict[str, float]:
    """The factor of the eps of norms, by their modules: that of the mean of the squares of their channels.

    splits, coefficients: of each split in turn, its set and how the twins share; and α, β, γ and δ.
    """
    scaled, factors = scaled_labels(labels, even=True), {}
    for module, of, _ in labels.normalised:
        inside = [int(mask[labels.channels.roots(of)].sum()) if share else 0 for mask, share in splits]
        if any(inside) and scaled[of].all():
            more = sum(n * (alpha**2 + beta**2 - 1) for n, (alpha, beta, *_) in zip(inside, coefficients))
            factors[module] = (len(of) + more) / (len(of) + sum(inside))
    return factors


def why_unscaled(labels: Labels, sets: list[Tensor]) -> list[str]:
    """What does not let a scale of the sets' channels through, of those that something reads."""
    read, chosen, whys = scaled_labels(labels, even=False), torch.stack(sets).any(0), []
    for (name, _, role), owner in labels.owners.items():
        made = owner[chosen[labels.channels.roots(owner)]]
        if role == MAKES and bool(read[made].any()):
            whys += [labels.unscaled_weights[name]] if name in labels.unscaled_weights else []
    made = labels.scaled_as([owner for (_, _, role), owner in labels.owners.items() if role == MAKES])
    not_made = NO_GAIN, labels.begun[~made[labels.begun]]
    for why, pinned in [*labels.pinned, *labels.pinned_if_drawn, not_made]:
        pinned = labels.scales.roots(pinned[pinned >= 0])
        if (read[pinned] & chosen[labels.channels.roots(pinned)]).any():
            whys.append(why)
    return whys


def exact_rules(whys: list[str]) -> tuple[str, ...]:
    """The names of the rules that are exact: all, or if something lets no scale through, those that scale nothing."""
    exact = [name for name, rule in SPLIT_RULES.items() if rule.exact]
    unscaled = [name for name in exact if not scales(SPLIT_RULES[name].draw(np.random.default_rng(0), 1))]
    return tuple(sorted(unscaled if whys else exact, key="even".__eq__))  # last, since its twins stay equal


def scales(coefficients: Coefficients) -> bool:
    """Whether a split scales what comes into the neuron, which not every activation lets through."""
    return bool(coefficients.alpha != 1 or coefficients.beta != 1)


def scaled_labels(labels: Labels, even: bool) -> Tensor:
    """Which labels (a mask) take the gain: those that something reads; even twins: all that can be scaled."""
    found = [owner for (_, _, role), owner in labels.owners.items() if role == READS]
    if not even:
        return labels.scaled_as(found)
    found += [of for _, of, _ in labels.normalised]
    found += [of for one in labels.sums for of in one.factors]
    return labels.scaled_as(found) & ~labels.cannot_be_scaled()


def averaged_channels(labels: Labels) -> Tensor:
    """Which labels (a mask) are those of channels whose mean is taken, and not that of their squares alone."""
    return labels.scaled_as([one.channels for one in labels.means if not one.squares])
