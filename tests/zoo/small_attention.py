"""Small networks around attention: images and sets as tokens, mixers, adapters, experts."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def vit():
    """Lucidrains' habits: packed q, k, v without a bias, class token, positions as a parameter."""

    class Attention(nn.Module):
        def __init__(self, dim, heads, dim_head):
            super().__init__()
            inner = heads * dim_head
            self.heads, self.scale = heads, dim_head**-0.5
            self.norm, self.to_qkv = nn.LayerNorm(dim), nn.Linear(dim, inner * 3, bias=False)
            self.to_out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(0.1))

        def forward(self, x):
            b, n, _ = x.shape
            qkv = self.to_qkv(self.norm(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            attn = (torch.matmul(q, k.transpose(-1, -2)) * self.scale).softmax(dim=-1)
            return self.to_out((attn @ v).transpose(1, 2).flatten(2))

    class ViT(nn.Module):
        def __init__(self, dim=12, p=4):
            super().__init__()
            self.p = p
            self.to_patch = nn.Sequential(nn.LayerNorm(3 * p * p), nn.Linear(3 * p * p, dim), nn.LayerNorm(dim))
            self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
            self.pos_embedding = nn.Parameter(torch.randn(1, 5, dim))
            self.layers = nn.ModuleList([])
            for _ in range(2):
                ff = nn.Sequential(
                    nn.LayerNorm(dim), nn.Linear(dim, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, dim)
                )
                self.layers.append(nn.ModuleList([Attention(dim, 3, 4), ff]))
            self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 4)

        def forward(self, img):
            b, c, h, w = img.shape
            x = img.view(b, c, h // self.p, self.p, w // self.p, self.p).permute(0, 2, 4, 3, 5, 1)
            x = self.to_patch(x.reshape(b, -1, self.p * self.p * c))
            x = torch.cat((self.cls_token.repeat(b, 1, 1), x), dim=1) + self.pos_embedding
            for attn, ff in self.layers:
                x = attn(x) + x
                x = ff(x) + x
            return self.head(self.norm(x)[:, 0])

    return ViT(), torch.randn(2, 3, 8, 8)


def mlp_mixer():
    class MlpBlock(nn.Module):
        def __init__(self, dim, hidden):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

        def forward(self, x):
            return self.fc2(F.gelu(self.fc1(x)))

    class MixerBlock(nn.Module):
        def __init__(self, tokens, dim):
            super().__init__()
            self.norm1, self.mlp_tokens = nn.LayerNorm(dim), MlpBlock(tokens, 6)
            self.norm2, self.mlp_channels = nn.LayerNorm(dim), MlpBlock(dim, 10)

        def forward(self, x):
            y = self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
            x = x + y
            return x + self.mlp_channels(self.norm2(x))

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, 4)
            self.blocks = nn.Sequential(MixerBlock(4, 8), MixerBlock(4, 8))
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.stem(x).flatten(2).transpose(1, 2)
            return self.head(self.norm(self.blocks(x)).mean(1))

    return Mixer(), torch.randn(2, 3, 8, 8)


def set_transformer():
    """Inducing points are parameters that attend and are attended to; heads are cut by split and joined by cat."""

    class MAB(nn.Module):
        def __init__(self, dim_q, dim_k, dim_v, num_heads):
            super().__init__()
            self.dim_v, self.num_heads = dim_v, num_heads
            self.fc_q, self.fc_k, self.fc_v = nn.Linear(dim_q, dim_v), nn.Linear(dim_k, dim_v), nn.Linear(dim_k, dim_v)
            self.ln0, self.fc_o = nn.LayerNorm(dim_v), nn.Linear(dim_v, dim_v)

        def forward(self, Q, K):
            Q = self.fc_q(Q)
            K, V = self.fc_k(K), self.fc_v(K)
            dim_split = self.dim_v // self.num_heads
            Q_, K_, V_ = (torch.cat(x.split(dim_split, 2), 0) for x in (Q, K, V))
            A = torch.softmax(Q_.bmm(K_.transpose(1, 2)) / math.sqrt(self.dim_v), 2)
            out = torch.cat((Q_ + A.bmm(V_)).split(Q.size(0), 0), 2)
            out = self.ln0(out)
            return out + F.relu(self.fc_o(out))

    class SetTransformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.I = nn.Parameter(torch.randn(1, 3, 8))
            self.mab0, self.mab1 = MAB(8, 2, 8, 2), MAB(2, 8, 8, 2)
            self.S = nn.Parameter(torch.randn(1, 1, 8))
            self.pma, self.dec = MAB(8, 8, 8, 2), nn.Linear(8, 3)

        def forward(self, X):
            H = self.mab0(self.I.repeat(X.size(0), 1, 1), X)
            X = self.mab1(X, H)
            return self.dec(self.pma(self.S.repeat(X.size(0), 1, 1), X)).squeeze()

    return SetTransformer(), torch.randn(2, 5, 2)


def perceiver():
    class PerceiverBlock(nn.Module):
        def __init__(self, d, d_in):
            super().__init__()
            self.to_q, self.to_kv, self.to_out = nn.Linear(d, 6), nn.Linear(d_in, 12), nn.Linear(6, d)
            self.ff = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 14), nn.GLU(), nn.Linear(7, d))

        def forward(self, x, context):
            q, (k, v) = self.to_q(x), self.to_kv(context).chunk(2, dim=-1)
            sim = torch.einsum("bid,bjd->bij", q, k) * 6**-0.5
            x = x + self.to_out(torch.einsum("bij,bjd->bid", sim.softmax(-1), v))
            return x + self.ff(x)

    class Perceiver(nn.Module):
        def __init__(self):
            super().__init__()
            self.latents = nn.Parameter(torch.randn(4, 8))
            self.cross, self.process = PerceiverBlock(8, 3), PerceiverBlock(8, 8)
            self.to_logits = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 2))

        def forward(self, data):
            x = self.latents.unsqueeze(0).expand(data.shape[0], -1, -1)
            x = self.cross(x, data)
            for _ in range(2):  # weights are shared
                x = self.process(x, x)
            return self.to_logits(x.mean(dim=1))

    return Perceiver(), torch.randn(2, 6, 3)


