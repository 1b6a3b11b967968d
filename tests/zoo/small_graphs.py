"""Small networks for graphs, points and pairs: messages along edges, sets, two towers, factors of fields."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def gcn():
    """Kipf's graph convolution by hand: a bare parameter, and a product with the adjacency matrix."""

    class GraphConvolution(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.weight, self.bias = (
                nn.Parameter(torch.FloatTensor(n_in, n_out)),
                nn.Parameter(torch.FloatTensor(n_out)),
            )
            stdv = 1.0 / math.sqrt(n_out)
            self.weight.data.uniform_(-stdv, stdv)
            self.bias.data.uniform_(-stdv, stdv)

        def forward(self, input, adj):
            return torch.spmm(adj, torch.mm(input, self.weight)) + self.bias

    class GCN(nn.Module):
        def __init__(self):
            super().__init__()
            self.gc1, self.gc2, self.gc3 = GraphConvolution(4, 7), GraphConvolution(7, 6), GraphConvolution(6, 3)

        def forward(self, x, adj):
            x = F.relu(self.gc1(x, adj))
            x = F.dropout(F.relu(self.gc2(x, adj)), 0.5, training=self.training)
            return F.log_softmax(self.gc3(x, adj), dim=1)

    adj = torch.rand(6, 6).round() + torch.eye(6)
    return GCN(), (torch.randn(6, 4), adj / adj.sum(1, keepdim=True))


def gat():
    """Two heads with a parameter for the source and one for the target of each edge; masked softmax."""

    class GATLayer(nn.Module):
        def __init__(self, n_in, n_out, n_heads, concat):
            super().__init__()
            self.n_heads, self.n_out, self.concat = n_heads, n_out, concat
            self.linear_proj = nn.Linear(n_in, n_heads * n_out, bias=False)
            self.a_source = nn.Parameter(torch.randn(1, n_heads, n_out))
            self.a_target = nn.Parameter(torch.randn(1, n_heads, n_out))

        def forward(self, x, mask):
            h = self.linear_proj(x).view(-1, self.n_heads, self.n_out)
            source, target = (h * self.a_source).sum(-1, keepdim=True), (h * self.a_target).sum(-1, keepdim=True)
            e = F.leaky_relu(source.permute(1, 0, 2) + target.permute(1, 2, 0), 0.2)
            attention = torch.softmax(e + mask, dim=-1)
            out = torch.bmm(attention, h.transpose(0, 1)).permute(1, 0, 2)
            return out.reshape(-1, self.n_heads * self.n_out) if self.concat else out.mean(1)

    class GAT(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer1, self.layer2 = GATLayer(3, 4, 2, True), GATLayer(8, 5, 2, False)
            self.classify = nn.Linear(5, 2)

        def forward(self, x, mask):
            return self.classify(F.elu(self.layer2(F.elu(self.layer1(x, mask)), mask)))

    mask = torch.where(torch.rand(5, 5) + torch.eye(5) > 0.4, 0.0, -1e9)
    return GAT(), (torch.randn(5, 3), mask)


def message_passing():
    """Edges by index, messages by a network over concatenated ends, sums by index_add and scatter_add."""

    class MPNN(nn.Module):
        def __init__(self, n=5):
            super().__init__()
            self.encode, self.message = nn.Linear(3, n), nn.Sequential(nn.Linear(2 * n, 8), nn.SiLU(), nn.Linear(8, n))
            self.update, self.readout = nn.GRUCell(n, n), nn.Linear(n, 1)

        def forward(self, x, edge_index):
            source, target = edge_index
            h = torch.relu(self.encode(x))
            for _ in range(2):
                m = self.message(torch.cat([h[source], h[target]], dim=-1))
                total = torch.zeros_like(h).index_add_(0, target, m)
                count = torch.zeros(h.size(0), 1, dtype=h.dtype).scatter_add_(
                    0, target[:, None], torch.ones_like(m[:, :1])
                )
                h = self.update(total / count.clamp(min=1), h)
            return self.readout(h.sum(0))

    return MPNN(), (torch.randn(6, 3), torch.randint(6, (2, 11)))


def pointnet():
    class TNet(nn.Module):
        def __init__(self, k):
            super().__init__()
            self.k, self.conv1, self.conv2 = k, nn.Conv1d(k, 6, 1), nn.Conv1d(6, 8, 1)
            self.fc1, self.fc2, self.bn1 = nn.Linear(8, 6), nn.Linear(6, k * k), nn.BatchNorm1d(6)

        def forward(self, x):
            x = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            x = torch.max(x, 2, keepdim=True)[0].view(-1, 8)
            x = self.fc2(F.relu(self.fc1(x)))
            return (x + torch.eye(self.k, dtype=x.dtype).flatten().view(1, -1)).view(-1, self.k, self.k)

    class PointNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.stn, self.fstn = TNet(3), TNet(4)
            self.conv1, self.conv2, self.conv3 = nn.Conv1d(3, 4, 1), nn.Conv1d(4, 8, 1), nn.Conv1d(8, 10, 1)
            self.seg = nn.Conv1d(10 + 8, 7, 1)
            self.out = nn.Conv1d(7, 2, 1)

        def forward(self, x):
            n = x.size(2)
            x = torch.bmm(x.transpose(2, 1), self.stn(x)).transpose(2, 1)
            x = F.relu(self.conv1(x))
            x = torch.bmm(x.transpose(2, 1), self.fstn(x)).transpose(2, 1)
            local = F.relu(self.conv2(x))
            pooled = torch.max(self.conv3(local), 2, keepdim=True)[0].view(-1, 10)
            x = torch.cat([pooled.view(-1, 10, 1).repeat(1, 1, n), local], 1)
            return F.log_softmax(self.out(F.relu(self.seg(x))).transpose(2, 1), dim=-1)

    return PointNet(), torch.randn(2, 3, 7)


def deep_sets():
    phi = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 6))
    rho = nn.Sequential(nn.Linear(12, 7), nn.ELU(), nn.Linear(7, 1))

    class DeepSets(nn.Module):
        def __init__(self):
            super().__init__()
            self.phi, self.rho = phi, rho

        def forward(self, x):
            h = self.phi(x)
            return self.rho(torch.cat([h.sum(1), h.amax(1)], -1)).squeeze(-1)

    return DeepSets(), torch.randn(3, 5, 3)


