"""Networks that hypothesis draws from pieces, one for each kind of operation that the tracer has a rule for.

Each piece takes and gives (B, T, C): examples, tokens and channels. It is a function of a draw and the present shape.
"""

import torch
from hypothesis import strategies as st
from networks import Custom
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

FUNCTIONS = {
    "relu": torch.relu, "leaky_relu": F.leaky_relu, "tanh": torch.tanh, "gelu": F.gelu, "silu": F.silu, "mish": F.mish,
    "hardswish": F.hardswish, "abs": torch.abs, "clamp": lambda x: x.clamp(-1, 2), "square": lambda x: x * x,
    "elu": F.elu, "exp": lambda x: torch.exp(-x.abs()), "logsigmoid": F.logsigmoid, "selu": F.selu, "sin": torch.sin,
    "masked": lambda x: x.masked_fill(x > 1, 0.5), "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "scaled": lambda x: 2 * x, "shifted": lambda x: x + 0.3, "max": lambda x: torch.maximum(x, 0.2 * x),
    "rsub": lambda x: 1 - x, "id": lambda x: x.clone(),
}  # fmt: skip


def a_parameter(net, name, *shape):
    setattr(net, name, nn.Parameter(torch.randn(shape)))
    return net


def linear(draw, T, C):
    return nn.Linear(C, draw(st.integers(2, 6)), bias=draw(st.booleans()))


def matrix(draw, T, C):
    """A bare parameter, multiplied in one of several ways."""
    to = draw(st.integers(2, 5))
    way = draw(st.sampled_from(["matmul", "einsum", "transposed", "F.linear", "bmm"]))
    ways = {
        "matmul": lambda n, x: x @ n.w,
        "einsum": lambda n, x: torch.einsum("btc,cd->btd", x, n.w),
        "transposed": lambda n, x: (n.w.t() @ x.mT).mT,
        "F.linear": lambda n, x: F.linear(x, n.w.t()),
        "bmm": lambda n, x: torch.bmm(x, n.w.expand(len(x), -1, -1)),
    }
    return a_parameter(Custom(ways[way]), "w", C, to)


def function(draw, T, C):
    f = FUNCTIONS[draw(st.sampled_from(sorted(FUNCTIONS)))]
    return Custom(lambda n, x: f(x))


def mlp(draw, T, C):
    """A branch beside the channels, added to them, or put in their place."""
    width, f = draw(st.integers(2, 5)), FUNCTIONS[draw(st.sampled_from(sorted(FUNCTIONS)))]
    in_place = draw(st.booleans())

    def forward(n, x):
        out = n.down(f(n.up(x)))
        return out.add_(x) if in_place else x + out

    return Custom(forward, up=nn.Linear(C, width), down=nn.Linear(width, C))


def gate(draw, T, C):
    width, f = draw(st.integers(2, 4)), FUNCTIONS[draw(st.sampled_from(["tanh", "silu", "gelu", "relu", "exp"]))]
    way = draw(st.sampled_from(["two", "chunk", "split", "glu", "slices", "unbind", "interleaved"]))
    if way == "two":
        return Custom(lambda n, x: f(n.a(x)) * n.b(x), a=nn.Linear(C, width), b=nn.Linear(C, width))
    halves = {
        "chunk": lambda h: h.chunk(2, -1), "split": lambda h: h.split(width, -1), "glu": lambda h: h.chunk(2, -1),
        "slices": lambda h: (h[..., :width], h[..., width:]), "unbind": lambda h: h.unflatten(-1, (2, width)).unbind(2),
        "interleaved": lambda h: (h[..., ::2], h[..., 1::2]),
    }[way]  # fmt: skip

    def forward(n, x):
        if way == "glu":
            return F.glu(n.a(x), -1)
        left, right = halves(n.a(x))
        return f(left) * right

    return Custom(forward, a=nn.Linear(C, 2 * width))