def einsum_attention():
    """Weights with an axis for heads, as JAX people write them, and a checkpoint around each layer."""

    class Layer(nn.Module):
        def __init__(self, d=6, h=2, k=4):
            super().__init__()
            self.w_q, self.w_k, self.w_v = (nn.Parameter(torch.randn(h, d, k) * 0.3) for _ in range(3))
            self.w_o = nn.Parameter(torch.randn(h, k, d) * 0.3)
            self.w_up, self.w_down = nn.Parameter(torch.randn(d, 9) * 0.3), nn.Parameter(torch.randn(9, d) * 0.3)

        def forward(self, x):
            q, k, v = (torch.einsum("btd,hdk->bhtk", x, w) for w in (self.w_q, self.w_k, self.w_v))
            a = torch.softmax(torch.einsum("bhik,bhjk->bhij", q, k) / 2, -1)
            x = x + torch.einsum("bhij,bhjk,hkd->bid", a, v, self.w_o)
            return x + torch.relu(x @ self.w_up) @ self.w_down

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.w_in, self.layers = nn.Parameter(torch.randn(3, 6)), nn.ModuleList([Layer(), Layer()])
            self.w_out = nn.Parameter(torch.randn(6, 2))

        def forward(self, x):
            x = torch.einsum("...i,ij->...j", x, self.w_in)
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=False)
            return x.mean(-2) @ self.w_out

    return Stack(), torch.randn(2, 4, 3)


