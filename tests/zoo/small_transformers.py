"""Small transformers, written by hand and with torch's own modules."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class _CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.n_head, self.n_embd = n_head, n_embd

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class _GPT(nn.Module):
    """After nanoGPT."""

    def __init__(self, tied, n_embd=8, n_head=2, vocab=13, block_size=6):
        super().__init__()
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(vocab, n_embd), wpe=nn.Embedding(block_size, n_embd), drop=nn.Dropout(0.1),
            h=nn.ModuleList([_Block(n_embd, n_head) for _ in range(2)]), ln_f=nn.LayerNorm(n_embd),
        ))  # fmt: skip
        self.lm_head = nn.Linear(n_embd, vocab, bias=False)
        if tied:
            self.transformer.wte.weight = self.lm_head.weight

    def forward(self, idx):
        pos = torch.arange(0, idx.size(1), dtype=torch.long, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))


class _Block(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = (
            nn.LayerNorm(n_embd),
            _CausalSelfAttention(n_embd, n_head),
            nn.LayerNorm(n_embd),
        )
        self.mlp = nn.ModuleDict(dict(c_fc=nn.Linear(n_embd, 4 * n_embd), c_proj=nn.Linear(4 * n_embd, n_embd)))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x))))


def gpt_untied():
    return _GPT(False), torch.randint(13, (2, 5))


def gpt_tied():
    return _GPT(True), torch.randint(13, (2, 5))


def gpt2_conv1d():
    """Hugging Face's first GPT-2: Conv1D, a mask in a buffer, attention written out."""

    class Conv1D(nn.Module):
        def __init__(self, nf, nx):
            super().__init__()
            self.nf, self.nx = nf, nx
            self.weight, self.bias = nn.Parameter(torch.empty(nx, nf).normal_(std=0.2)), nn.Parameter(torch.zeros(nf))

        def forward(self, x):
            size_out = x.size()[:-1] + (self.nf,)
            return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size_out)

    class Attention(nn.Module):
        def __init__(self, nx, n_ctx, n_head):
            super().__init__()
            self.register_buffer("bias", torch.tril(torch.ones(n_ctx, n_ctx)).view(1, 1, n_ctx, n_ctx))
            self.n_head, self.split_size = n_head, nx
            self.c_attn, self.c_proj = Conv1D(3 * nx, nx), Conv1D(nx, nx)

        def split_heads(self, x, k=False):
            x = x.view(*x.size()[:-1], self.n_head, x.size(-1) // self.n_head)
            return x.permute(0, 2, 3, 1) if k else x.permute(0, 2, 1, 3)

        def forward(self, x):
            q, k, v = self.c_attn(x).split(self.split_size, dim=2)
            q, k, v = self.split_heads(q), self.split_heads(k, k=True), self.split_heads(v)
            w = torch.matmul(q, k) / math.sqrt(v.size(-1))
            b = self.bias[:, :, : w.size(-2), : w.size(-1)]
            a = torch.matmul(F.softmax(w * b - 1e4 * (1 - b), dim=-1), v)
            a = a.permute(0, 2, 1, 3).contiguous()
            return self.c_proj(a.view(*a.size()[:-2], a.size(-2) * a.size(-1)))

    class Block(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(n), Attention(n, 8, 2), nn.LayerNorm(n)
            self.c_fc, self.c_proj = Conv1D(12, n), Conv1D(n, 12)

        def gelu(self, x):
            return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))

        def forward(self, x):
            x = x + self.attn(self.ln_1(x))
            return x + self.c_proj(self.gelu(self.c_fc(self.ln_2(x))))

    class GPT2(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(9, 8), nn.Embedding(8, 8)
            self.h = nn.ModuleList([Block(8), Block(8)])
            self.score = nn.Linear(8, 3, bias=False)

        def forward(self, input_ids):
            x = self.wte(input_ids) + self.wpe.weight[: input_ids.shape[1]]
            for block in self.h:
                x = block(x)
            return self.score(x)

    return GPT2(), {"input_ids": torch.randint(9, (2, 5))}


def llama():
    class RMSNorm(nn.Module):
        def __init__(self, dim, eps=1e-5):
            super().__init__()
            self.eps, self.weight = eps, nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight

    def rotate(x, cos, sin):
        x1, x2 = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-x2, x1), dim=-1) * sin

    class Attention(nn.Module):
        def __init__(self, dim, n_heads, n_kv_heads):
            super().__init__()
            self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, dim // n_heads
            self.wq = nn.Linear(dim, n_heads * self.head_dim, bias=False)
            self.wk = nn.Linear(dim, n_kv_heads * self.head_dim, bias=False)
            self.wv = nn.Linear(dim, n_kv_heads * self.head_dim, bias=False)
            self.wo = nn.Linear(n_heads * self.head_dim, dim, bias=False)

        def forward(self, x, cos, sin):
            b, t, _ = x.shape
            q = self.wq(x).view(b, t, self.n_heads, self.head_dim).transpose(1, 2)
            k = self.wk(x).view(b, t, self.n_kv_heads, self.head_dim).transpose(1, 2)
            v = self.wv(x).view(b, t, self.n_kv_heads, self.head_dim).transpose(1, 2)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            n_rep = self.n_heads // self.n_kv_heads
            k = (
                k[:, :, None]
                .expand(b, self.n_kv_heads, n_rep, t, self.head_dim)
                .reshape(b, self.n_heads, t, self.head_dim)
            )
            v = v.repeat_interleave(n_rep, dim=1)
            scores = q @ k.transpose(2, 3) / math.sqrt(self.head_dim)
            scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), float("-inf"))
            out = scores.softmax(-1) @ v
            return self.wo(out.transpose(1, 2).reshape(b, t, -1))

    class FeedForward(nn.Module):
        def __init__(self, dim, hidden):
            super().__init__()
            self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
            self.w2 = nn.Linear(hidden, dim, bias=False)

        def forward(self, x):
            return self.w2(F.silu(self.w1(x)) * self.w3(x))

    class Layer(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.attention, self.feed_forward = Attention(dim, 4, 2), FeedForward(dim, 12)
            self.attention_norm, self.ffn_norm = RMSNorm(dim), RMSNorm(dim)

        def forward(self, x, cos, sin):
            h = x + self.attention(self.attention_norm(x), cos, sin)
            return h + self.feed_forward(self.ffn_norm(h))

    class Llama(nn.Module):
        def __init__(self, dim=16, vocab=11):
            super().__init__()
            self.tok_embeddings = nn.Embedding(vocab, dim)
            self.layers = nn.ModuleList(Layer(dim) for _ in range(2))
            self.norm, self.output = RMSNorm(dim), nn.Linear(dim, vocab, bias=False)
            self.register_buffer("inv_freq", 1 / 100 ** (torch.arange(0, 4, 2) / 4), persistent=False)

        def forward(self, tokens):
            angles = torch.outer(torch.arange(tokens.shape[1]).to(self.inv_freq), self.inv_freq)
            emb = torch.cat((angles, angles), dim=-1)
            h = self.tok_embeddings(tokens)
            for layer in self.layers:
                h = layer(h, emb.cos(), emb.sin())
            return self.output(self.norm(h))

    return Llama(), torch.randint(11, (2, 5))


def t5_bias():
    """Relative position bias from an embedding, T5's norm, a gated feed-forward layer, no scale of the scores."""

    class Attention(nn.Module):
        def __init__(self, d, heads, d_kv):
            super().__init__()
            self.n_heads, self.d_kv = heads, d_kv
            self.q, self.k, self.v = (nn.Linear(d, heads * d_kv, bias=False) for _ in range(3))
            self.o = nn.Linear(heads * d_kv, d, bias=False)
            self.relative_attention_bias = nn.Embedding(8, heads)

        def forward(self, x):
            b, t, _ = x.shape
            shape = lambda s: s.view(b, -1, self.n_heads, self.d_kv).transpose(1, 2)  # noqa: E731
            scores = torch.matmul(shape(self.q(x)), shape(self.k(x)).transpose(3, 2))
            buckets = (torch.arange(t)[None, :] - torch.arange(t)[:, None]).clamp(-4, 3) + 4
            scores += self.relative_attention_bias(buckets).permute(2, 0, 1).unsqueeze(0)
            out = torch.matmul(scores.softmax(-1), shape(self.v(x)))
            return self.o(out.transpose(1, 2).contiguous().view(b, -1, self.n_heads * self.d_kv))

    class T5LayerNorm(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(n))

        def forward(self, x):
            variance = x.to(x.dtype).pow(2).mean(-1, keepdim=True)
            return self.weight * (x * torch.rsqrt(variance + 1e-6))

    class Block(nn.Module):
        def __init__(self, d=8):
            super().__init__()
            self.ln1, self.attention, self.ln2 = T5LayerNorm(d), Attention(d, 2, 3), T5LayerNorm(d)
            self.wi_0, self.wi_1, self.wo = nn.Linear(d, 10, bias=False), nn.Linear(d, 10, bias=False), nn.Linear(10, d)

        def forward(self, x):
            x = x + self.attention(self.ln1(x))
            h = self.ln2(x)
            return x + self.wo(F.gelu(self.wi_0(h)) * self.wi_1(h))

    return nn.Sequential(nn.Embedding(12, 8), Block(), Block(), T5LayerNorm(8), nn.Linear(8, 12)), torch.randint(
        12, (2, 6)
    )


def torch_encoder():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(15, 8)
            self.register_buffer("pe", torch.randn(10, 1, 8))
            layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.out = nn.Linear(8, 3)

        def forward(self, ids):
            x = self.embed(ids) * math.sqrt(8) + self.pe[: ids.size(0)]
            return self.out(self.encoder(x).mean(0))

    return Classifier(), torch.randint(15, (5, 2))


def torch_seq2seq():
    class Seq2Seq(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.target = nn.Embedding(11, 8), nn.Embedding(11, 8)
            self.transformer = nn.Transformer(8, 2, 1, 1, 10, batch_first=True, norm_first=True)
            self.generator = nn.Linear(8, 11)

        def forward(self, src, tgt):
            mask = self.transformer.generate_square_subsequent_mask(tgt.size(1)).to(self.generator.weight)
            return self.generator(self.transformer(self.source(src), self.target(tgt), tgt_mask=mask))

    return Seq2Seq(), (torch.randint(11, (2, 5)), torch.randint(11, (2, 4)))


def torch_multihead_attention():
    """Cross attention between two widths, and self attention with weights that are returned and used."""

    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Linear(3, 8)
            self.self_attn = nn.MultiheadAttention(8, 2, batch_first=True)
            self.cross = nn.MultiheadAttention(8, 4, kdim=6, vdim=6, batch_first=True)
            self.context = nn.Linear(2, 6)
            self.head = nn.Linear(8, 2)

        def forward(self, x, c):
            x = self.proj(x)
            x = x + self.self_attn(x, x, x, need_weights=False)[0]
            context = torch.tanh(self.context(c))
            out, weights = self.cross(x, context, context)
            return self.head(F.relu(out)), weights

    return Cross(), (torch.randn(2, 4, 3), torch.randn(2, 5, 2))
