"""How the channels of a layer run through a network that torch.fx can trace.

The channels are followed forward to every layer that consumes them, and back to every other layer that adds to them.
Torch-Pruning's dependency graph finds such groups too, from autograd's names. But an exact split must also know whether
the operations in between are homogeneous. So the channels are followed on the graph of torch.fx.
"""

import inspect
import operator
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F
from torch.nn.utils import parametrize

from neuronsplit.surgery.exactness import ELEMENTWISE, HOMOGENEOUS, in_mode, inputs

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
MULTIPLY = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
DIVIDE = {operator.truediv, operator.itruediv, torch.div, "div"}
FLATTEN = {nn.Flatten, torch.flatten, "flatten", "view", "reshape", torch.reshape}


class Carrier(NamedTuple):
    """Where a tensor carries the layer's channels: along `axis`, in segments.

    A segment k > 0 holds every channel, k positions each (after a flatten, say); −k is k positions of something else.
    """

    axis: int
    segments: tuple[int, ...] = (1,)


class Path(NamedTuple):
    """How the layer's channels run through the network; names are those of modules, entries those of parameters."""

    makers: set[str]  # layers whose outputs are the channels, or are added to them
    along: dict[str, Carrier]  # BatchNorms and depthwise convolutions on the way
    consumers: dict[str, Carrier]  # layers that end the way, and where their input carries the channels
    gains: set[str]  # the parameters that take α and β
    obstacles: list[str]  # what does not let a scale through


_WRAPPERS = ("OptimizedModule", "DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")


def follow(net: nn.Module, layer: str, neurons: list[int], example_inputs, homogeneous: tuple) -> Path:
    """The path of a layer's channels; raises ValueError where they cannot be split exactly, and says why."""
    modules = dict(net.named_modules())
    if type(net).__name__ in _WRAPPERS:
        raise ValueError(f"{type(net).__name__}: allowed is the network that it wraps; wrap it again after the split")
    if not isinstance(modules.get(layer), LAYERS):
        found = [name for name, module in modules.items() if isinstance(module, LAYERS)]
        raise ValueError(f"layer {layer!r}: allowed are Linear and Conv layers, here {', '.join(found)}")
    width = modules[layer].weight.shape[0]
    for neuron in neurons:
        if not 0 <= neuron < width:
            raise ValueError(f"neuron {neuron}: allowed are 0 to {width - 1} in {layer!r}")
    evaluated, path = (_follow(net, modules, layer, example_inputs, homogeneous, mode) for mode in (False, True))
    if not (
        evaluated.makers == path.makers
        and evaluated.gains == path.gains
        and evaluated.along.items() <= path.along.items()
        and evaluated.consumers.items() <= path.consumers.items()
    ):
        raise ValueError("the channels go another way in evaluation mode than in training mode: allowed is one way")
    for name in path.makers | path.along.keys() | path.consumers.keys():
        _refuse_unsuited(net, modules[name], name)
    return path._replace(obstacles=path.obstacles + evaluated.obstacles)


def _follow(net, modules, layer, example_inputs, homogeneous, training: bool) -> Path:
    """The path in one of the two modes."""
    with in_mode(net, training):
        walk = _Walk(net, modules, example_inputs, homogeneous)
    walk.forward(layer)
    if not walk.makers:
        raise ValueError(f"layer {layer!r} is never called: allowed are layers that the example inputs pass through")
    if not walk.consumers:
        raise ValueError(f"the channels of {layer!r} reach no Linear or Conv: allowed are layers that one follows")
    path = walk.path()
    walk.refuse_other_uses(path.makers | path.along.keys() | path.consumers.keys())
    return path


def _channel_axis(module: nn.Module, shape: torch.Size) -> int:
    """Where a layer's inputs and outputs have their channels: last for Linear, before the space for a convolution."""
    return len(shape) + 1 - module.weight.dim()


def normalises(module: nn.Module) -> bool:
    """Whether a module normalises each channel by itself."""
    whole = isinstance(module, nn.GroupNorm) and module.num_groups == module.num_channels
    return isinstance(module, NORMS) or whole


def depthwise(module: nn.Module) -> bool:
    """Whether a module is a convolution of each channel by itself."""
    return isinstance(module, LAYERS[1:]) and 1 < module.groups == module.in_channels == module.out_channels