def swin_window():
    """Window attention with a shift by roll, a table of relative positions, patch merging."""

    class WindowAttention(nn.Module):
        def __init__(self, dim, ws, heads):
            super().__init__()
            self.dim, self.ws, self.num_heads = dim, ws, heads
            self.table = nn.Parameter(torch.randn((2 * ws - 1) ** 2, heads) * 0.1)
            coords = torch.stack(torch.meshgrid(torch.arange(ws), torch.arange(ws), indexing="ij")).flatten(1)
            relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0) + ws - 1
            self.register_buffer("index", relative[..., 0] * (2 * ws - 1) + relative[..., 1])
            self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

        def forward(self, x):
            B_, N, C = x.shape
            qkv = self.qkv(x).reshape(B_, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
            attn = q @ k.transpose(-2, -1)
            bias = self.table[self.index.view(-1)].view(N, N, -1).permute(2, 0, 1).contiguous()
            attn = torch.softmax(attn + bias.unsqueeze(0), dim=-1)
            return self.proj((attn @ v).transpose(1, 2).reshape(B_, N, C))

    class Swin(nn.Module):
        def __init__(self, dim=8, ws=2):
            super().__init__()
            self.embed, self.norm, self.attn = nn.Conv2d(3, dim, 2, 2), nn.LayerNorm(dim), WindowAttention(dim, ws, 2)
            self.reduction, self.merge_norm = nn.Linear(4 * dim, 2 * dim, bias=False), nn.LayerNorm(4 * dim)
            self.head, self.ws = nn.Linear(2 * dim, 3), ws

        def forward(self, x):
            x = self.embed(x).permute(0, 2, 3, 1)
            B, H, W, C = x.shape
            s = torch.roll(self.norm(x), shifts=(-1, -1), dims=(1, 2))
            s = s.view(B, H // self.ws, self.ws, W // self.ws, self.ws, C).permute(0, 1, 3, 2, 4, 5)
            s = self.attn(s.contiguous().view(-1, self.ws * self.ws, C))
            s = s.view(B, H // self.ws, W // self.ws, self.ws, self.ws, -1).permute(0, 1, 3, 2, 4, 5)
            x = x + torch.roll(s.contiguous().view(B, H, W, -1), shifts=(1, 1), dims=(1, 2))
            x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
            return self.head(self.reduction(self.merge_norm(x)).mean((1, 2)))

    return Swin(), torch.randn(2, 3, 8, 8)


def lora():
    class LoRALinear(nn.Module):
        def __init__(self, base, r=3, alpha=6):
            super().__init__()
            self.base, self.scaling = base, alpha / r
            for p in base.parameters():
                p.requires_grad = False
            self.lora_A = nn.Parameter(torch.randn(r, base.in_features) * 0.1)
            self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))

        def forward(self, x):
            return self.base(x) + (x @ self.lora_A.T @ self.lora_B.T) * self.scaling

    net = nn.Sequential(LoRALinear(nn.Linear(4, 8)), nn.GELU(), LoRALinear(nn.Linear(8, 6)), nn.GELU(), nn.Linear(6, 2))
    return net, torch.randn(3, 4)


def mixture_of_experts():
    class MoE(nn.Module):
        def __init__(self, d=6, n=3, hidden=5):
            super().__init__()
            self.gate = nn.Linear(d, n)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, d)) for _ in range(n)
            )

        def forward(self, x):
            weights = F.softmax(self.gate(x), dim=-1)
            outputs = torch.stack([expert(x) for expert in self.experts], dim=2)
            return (outputs * weights.unsqueeze(1)).sum(-1)

    return nn.Sequential(nn.Linear(4, 6), MoE(), nn.LayerNorm(6), nn.Linear(6, 2)), torch.randn(7, 4)


def mixture_of_experts_top_k():
    @dataclass
    class Output:
        logits: torch.Tensor
        router_logits: torch.Tensor

    class SparseMoE(nn.Module):
        def __init__(self, d=6, n=4, k=2):
            super().__init__()
            self.k, self.n = k, n
            self.embed, self.router = nn.Linear(3, d), nn.Linear(d, n, bias=False)
            self.w1, self.w2 = nn.Parameter(torch.randn(n, d, 8) * 0.3), nn.Parameter(torch.randn(n, 8, d) * 0.3)
            self.head = nn.Linear(d, 2)

        def forward(self, x):
            x = self.embed(x)
            logits = self.router(x)
            weights, chosen = torch.topk(logits.softmax(-1), self.k, dim=-1)
            weights = weights / weights.sum(-1, keepdim=True)
            out = torch.zeros_like(x)
            for e in range(self.n):
                token, slot = torch.where(chosen == e)
                if token.numel():
                    h = F.silu(x[token] @ self.w1[e]) @ self.w2[e]
                    out.index_add_(0, token, h * weights[token, slot, None])
            return Output(self.head(x + out), logits)

    return SparseMoE(), torch.randn(12, 3)
