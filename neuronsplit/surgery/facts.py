"""What a run of a network says about its channels: which are copied together, and which let a scale through."""

from typing import NamedTuple

import torch
from torch import Tensor

from neuronsplit.surgery.axes import core, lines_along
from neuronsplit.surgery.partition import NONE, Partition
from neuronsplit.surgery.shadow import has_memory, storage_of

MAKES, READS, ALONG = "makes", "reads", "along"  # what a parameter is to a channel; "along" is copied with it only
ACROSS = "across other channels"  # why a channel is barred in a run of which a second one may label it


class Sum(NamedTuple):
    """A sum over channels (n,): of one factor or of the products of two, as in a norm or the product of two vectors.

    It stays the same if copies share it evenly.
    factors: the labels (n,) of each factor.
    made: the label of the sum, if its channels can also be copied all or none, as those of a head of attention.
    """

    why: str
    factors: tuple[Tensor, ...]
    made: Tensor | None


class Mean(NamedTuple):
    """A mean over channels (n,), by which a norm divides: of their squares, or of themselves too."""

    why: str
    channels: Tensor
    squares: bool


class Facts:
    """Labels of channels, and what is found about them, in a run of a network."""

    def __init__(self):
        self.channels, self.scales = Partition(), Partition()  # labels that are copied together; and scaled alike too
        # What is found. Of (name, axes, role): the label of each position along the axes.
        self.owners: dict[tuple[str, tuple[int, ...], str], Tensor] = {}
        self.outputs: dict[tuple[str, tuple[int, ...]], tuple[int, ...]] = {}  # of what reads: the axes it computes
        self.shared: list[tuple[str, dict[int, Tensor], Tensor]] = []  # entries (n,) that serve m channels each, (n, m)
        self.rows: list[tuple[str, Tensor]] = []  # labels that are copied all or none, with the reason
        self.units: list[Tensor] = []  # labels (n, D) of which each row is one head or group
        self.grids: list[Tensor] = []  # labels along several axes: whole slices along one of them are copied
        self.pieces: list[Tensor] = []  # labels (n,) of pieces of an axis, whose sizes may be written in
        self.parts: list[Tensor] = []  # labels (n,), in order, of what is concatenated
        self.heads: list[Tensor] = []  # attention (B, 1 + D): labels of a weight, and of the values that it multiplies
        self.barred: list[tuple[str, Tensor]] = []  # labels that cannot be copied, with the reason
        self.sums: list[Sum] = []
        self.means: list[Mean] = []  # they join channels as rows do, unless norms are scaled
        self.gains: set[str] = set()  # parameters that multiply what is normalised
        self.pinned: list[tuple[str, Tensor]] = []  # labels that cannot be scaled, with the reason
        self.pinned_if_drawn: list[tuple[str, Tensor]] = []  # those that can be if all are scaled alike, by √½ or so
        self.bent: list[tuple[str, Tensor, bool]] = []  # what a function bends, with its name; if a scale passes it
        self.factors: dict[int, int] = {}  # of the label of a product: that of its other factor
        self.module = ""  # the one that runs
        self.companions: dict[str, list[tuple[Tensor, bool]]] = {}  # of a parameter: others of its shape; if alike
        self.dtypes: set[torch.dtype] = set()  # of what is computed
        self.reached: set[int] = set()  # the storages of tensors that are used
        self.inputs: set[int] = set()  # those of the network's inputs
        self.places_of: dict[int, tuple[Tensor, str]] = {}  # labels of places among channels, and what to bar if used
        self.statistics: set[int] = set()  # labels of what is one number for all channels, such as their mean
        # Of norms by module: labels whose scale has no effect, and those of what is normalised.
        self.normalised: list[tuple[str, Tensor, Tensor]] = []
        self.begun = torch.empty(0, dtype=torch.long)  # labels whose scale began in a norm, and that nothing makes yet
        self.unscaled_weights: dict[str, str] = {}  # parameters whose scale is lost, with the reason
        self.lost: dict[str, str] = {}  # parameters that were followed no further, with the reason
        self.reads_numbers: set[tuple[str, tuple[int, ...]]] = set()  # what also reads numbers that no parameter makes

    def new(self, n: int) -> Tensor:
        """Labels (n,) of new channels."""
        self.channels.add(n)
        self.scales.add(n)
        return torch.arange(len(self.scales) - n, len(self.scales))

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Note that channels are copied together and scaled alike."""
        self.channels.merge(a, b)
        self.scales.merge(a, b)

    def settle(self, labels: Tensor, axis: int) -> Tensor:
        """Tie all labels that stand at one place of an axis; returns one for each place (n,)."""
        lines = lines_along(labels, axis)
        if len(lines) == 1:
            return self.scales.roots(lines[0])
        first = lines.amax(0)
        self.tie(first.expand_as(lines), lines)
        return self.scales.roots(first)

    def all_or_none(self, rows: Tensor, why: str, unit: bool = False) -> None:
        """Note that the channels of each row (n, D) are copied together; a unit is a head or a group."""
        rows = torch.unique(rows, dim=0)
        self.rows += [(why, row) for row in rows]
        if unit:
            self.units.append(rows)

    def made_of(self, rows: Tensor, why: str, unit: bool = True) -> Tensor:
        """Labels (n,) of what is computed from each row (n, D), which is copied all or none, and not scaled."""
        made = self.new(len(rows))
        self.all_or_none(torch.cat([made[:, None], rows], 1), why, unit)
        self.pin(rows, why)
        return made

    def cut(self, labels: Tensor) -> None:
        """Note labels along several axes, of which a size may be written in: whole slices along one are copied."""
        self.grids.append(core(labels).clone())

    def head(self, weights: Tensor, values: Tensor) -> None:
        """Note labels of attention: of weights (B,), and of the values (B, D) that each multiplies."""
        self.heads.append(torch.cat([weights[:, None], values], 1))

    def bar(self, labels: Tensor | None, why: str) -> None:
        """Note that channels cannot be copied."""
        if labels is not None:
            self.barred.append((why, torch.unique(core(labels))))

    def bar_beside_inputs(self, labels: Tensor, tensors: list[Tensor], shape: torch.Size, why: str) -> None:
        """Bar channels along axes that an input of the network has too, as it keeps its size.

        tensors: what meets the channels in a tensor of some shape. labels: those of this tensor, of size 1 elsewhere.
        """
        for tensor in tensors:
            if has_memory(tensor) and storage_of(tensor) in self.inputs:
                strides = tensor.expand(shape).stride()
                if any(size > 1 and stride for size, stride in zip(labels.shape, strides)):
                    self.bar(labels, f"{why}, with an input of the network")

    def pin(self, labels: Tensor, why: str, if_drawn: bool = False) -> None:
        """Note that channels cannot be scaled, or only all alike."""
        (self.pinned_if_drawn if if_drawn else self.pinned).append((why, torch.unique(core(labels))))

    def bend(self, labels: Tensor, why: str, passes: bool) -> None:
        """Note that channels pass a function that is not linear, and whether a scale does."""
        self.bent.append((why, torch.unique(core(labels)), passes))

    def add_up(self, why: str, *factors: Tensor, made: Tensor | None = None) -> None:
        """Note a sum over channels (n,), which are copied one by one with others that they are multiplied by."""
        self.channels.merge(factors[0], factors[-1])
        if made is not None:
            self.pin(torch.cat(factors), why, if_drawn=True)
        self.sums.append(Sum(why, factors, made))

    def cannot_be_scaled(self) -> Tensor:
        """Which labels (a mask) are those of channels that cannot be scaled, whatever twins share."""
        return self.scaled_as([pinned for _, pinned in self.pinned])

    def scaled_as(self, found: list[Tensor]) -> Tensor:
        """Which labels (a mask) are those of channels that are scaled as some are."""
        mask = torch.zeros(len(self.scales) + 1, dtype=torch.bool)
        for of in found:
            mask[self.scales.roots(of)] = True
        mask[-1] = False
        return mask[self.scales.roots(torch.arange(len(mask)))]

    def begin_scale(self, labels: Tensor, why: str, invariant: bool = True) -> Tensor:
        """Labels for what is normalised: it is copied with the channels that it is computed from, but scaled anew.

        invariant: whether one scale of all channels that are normalised together has no effect.
        """
        self.pin(labels, why, if_drawn=invariant)
        distinct = torch.unique(core(labels))
        distinct = distinct[distinct != NONE]
        fresh = torch.full((len(self.scales) + 1,), NONE)
        fresh[distinct] = self.new(len(distinct))
        if invariant:
            self.normalised.append((self.module, distinct, fresh[distinct]))
        self.channels.merge(fresh[distinct], distinct)
        self.begun = torch.cat([self.begun, fresh[distinct]])
        return fresh[labels]

    def bar_used_places(self, labels: Tensor | None) -> None:
        """Bar channels among which places are used that have these labels."""
        if labels is not None and (used := self.places_of.get(int(labels.flatten()[0]))) is not None:
            self.bar(*used)

    def is_statistic(self, labels: Tensor) -> bool:
        """Whether labels are those of one number that is computed from all channels."""
        return int(labels.flatten()[0]) in self.statistics and core(labels).dim() == 0

    def on_one_axis(self, labels: Tensor) -> bool:
        """Whether several of some labels are made by one parameter along one axis."""
        made = [owner for (_, axes, role), owner in self.owners.items() if role == MAKES and len(axes) == 1]
        distinct = torch.unique(labels[labels >= 0])
        return any(int(torch.isin(torch.unique(self.scales.roots(owner)), distinct).sum()) > 1 for owner in made)