def _refuse_unsuited(net: nn.Module, module: nn.Module, name: str) -> None:
    """Refuse a layer whose parameters are not plain tensors of its own."""
    if (
        parametrize.is_parametrized(module)
        or hasattr(module, "weight_g")
        or hasattr(module, "weight_orig")
        or hasattr(module, "bias_orig")
    ):
        raise ValueError(
            f"{name!r} is parametrised (weight_norm, pruning, ...): allowed are plain parameters; remove it first"
        )
    own = {id(p) for p in module.parameters(recurse=False)}
    for other_name, other in net.named_modules():
        if other is not module and own & {id(p) for p in other.parameters(recurse=False)}:
            raise ValueError(
                f"{name!r} shares a parameter with {other_name!r}: allowed are layers with parameters of their own"
            )


class _Tracer(fx.Tracer):
    """torch.fx's tracer, which does not look into torch.nn's modules nor into those declared homogeneous."""

    def __init__(self, homogeneous: tuple):
        super().__init__()
        self.homogeneous = homogeneous

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, self.homogeneous) or super().is_leaf_module(module, name)


def _left_out(net: nn.Module, given: int) -> dict[str, object]:
    """The defaults of what a network's forward takes beyond the example inputs: they decide which branch runs."""
    parameters = list(inspect.signature(net.forward).parameters.values())[given:]
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