def joined(draw, T, C):
    """A concatenation with another branch, with itself, or with a parameter."""
    way = draw(st.sampled_from(["branch", "self", "flipped", "token", "stack", "parameter"]))
    width = draw(st.integers(1, 3))
    forward = {
        "branch": lambda n, x: torch.cat([n.a(x), x], 2),
        "self": lambda n, x: torch.cat([x, torch.tanh(x)], 2),
        "flipped": lambda n, x: torch.cat([x, x.flip(1)], 2),
        "token": lambda n, x: torch.cat([n.token.expand(len(x), 1, -1), x], 1),
        "stack": lambda n, x: torch.stack([x, n.b(x)], 2).flatten(2),
        "parameter": lambda n, x: torch.cat([n.p.expand(len(x), x.shape[1], -1), x], 2),
    }[way]
    modules = {"branch": {"a": nn.Linear(C, width)}, "stack": {"b": nn.Linear(C, C)}}.get(way, {})
    net = Custom(forward, **modules)
    return a_parameter(a_parameter(net, "token", 1, 1, C), "p", 1, 1, width)


def moved(draw, T, C):
    """Tokens or channels are put elsewhere."""
    axis, order = draw(st.sampled_from([1, 2])), None
    order = torch.tensor(draw(st.permutations(range((T, C)[axis - 1]))))
    way = draw(st.sampled_from("flip roll index index_select gather sort repeat pad take tril".split()))
    return Custom({
        "flip": lambda n, x: x.flip(axis), "roll": lambda n, x: x.roll(1, axis),
        "index": lambda n, x: x[:, order] if axis == 1 else x[..., order],
        "index_select": lambda n, x: x.index_select(axis, order),
        "gather": lambda n, x: x.gather(axis, order.view(1, *((-1, 1), (1, -1))[axis - 1]).expand_as(x)),
        "sort": lambda n, x: x.sort(axis)[0],
        "repeat": lambda n, x: x.repeat_interleave(2, axis),
        "pad": lambda n, x: F.pad(x, (0, 0, 1, 1) if axis == 1 else (1, 0)),
        "take": lambda n, x: x.take_along_dim(order.view(1, *((-1, 1), (1, -1))[axis - 1]), axis),
        "tril": lambda n, x: x.tril() if x.dim() > 1 else x,
    }[way])  # fmt: skip


def reshaped(draw, T, C):
    """Views and permutations that end at (B, T', C')."""
    way = draw(st.sampled_from(["heads", "swap", "shuffle", "merge", "transpose"]))
    divisors = [d for d in range(1, C + 1) if C % d == 0]
    h = draw(st.sampled_from(divisors))
    return Custom({
        "heads": lambda n, x: x.view(*x.shape[:2], h, -1).permute(0, 2, 1, 3).reshape(len(x), h * x.shape[1], -1),
        "swap": lambda n, x: x.unflatten(2, (h, -1)).transpose(2, 3).flatten(2),
        "shuffle": lambda n, x: F.channel_shuffle(x.mT, h).mT if C % h == 0 else x,
        "merge": lambda n, x: x.flatten(1).unflatten(1, (x.shape[1], -1)),
        "transpose": lambda n, x: x.mT.contiguous().mT,
    }[way])  # fmt: skip


def normed(draw, T, C):
    divisors = [d for d in range(1, C + 1) if C % d == 0]
    kinds = ["layer", "rms", "batch", "group", "softmax", "unit", "by hand", *(["instance"] if T > 1 else [])]
    kind = draw(st.sampled_from(kinds))  # torch refuses instance norm of a single token
    if kind in ("layer", "rms"):
        return (nn.LayerNorm if kind == "layer" else nn.RMSNorm)(C, eps=1e-3)
    if kind in ("batch", "group", "instance"):
        groups = C if kind == "instance" else draw(st.sampled_from(divisors))
        norm = nn.BatchNorm1d(C) if kind == "batch" else nn.GroupNorm(groups, C)
        norm = nn.InstanceNorm1d(C, affine=True) if kind == "instance" else norm
        return Custom(lambda n, x: n.norm(x.mT).mT, norm=norm)
    axis = draw(st.sampled_from([1, 2]))
    return Custom({
        "softmax": lambda n, x: x.softmax(axis), "unit": lambda n, x: F.normalize(x, dim=axis, eps=1e-3),
        "by hand": lambda n, x: (x - x.mean(axis, keepdim=True)) / (x.var(axis, False, keepdim=True) + 1).sqrt(),
    }[kind])  # fmt: skip


