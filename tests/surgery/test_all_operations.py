"""All operations of aten: what keeps the places of elements is known to do so, and what is known to do so does.

An operation is elementwise if permuting the elements of its inputs permutes those of its output. That is tried for all
operations that take one to three tensors, on random inputs, with default arguments for all others. What torch composes
of others never reaches the tracer, and is left out.
"""

import contextlib
import warnings

import pytest
import torch
from networks import Custom
from torch import nn

from neuronsplit.surgery import pointwise
from neuronsplit.surgery.rules import POINTWISE_UNTAGGED, RULES, SHAPES_ONLY
from neuronsplit.surgery.split_neuron import split_neuron

SIZE = 12
LEFT_OUT = (
    "cudnn miopen mkldnn mps cuda xpu quant sparse _test_ _foobar backward _grad".split()
)  # other backends, and so on
LEFT_UNKNOWN = set(  # elementwise, and refused: nobody's forward pass calls them
    "_add_relu _lazy_clone _neg_view_copy _new_zeros_with_same_feature_meta _standard_gamma_grad alias_copy binomial "
    "_weight_norm_interface detach_copy isin lift lift_fresh_copy resize_as rrelu_with_noise_functional set slice_copy "
    "squeeze_copy t_copy to_dense unique_consecutive poisson floor_divide".split()
)


def functional_operations():
    """Every operation of aten without side effects that the tracer can meet."""
    for full in sorted(torch._C._dispatch_get_all_op_names()):
        space, _, name = full.partition("::")
        if space != "aten" or any(kind in name for kind in LEFT_OUT):
            continue
        with contextlib.suppress(Exception):
            packet, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.aten, packet), overload or "default")
            writes = any(a.alias_info is not None and a.alias_info.is_write for a in op._schema.arguments)
            composed = op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
            if not (op.is_view or writes or composed):
                yield op


def arguments_of(op, tensors):
    """Tensors for what must be given, numbers for numbers; None if something else must be given."""
    given, tensors = {}, list(tensors)
    for argument in op._schema.arguments:
        kind = str(argument.type)
        if argument.has_default_value():
            continue
        if kind == "Tensor" and tensors:
            given[argument.name] = tensors.pop(0)
        elif kind in ("number", "float", "bool"):
            given[argument.name] = {"bool": False}.get(kind, 0.7)
        elif kind == "Optional[Tensor]":
            given[argument.name] = None
        else:
            return None
    return given if len(tensors) < 3 else None


def first_output(op, given):
    """The first tensor that an operation computes, of the inputs' shape; None if it has none, or does not run."""
    torch.manual_seed(0)
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = op(**given)
        out = out[0] if isinstance(out, tuple | list) and out else out
        if isinstance(out, torch.Tensor) and out.shape == (SIZE,) and not out.is_complex():
            return out.double()
    return None


def is_elementwise(op):
    """Whether an operation keeps places on random inputs; None if it could not be tried."""
    g = torch.Generator().manual_seed(0)
    order = torch.randperm(SIZE, generator=g)
    for shift in (0.0, 1.5):  # some take positive numbers only
        tensors = [torch.rand(SIZE, generator=g) * 2 - 1 + shift for _ in range(3)]
        given = arguments_of(op, tensors)
        if given is None or (out := first_output(op, given)) is None:
            continue
        moved = first_output(op, {k: v[order] if isinstance(v, torch.Tensor) else v for k, v in given.items()})
        return moved is not None and torch.equal(out[order].nan_to_num(), moved.nan_to_num())
    return None


def name_of(op):
    name = op._schema.name.split("::")[1]
    return name if name.startswith("__") else name.rstrip("_")


@pytest.fixture(scope="module")
def tried():
    """Of each operation that could be tried: whether it is elementwise."""
    found = {op: is_elementwise(op) for op in functional_operations()}
    return {op: elementwise for op, elementwise in found.items() if elementwise is not None}


def test_many_operations_could_be_tried(tried):
    assert len(tried) > 200 and sum(tried.values()) > 100


def test_no_operation_that_is_followed_as_elementwise_moves_elements(tried):
    random = {"bernoulli", "native_dropout", "rrelu_with_noise", "normal", "rand_like", "randn_like"}
    followed = {op for op in tried if torch.Tag.pointwise in op.tags or name_of(op) in POINTWISE_UNTAGGED}
    assert {op.name() for op in followed if not tried[op] and name_of(op) not in random} == set()
    assert len(followed) > 100