class _Walk:
    """Carriers of the graph's tensors, found forward from the makers and back from what is added to them."""

    def __init__(self, net, modules, example_inputs, homogeneous):
        self.modules, self.homogeneous = modules, homogeneous
        try:
            self.graph = _Tracer(homogeneous).trace(net, _left_out(net, len(inputs(example_inputs))))
        except Exception as error:
            raise ValueError(
                f"torch.fx cannot trace {type(net).__name__} ({error}): allowed is a part that it can"
            ) from error
        buffers = [buffer.clone() for buffer in net.buffers()]
        try:
            with in_mode(net, False), torch.no_grad():
                net(*inputs(example_inputs))  # ShapeProp prints a traceback of its own
                ShapeProp(fx.GraphModule(net, self.graph)).propagate(*inputs(example_inputs))
        except Exception as error:
            raise ValueError(f"the network does not run on the example inputs ({error})") from error
        finally:
            for buffer, kept in zip(net.buffers(), buffers):
                buffer.copy_(kept)
        self.carriers: dict[fx.Node, Carrier] = {}
        self.makers: set[str] = set()
        self.consumers: dict[str, Carrier] = {}
        self.conflicts: list[str] = []  # final only when all makers are known

    def shape(self, node: fx.Node) -> torch.Size | None:
        """The shape of the node's tensor, or None where it is no tensor."""
        found = node.meta.get("tensor_meta")
        return getattr(found, "shape", None)

    def does(self, node: fx.Node):
        """What a node does: its module, its function or the name of its method."""
        return self.modules[node.target] if node.op == "call_module" else node.target

    def among(self, node: fx.Node, kinds: set) -> bool:
        what = self.does(node)
        return (type(what) if isinstance(what, nn.Module) else what) in kinds

    def passes(self, node: fx.Node) -> bool:
        """Whether the node works channel by channel and keeps their order."""
        what = self.does(node)
        return (
            self.among(node, HOMOGENEOUS | ELEMENTWISE)
            or isinstance(what, self.homogeneous)
            or normalises(what)
            or (isinstance(what, nn.PReLU) and what.num_parameters == 1)
            or depthwise(what)
            or (self.among(node, DIVIDE) and len(self.tensors(node)) == 1 and self.tensors(node)[0] is node.args[0])
        )

    def space(self, node: fx.Node) -> int:
        """The last axes that a pooling or padding node works along, of which its name tells how many; else 0."""
        what = self.does(node)
        name = (type(what) if isinstance(what, nn.Module) else what).__name__ if not isinstance(what, str) else what
        if isinstance(what, nn.Upsample):
            return len(self.shape(node)) - 2
        spatial = name.lower().rstrip("d")
        return int(spatial[-1]) if ("pool" in spatial or "pad" in spatial) and spatial[-1].isdigit() else 0

    def operands(self, node: fx.Node) -> int:
        """How many of a sum's or product's operands carry the channels."""
        return sum(isinstance(a, fx.Node) and a in self.carriers for a in [*node.args, *node.kwargs.values()])

    def require(self, node: fx.Node, carrier: Carrier) -> None:
        """See that a node carries the channels, back to the layers that make it so."""
        if node in self.carriers:
            if self.carriers[node] != carrier:
                self.conflicts.append(f"{self.name(node)} would carry the channels in two ways: allowed is one")
            return
        self.carriers[node] = carrier
        what = self.does(node)
        if isinstance(what, LAYERS) and not depthwise(what):
            if carrier.segments != (1,) or getattr(what, "groups", 1) > 1:
                raise ValueError(f"{self.name(node)} makes the channels but is grouped, or makes more than them")
            self.makers.add(node.target)
            for other in self.graph.nodes:  # the same layer called again makes them there too
                if other.op == "call_module" and other.target == node.target:
                    self.require(other, Carrier(_channel_axis(what, self.shape(other))))
        elif self.passes(node) or self.among(node, ADD | MULTIPLY):
            for source in self.tensors(node):
                axis = carrier.axis - len(self.shape(node)) + len(self.shape(source))  # broadcasting aligns last axes
                if axis >= 0 and self.shape(source)[axis] == self.shape(node)[carrier.axis]:
                    self.require(source, carrier._replace(axis=axis))
        else:
            raise ValueError(f"{self.name(node)} is joined to the channels but cannot be split with them")

    def forward(self, layer: str) -> None:
        """Carry the channels on until they are consumed; begin anew when more layers are found that make them."""
        seeds = {layer}
        while not self.carriers or not self.makers <= seeds:
            seeds |= self.makers
            self.carriers, self.consumers, self.makers, self.conflicts = {}, {}, set(), []
            for node in self.graph.nodes:
                if node.op == "call_module" and node.target in seeds:
                    self.require(node, Carrier(_channel_axis(self.does(node), self.shape(node))))
            for node in self.graph.nodes:
                if any(source in self.carriers for source in self.tensors(node)):
                    self.visit(node)
            if not self.carriers:
                return  # the layer is never called
        if self.conflicts:
            raise ValueError(self.conflicts[0])

    def visit(self, node: fx.Node) -> None:
        what, sources = self.does(node), self.tensors(node)
        source = next(source for source in sources if source in self.carriers)
        carrier = self.carriers[source]
        if node.op == "output":
            raise ValueError(
                "the channels reach the network's output: allowed are layers that another Linear or Conv follows"
            )
        if "tensor_meta" not in node.meta:
            return  # a size, say
        if self.shape(node) is None:
            raise ValueError(f"{self.name(node)} is not known to keep channels apart: it returns several tensors")
        if isinstance(what, LAYERS) and not depthwise(what):
            if getattr(what, "groups", 1) > 1:
                raise ValueError(
                    f"{self.name(node)} is a grouped convolution: allowed are ungrouped and depthwise ones"
                )
            if carrier.axis != _channel_axis(what, self.shape(sources[0])):
                raise ValueError(f"{self.name(node)} does not take the channels as its inputs")
            if self.consumers.setdefault(node.target, carrier) != carrier:
                self.conflicts.append(f"{self.name(node)} is called with the channels in two ways: allowed is one")
        elif self.among(node, FLATTEN):
            self.carriers[node] = self.flattened(node, carrier)
        elif self.among(node, {torch.cat}):
            self.carriers[node] = self.joined(node, carrier)
        elif self.among(node, ADD | MULTIPLY):
            self.require(node, carrier._replace(axis=carrier.axis + len(self.shape(node)) - len(self.shape(source))))
        elif normalises(what) and carrier.axis != 1:
            raise ValueError(f"{self.name(node)} normalises another axis than that of the channels")
        elif depthwise(what) and carrier.axis != _channel_axis(what, self.shape(source)):
            raise ValueError(f"{self.name(node)} does not take the channels as its inputs")
        elif carrier.axis >= len(self.shape(node)) - self.space(node):
            raise ValueError(f"{self.name(node)} works along the channels: allowed is work along other axes")
        elif self.passes(node):
            self.require(node, carrier)
        elif self.among(node, {"mean", torch.mean}):
            self.carriers[node] = self.averaged(node, carrier)
        elif isinstance(what, nn.LayerNorm | nn.GroupNorm) or self.among(node, {F.layer_norm, F.group_norm}):
            raise ValueError(
                f"{self.name(node)} normalises over the channels, whose mean a twin changes: allowed is BatchNorm"
            )
        else:
            raise ValueError(
                f"{self.name(node)} is not known to keep channels apart: allowed are elementwise activations, "
                "dropout, pooling, flatten, concatenation, sums and BatchNorm"
            )

    def flattened(self, node: fx.Node, carrier: Carrier) -> Carrier:
        """The carrier after a flatten or a view: each channel takes a run of positions."""
        before, after = self.shape(self.tensors(node)[0]), self.shape(node)
        axis = carrier.axis
        sizes = () if isinstance(self.does(node), nn.Module) or "flatten" in self.name(node) else node.args[1:]
        sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
        if len(sizes) > axis and isinstance(sizes[axis], int) and sizes[axis] != -1:
            raise ValueError(f"{self.name(node)} has the size {sizes[axis]} written in: allowed is -1, or flatten")
        if before == after:
            return carrier
        if before[:axis] != after[:axis] or len(after) != axis + 1:
            raise ValueError(
                f"{self.name(node)} mixes the channels with another axis: allowed is a flatten that begins at them"
            )
        run = before[axis + 1 :].numel()
        return Carrier(axis, tuple(positions * run for positions in carrier.segments))

    def joined(self, node: fx.Node, carrier: Carrier) -> Carrier:
        """The carrier after a concatenation along the channels."""
        named = node.kwargs
        sources = node.args[0] if node.args else named["tensors"]
        dim = node.args[1] if len(node.args) > 1 else named.get("dim", named.get("axis", 0))
        dim %= len(self.shape(node))
        if dim != carrier.axis:
            for source in sources:
                self.require(source, carrier)
            return carrier
        parts = (self.carriers[s].segments if s in self.carriers else (-self.shape(s)[dim],) for s in sources)
        return Carrier(dim, tuple(segment for part in parts for segment in part))

    def averaged(self, node: fx.Node, carrier: Carrier) -> Carrier:
        """The carrier after a mean over other axes."""
        before, after = self.shape(self.tensors(node)[0]), self.shape(node)
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        dims = range(len(before)) if dims is None else dims
        dims = {dim % len(before) for dim in ([dims] if isinstance(dims, int) else dims)}
        if carrier.axis in dims:
            raise ValueError(f"{self.name(node)} averages over the channels: allowed are means over other axes")
        dropped = sum(dim < carrier.axis for dim in dims) if len(after) < len(before) else 0
        return carrier._replace(axis=carrier.axis - dropped)

    def path(self) -> Path:
        """What was found, with the parameters that take α and β: the last ones before the first activation."""
        gains, along, obstacles = set(), {}, []
        pending: dict[fx.Node, set[str]] = {}  # the parameters that would scale a tensor which nothing has yet used
        for node in self.graph.nodes:
            sources = [source for source in self.tensors(node) if source in self.carriers]
            what = self.does(node)
            if node.op == "call_module" and node.target in self.makers and node in self.carriers:
                pending[node] = {f"{node.target}.weight", f"{node.target}.bias"}
                if sources:  # it consumes the channels that it makes
                    gains |= set().union(*(pending.get(source, set()) for source in sources))
                continue
            if not sources:
                continue
            waiting = set().union(*(pending.get(source, set()) for source in sources))
            alone = all(source in pending and len(source.users) == 1 for source in sources)
            if normalises(what):
                along[node.target] = self.carriers[node]
                pending[node] = {f"{node.target}.weight", f"{node.target}.bias"}
                if not alone or not what.affine:
                    obstacles.append(self.name(node))
            elif self.among(node, ADD) and alone:
                pending[node] = waiting
            else:
                gains |= waiting
                if depthwise(what):
                    along[node.target] = self.carriers[node]
                    gains.add(f"{node.target}.bias")
            if (
                self.among(node, ELEMENTWISE)
                or (self.among(node, ADD) and self.operands(node) < 2)
                or (self.among(node, MULTIPLY) and self.operands(node) > 1)
            ):
                obstacles.append(self.name(node))
        return Path(self.makers, along, self.consumers, gains, obstacles)

    def refuse_other_uses(self, changed: set[str]) -> None:
        """Refuse where a module that changes, or a parameter of it, is also used for something else."""
        for node in self.graph.nodes:
            taken = any(source in self.carriers for source in self.tensors(node))
            carries = taken if node.target in self.consumers else taken or node in self.carriers
            if node.op == "call_module" and node.target in changed and not carries:
                raise ValueError(f"{self.name(node)} is also called without the channels: allowed is one use")
            if node.op == "get_attr" and node.target.rpartition(".")[0] in changed:
                raise ValueError(f"{node.target!r} is also used outside its module: allowed is one use")

    def tensors(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose tensors a node takes."""
        return [source for source in node.all_input_nodes if self.shape(source) is not None]

    def name(self, node: fx.Node) -> str:
        """A node as a person knows it: GELU 'mlp.1', or the function."""
        what = self.does(node)
        if isinstance(what, nn.Module):
            return f"{type(what).__name__} {node.target!r}"
        return getattr(what, "__name__", str(what))