def reduced(draw, T, C):
    """A reduction, added to what it was computed from, or in its place (over tokens)."""
    axis, name = draw(st.sampled_from([1, 2])), draw(st.sampled_from("mean sum amax std logsumexp cumsum".split()))
    if name == "cumsum":
        return Custom(lambda n, x: x.cumsum(axis))
    add = axis == 2 or draw(st.booleans())
    return Custom(lambda n, x: (x if add else 0) + getattr(x, name)(axis, keepdim=True))


def pooled(draw, T, C):
    kind = draw(st.sampled_from([F.avg_pool1d, F.max_pool1d]))
    over_channels = draw(st.integers(0, 4)) == 0 and C > 2
    return Custom(lambda n, x: kind(x, 2, 1) if over_channels else kind(x.mT, 2, 1, 1).mT)


def convolved(draw, T, C):
    divisors = [d for d in range(1, C + 1) if C % d == 0]
    groups, transposed = draw(st.sampled_from(divisors)), draw(st.integers(0, 4)) == 0
    kind = nn.ConvTranspose1d if transposed else nn.Conv1d
    conv = kind(C, groups * draw(st.integers(1, 3)), 3, padding=1, groups=groups, bias=draw(st.booleans()))
    return Custom(lambda n, x: n.conv(x.mT).mT, conv=conv)


def attended(draw, T, C):
    heads, size = draw(st.integers(1, 3)), draw(st.integers(2, 3))
    kernel, packed, kv = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([1, heads]))

    def forward(n, x):
        if packed:
            q, k, v = n.qkv(x).unflatten(-1, (3, heads, size)).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = (f(x).unflatten(-1, (-1, size)).transpose(1, 2) for f in (n.q, n.k, n.v))
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        out = F.scaled_dot_product_attention(q, k, v) if kernel else (q @ k.mT / size**0.5).softmax(-1) @ v
        return x + n.o(out.transpose(1, 2).flatten(2))

    inner = heads * size
    parts = {"qkv": nn.Linear(C, 3 * inner)} if packed else {
        "q": nn.Linear(C, inner), "k": nn.Linear(C, kv * size), "v": nn.Linear(C, kv * size)}  # fmt: skip
    return Custom(forward, **parts, o=nn.Linear(inner, C))


def multiplied(draw, T, C):
    """Products of activations: along channels, along tokens, or element by element with a parameter."""
    way = draw(st.sampled_from(["tokens", "channels", "layer scale", "positions", "bilinear", "outer", "divided"]))
    net = Custom({
        "tokens": lambda n, x: (x @ x.mT / 4) @ x, "channels": lambda n, x: x @ (x.mT @ x) / 8,
        "layer scale": lambda n, x: x * n.gain, "positions": lambda n, x: x + n.place[:, : x.shape[1]],
        "bilinear": lambda n, x: x * n.a(x), "outer": lambda n, x: x * x.sum(2, keepdim=True),
        "divided": lambda n, x: x / (1 + x.abs()),
    }[way], a=nn.Linear(C, C))  # fmt: skip
    return a_parameter(a_parameter(net, "gain", C), "place", 1, 20, C)


def written(draw, T, C):
    """What is written in place, into a part, or added at places."""
    way = draw(st.sampled_from(["part", "plus", "index_add", "scatter_add", "zeros", "mul", "token"]))
    k = draw(st.integers(1, C))
    tokens = torch.tensor(draw(st.lists(st.integers(0, T - 1), min_size=T, max_size=T)))

    def forward(n, x):
        h = n.a(x)
        if way == "part":
            h[..., :k] = x[..., :k]
        elif way == "plus":
            h[..., :k] += x[..., -k:]
        elif way == "index_add":
            h = h.index_add(1, tokens[: x.shape[1]] % x.shape[1], x)
        elif way == "scatter_add":
            h = h.scatter_add(1, (tokens[: x.shape[1]] % x.shape[1]).view(1, -1, 1).expand_as(x), x)
        elif way == "zeros":
            out = torch.zeros_like(h)
            out[:, ::2] = h[:, ::2]
            h = out
        elif way == "mul":
            h.mul_(x.sigmoid()).relu_()
        else:
            h[:, 0] = x[:, -1]
        return h

    return Custom(forward, a=nn.Linear(C, C))