def test_each_elementwise_operation_is_tagged_or_listed_or_has_a_rule_or_refuses(tried):
    untagged = {name_of(op) for op, elementwise in tried.items() if elementwise and torch.Tag.pointwise not in op.tags}
    assert untagged - POINTWISE_UNTAGGED - set(RULES) - SHAPES_ONLY - LEFT_UNKNOWN == set()


def test_all_that_is_listed_exists_in_aten():
    names = {full.split("::")[1].partition(".")[0] for full in torch._C._dispatch_get_all_op_names()}
    names = {name.rstrip("_") for name in names} | names
    assert {name for name in {*RULES, *SHAPES_ONLY, *POINTWISE_UNTAGGED} if name not in names} == set()


def scaled_alike(op, also):
    """Whether twice the first tensor, or twice all of them, gives twice the output."""
    g = torch.Generator().manual_seed(0)
    tensors = [torch.rand(SIZE, generator=g) * 2 - 1 for _ in range(3)]
    given = arguments_of(op, tensors)
    twice = arguments_of(op, [2 * t if also or i == 0 else t for i, t in enumerate(tensors)])
    if given is None or (out := first_output(op, given)) is None:
        return None
    return torch.allclose(2 * out, first_output(op, twice))


@pytest.mark.parametrize("kind", ["HOMOGENEOUS", "SUMS"])
def test_what_lets_a_scale_through_does(kind, tried):
    names, random = getattr(pointwise, kind), {"bernoulli", "native_dropout", "rrelu_with_noise"}
    fixed = {"fill", "masked_fill", "where", "lerp", "zero"}  # only with a number of 0, or a condition
    wrong = set()
    for op in tried:
        has_number = any(str(a.type) == "number" and not a.has_default_value() for a in op._schema.arguments)
        if name_of(op) in names - random - fixed and not has_number:
            wrong |= {op.name()} if scaled_alike(op, kind == "SUMS") is False else set()
    assert wrong == set()


UNKNOWN = {
    "cross": lambda h: torch.linalg.cross(h[:, :3], h[:, 1:4]), "svd": lambda h: torch.linalg.svdvals(h)[None],
    "cdist": lambda h: torch.cdist(h, h), "argmax": lambda h: h.argmax(1, keepdim=True).to(h),
    "fft": lambda h: torch.fft.rfft(h).abs(), "median": lambda h: h.median(1)[0][:, None],
    "histc": lambda h: torch.histc(h, 4)[None], "unfold": lambda h: h.unfold(1, 2, 1).flatten(1),
    "softmax": lambda h: h.softmax(1), "add_relu": lambda h: torch.ops.aten._add_relu(h, h),
    "bucketize": lambda h: torch.bucketize(h, torch.linspace(-1, 1, 4).to(h)).to(h) * h,
    "trace": lambda h: h[:, :3].trace()[None, None], "logcumsumexp": lambda h: h.logcumsumexp(1), "cov": torch.cov,
    "nonzero": lambda h: h.new_ones(1, 1) * len(h[h > 0.3]), "unique": lambda h: h.unique()[None, :1],
    "kthvalue": lambda h: h.kthvalue(2, 1)[0][:, None], "renorm": lambda h: h.renorm(2, 0, 1.0),
    "sort": lambda h: h.sort(1)[0], "cumsum": lambda h: h.cumsum(1), "diff": lambda h: h.diff(dim=1),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_rule_follows_is_refused_or_exact_and_never_wrong(name):
    """The bias makes the example, all of zeros, a weak check."""
    torch.manual_seed(0)
    net = Custom(lambda n, x: n.b(n.a(x)) + UNKNOWN[name](n.a(x)).sum(), a=nn.Linear(3, 5), b=nn.Linear(5, 2)).double()
    inputs = [torch.randn(3, 3).double() for _ in range(3)]
    with torch.no_grad():
        before = [net(x) for x in inputs]
    with contextlib.suppress(ValueError):
        split_neuron(net, "a", 1, example_inputs=torch.zeros(3, 3).double(), rule="outgoing", together=True)
    with torch.no_grad():
        for x, old in zip(inputs, before):
            torch.testing.assert_close(net(x), old, rtol=1e-11, atol=1e-13)