def siamese():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.cnn = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Dropout2d(0.2), nn.MaxPool2d(2)
            )
            self.fc = nn.Sequential(nn.Linear(4 * 3 * 3, 8), nn.ReLU(inplace=True), nn.Linear(8, 5))
            self.out = nn.Linear(5, 1)

        def forward_once(self, x):
            output = self.cnn(x)
            return self.fc(output.view(output.size()[0], -1))

        def forward(self, input1, input2):
            return self.out(torch.abs(self.forward_once(input1) - self.forward_once(input2)))

    return Siamese(), (torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8))


def contrastive():
    """CLIP's two towers: features are normalised to length 1 and multiplied with each other."""

    class TwoTowers(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.text = nn.Linear(6, 8), nn.Embedding(10, 8)
            self.image_projection = nn.Parameter(torch.randn(8, 5) * 0.4)
            self.text_projection = nn.Linear(8, 5, bias=False)
            self.logit_scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, pixels, ids):
            i = F.relu(self.image(pixels)) @ self.image_projection
            t = self.text_projection(self.text(ids).mean(1))
            i = i / i.norm(dim=-1, keepdim=True)
            t = F.normalize(t, dim=-1)
            logits = self.logit_scale.exp() * i @ t.t()
            return logits, logits.T

    return TwoTowers(), {"pixels": torch.randn(3, 6), "ids": torch.randint(10, (3, 4))}


def recommender():
    """Factorisation machine with a deep part: embeddings of fields, their products, a sum over fields."""

    class DeepFM(nn.Module):
        def __init__(self, fields=(5, 7, 4), d=4):
            super().__init__()
            self.register_buffer("offsets", torch.tensor([0, 5, 12]))
            self.fc, self.embedding = nn.Embedding(sum(fields), 1), nn.Embedding(sum(fields), d)
            self.embed_dim = len(fields) * d
            self.mlp = nn.Sequential(
                nn.Linear(self.embed_dim, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1)
            )

        def forward(self, x):
            x = x + self.offsets
            e = self.embedding(x)
            square_of_sum, sum_of_square = e.sum(dim=1) ** 2, (e**2).sum(dim=1)
            fm = 0.5 * (square_of_sum - sum_of_square).sum(1, keepdim=True)
            out = self.fc(x).sum(dim=1) + fm + self.mlp(e.view(-1, self.embed_dim))
            return torch.sigmoid(out.squeeze(1))

    return DeepFM(), torch.stack([torch.randint(n, (4,)) for n in (5, 7, 4)], 1)


def graph_transformer_edges():
    """Messages with einsum over an edge tensor, and a masked mean."""

    class EdgeNet(nn.Module):
        def __init__(self, d=6):
            super().__init__()
            self.node, self.edge = nn.Linear(3, d), nn.Linear(2, d)
            self.theta, self.phi, self.out = nn.Linear(d, d), nn.Linear(d, d, bias=False), nn.Linear(d, 2)

        def forward(self, x, e, mask):
            h, w = self.node(x), torch.sigmoid(self.edge(e))
            m = torch.einsum("bijc,bjc->bic", w * mask[..., None], self.phi(h))
            h = F.relu(self.theta(h) + m / mask.sum(-1, keepdim=True))
            return self.out(h.masked_fill(mask.sum(-1, keepdim=True) == 0, 0.0).mean(dim=1))

    mask = (torch.rand(2, 4, 4) > 0.4).float()
    mask[:, range(4), range(4)] = 1
    return EdgeNet(), (torch.randn(2, 4, 3), torch.randn(2, 4, 4, 2), mask)