def recurrent(draw, T, C):
    kind, two = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN])), draw(st.booleans())
    return Custom(lambda n, x: n.rnn(x)[0], rnn=kind(C, 3, batch_first=True, bidirectional=two, num_layers=1 + two))


def looked_up(draw, T, C):
    """An embedding of the places, or of the largest channel; its matrix may be used as a product too."""
    tied, largest = draw(st.booleans()), draw(st.integers(0, 4)) == 4

    def forward(n, x):
        h = x + n.table(x.argmax(2) % 3 if largest else torch.arange(x.shape[1]) % 3)
        return h @ n.table.weight.t() if tied else h

    return Custom(forward, table=nn.Embedding(3, C))


def modulated(draw, T, C):
    """Gains from elsewhere: FiLM, squeeze and excitation, a spatial gate, a highway, a mixture of experts."""
    way = draw(st.sampled_from(["film", "squeeze", "spatial", "highway", "experts", "top-1"]))
    a, b, c = nn.Linear(C, C), nn.Linear(C, 2 if way in ("squeeze", "experts", "top-1") else C), nn.Linear(2, C)

    def forward(n, x):
        if way == "film":
            return x * n.a(x.mean(1, keepdim=True)) + n.b(x.amax(1, keepdim=True))
        if way == "squeeze":
            return x * torch.sigmoid(n.c(torch.relu(n.b(x.mean(1, keepdim=True)))))
        if way == "spatial":
            return n.a(x) * torch.sigmoid(torch.cat([x.mean(2, True), x.amax(2, True)], 2).mean(2, True))
        if way == "highway":
            gate = torch.sigmoid(n.b(x))
            return gate * torch.tanh(n.a(x)) + (1 - gate) * x
        weights = n.b(x).softmax(2)
        if way == "top-1":
            weights = weights.masked_fill(weights < weights.amax(2, True), 0.0)
        return weights[..., :1] * n.a(x) + weights[..., 1:] * torch.relu(n.c(n.b(x)))

    return Custom(forward, a=a, b=b, c=c)


def compared(draw, T, C):
    """Channels that meet all others: outer products, one weight for all, stacked layers, sums over channels."""
    ways = {
        "weights": lambda n, x: n.a(x) * torch.softmax(n.one(x), 1),
        "added": lambda n, x: torch.relu(n.a(x) + n.one(x)),
        "stacked sum": lambda n, x: torch.stack([n.a(x), torch.tanh(n.b(x)), x], 2).sum(2),
        "stacked mean": lambda n, x: (torch.stack([n.a(x), n.b(x)], 0) * n.two(x).movedim(2, 0)[..., None]).mean(0),
        "outer": lambda n, x: (n.a(x)[..., :, None] * n.two(x)[..., None, :]).flatten(2),
        "outer contracted": lambda n, x: torch.einsum("btc,btd,bsd->bsc", n.a(x), n.two(x), torch.relu(n.two(x))),
        "outer sum": lambda n, x: torch.relu(n.a(x)[..., :, None] + n.two(x)[..., None, :]).mean(3),
        "products": lambda n, x: x * (n.a(x) * n.b(x)).sum(2, keepdim=True),
        "cosine": lambda n, x: x + F.cosine_similarity(n.a(x), torch.tanh(n.b(x)), dim=2)[..., None],
        "pairs": lambda n, x: torch.tanh(F.normalize(n.a(x), dim=2) @ F.normalize(n.b(x), dim=2).mT) @ x,
        "distances": lambda n, x: torch.softmax(-torch.cdist(n.a(x), n.b(x.flip(1))), 2) @ x,
        "squares": lambda n, x: n.b(x) / (1 + n.a(x).pow(2).sum(2, keepdim=True)),
        "sum": lambda n, x: x + n.a(x).sum(2, keepdim=True),
        "unit": lambda n, x: n.b(x) * n.a(x) / (n.a(x).norm(dim=2, keepdim=True) + 1),
    }
    way = draw(st.sampled_from(sorted(ways)))
    return Custom(ways[way], a=nn.Linear(C, C), b=nn.Linear(C, C), one=nn.Linear(C, 1), two=nn.Linear(C, 2))


def normalised(draw, T, C):
    """Layers whose weights are normalised, as rows, as columns or as a whole."""
    to, dim = draw(st.integers(2, 4)), draw(st.sampled_from([0, 1, None]))
    return nn.Sequential(weight_norm(nn.Linear(C, to), dim=dim), nn.Tanh(), weight_norm(nn.Linear(to, C), dim=dim))


def borrowed(draw, T, C):
    """A matrix that is used twice: in a decoder, in a second layer, or as what another one is computed from."""
    way = draw(st.sampled_from(["decoder", "again", "computed", "siamese", "difference"]))
    width = C if way == "again" else draw(st.integers(2, 4))
    return a_parameter(Custom({
        "decoder": lambda n, x: F.linear(torch.tanh(F.linear(x, n.w)), n.w.t()),
        "again": lambda n, x: F.linear(torch.tanh(F.linear(x, n.w)), n.w),
        "computed": lambda n, x: F.linear(x, n.w * 2 + n.w.abs()),
        "siamese": lambda n, x: (F.linear(x, n.w) - F.linear(x.flip(1), n.w)).abs(),
        "difference": lambda n, x: torch.cat([F.linear(x, n.w), F.linear(x.square(), n.w)], 2),
    }[way]), "w", width, C)  # fmt: skip


def of_torch(draw, T, C):
    """Modules of torch that are more than one operation."""
    even = draw(st.sampled_from([h for h in range(1, C + 1) if C % h == 0]))
    kind = draw(st.sampled_from(["attention", "encoder", "bilinear", "prelu", "cell", "resize", "crossed", "maxout"]))
    modules = {
        "attention": lambda: nn.MultiheadAttention(C, even, batch_first=True), "prelu": lambda: nn.PReLU(C),
        "encoder": lambda: nn.TransformerEncoderLayer(C, even, 5, 0.0, batch_first=True),
        "bilinear": lambda: nn.Bilinear(C, C, 3), "crossed": lambda: nn.Linear(C, 2 * C),
        "maxout": lambda: nn.Linear(C, 6), "cell": lambda: nn.GRUCell(C, 3),
    }  # fmt: skip
    forward = {
        "attention": lambda n, x: x + n.m(x, x, x, need_weights=False)[0],
        "encoder": lambda n, x: n.m(x),
        "bilinear": lambda n, x: n.m(x, x.flip(1)),
        "prelu": lambda n, x: n.m(x.mT).mT,
        "cell": lambda n, x: n.m(x.flatten(0, 1)).unflatten(0, x.shape[:2]),
        "resize": lambda n, x: F.interpolate(x.mT, scale_factor=2.0, mode="linear").mT,
        "crossed": lambda n, x: F.scaled_dot_product_attention(x, *n.m(x.flip(1)).chunk(2, 2), is_causal=True),
        "maxout": lambda n, x: n.m(x).unflatten(2, (3, 2)).amax(3),
    }[kind]
    return Custom(forward, **({"m": modules[kind]()} if kind in modules else {}))


PIECES = [linear, matrix, function, mlp, gate, joined, moved, reshaped, normed, reduced, pooled, convolved, attended,
          multiplied, written, recurrent, looked_up, modulated, compared, normalised, borrowed, of_torch, linear,
          function]  # fmt: skip


def draw_network(draw, n_pieces=5, width=4, tokens=4):
    """A network of drawn pieces that begins with a Linear and ends with one, and inputs of it."""
    pieces, x = [nn.Linear(3, width)], torch.randn(2, tokens, width)
    for _ in range(draw(st.integers(1, n_pieces))):
        make = draw(st.sampled_from(PIECES))
        piece = make(draw, *x.shape[1:])
        with torch.no_grad():
            out = piece.eval()(x.clone())
        if out.dim() == 3 and out.shape[1] * out.shape[2] <= 150 and out.isfinite().all():
            pieces.append(piece)
            x = torch.randn(out.shape)
    tail = draw(st.sampled_from(["flat", "mean", "each"]))
    if tail == "flat":
        pieces += [nn.Flatten(), nn.Linear(x.shape[1] * x.shape[2], 3)]
    else:
        pieces += [Custom(lambda n, x: x.mean(1))] if tail == "mean" else []
        pieces += [nn.Linear(x.shape[2], 3)]
    return nn.Sequential(*pieces)
