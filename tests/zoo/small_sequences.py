"""Small networks for sequences: recurrent ones, convolutions over time, attention as it was before transformers."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def lstm_classifier():
    class Sentiment(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(20, 6, padding_idx=0)
            self.rnn = nn.LSTM(6, 7, num_layers=2, bidirectional=True, dropout=0.3, batch_first=True)
            self.fc = nn.Linear(14, 5)
            self.out = nn.Linear(5, 2)
            self.dropout = nn.Dropout(0.3)

        def forward(self, text):
            embedded = self.dropout(self.embedding(text))
            _, (hidden, _) = self.rnn(embedded)
            hidden = self.dropout(torch.cat((hidden[-2], hidden[-1]), dim=1))
            return self.out(F.relu(self.fc(hidden)))

    return Sentiment(), torch.randint(20, (3, 6))


def packed_lstm():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.word_embeddings = nn.Embedding(15, 5)
            self.lstm = nn.LSTM(5, 6, batch_first=True)
            self.hidden2tag = nn.Linear(6, 4)

        def forward(self, sentences, lengths):
            packed = pack_padded_sequence(self.word_embeddings(sentences), lengths, batch_first=True)
            out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            return F.log_softmax(self.hidden2tag(out), dim=-1)

    return Tagger(), (torch.randint(15, (3, 5)), torch.tensor([5, 4, 2]))


def bidirectional_gru():
    class GRUNet(nn.Module):
        def __init__(self, n_in=4, hidden=5):
            super().__init__()
            self.hidden = hidden
            self.gru = nn.GRU(n_in, hidden, 2, bidirectional=True)
            self.linear = nn.Linear(2 * hidden, 3)

        def forward(self, x):  # (T, B, n_in)
            h0 = torch.zeros(4, x.size(1), self.hidden, dtype=x.dtype, device=x.device)
            out, _ = self.gru(x, h0)
            return self.linear(out.mean(dim=0))

    return GRUNet(), torch.randn(6, 2, 4)


def char_rnn():
    """A cell unrolled by hand, and a decoder called at every step."""

    class CharRNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.cell, self.decoder = nn.Embedding(12, 5), nn.LSTMCell(5, 6), nn.Linear(6, 12)
            self.attn = nn.GRUCell(6, 4)
            self.extra = nn.Linear(4, 12)

        def forward(self, ids):
            h = c = torch.zeros(ids.size(0), 6, dtype=self.decoder.weight.dtype)
            g = h.new_zeros(ids.size(0), 4)
            outputs = []
            for t in range(ids.size(1)):
                h, c = self.cell(self.encoder(ids[:, t]), (h, c))
                g = self.attn(h, g)
                outputs.append(self.decoder(h) + self.extra(g))
            return torch.stack(outputs, 1)

    return CharRNN(), torch.randint(12, (2, 4))


def elman_by_hand():
    class RNN(nn.Module):
        def __init__(self, input_size, hidden_size, output_size):
            super().__init__()
            self.hidden_size = hidden_size
            self.i2h = nn.Linear(input_size + hidden_size, hidden_size)
            self.h2o = nn.Linear(hidden_size, output_size)

        def forward(self, line):
            hidden = torch.zeros(line.shape[1], self.hidden_size).to(line)
            for x in line:
                hidden = torch.tanh(self.i2h(torch.cat((x, hidden), 1)))
            return F.log_softmax(self.h2o(hidden), dim=1)

    return RNN(5, 6, 3), torch.randn(4, 2, 5)


def lstm_by_hand():
    class NaiveLSTM(nn.Module):
        def __init__(self, n_in, n):
            super().__init__()
            self.W, self.U = nn.Parameter(torch.randn(n_in, 4 * n) * 0.3), nn.Parameter(torch.randn(n, 4 * n) * 0.3)
            self.b, self.n = nn.Parameter(torch.zeros(4 * n)), n
            self.readout = nn.Linear(n, 2)

        def forward(self, x):
            h, c = (torch.zeros(x.size(0), self.n, dtype=x.dtype) for _ in range(2))
            for t in range(x.size(1)):
                gates = x[:, t] @ self.W + h @ self.U + self.b
                i, f = torch.sigmoid(gates[:, : self.n]), torch.sigmoid(gates[:, self.n : self.n * 2])
                g, o = torch.tanh(gates[:, self.n * 2 : self.n * 3]), torch.sigmoid(gates[:, self.n * 3 :])
                c = f * c + i * g
                h = o * torch.tanh(c)
            return self.readout(h)

    return NaiveLSTM(3, 5), torch.randn(2, 4, 3)


def seq2seq_attention():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.gru = nn.Embedding(14, 6), nn.GRU(6, 6, batch_first=True)

        def forward(self, x):
            return self.gru(self.embedding(x))

    class BahdanauAttention(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.Wa, self.Ua, self.Va = nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, 1)

        def forward(self, query, keys):
            scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys))).squeeze(2).unsqueeze(1)
            weights = F.softmax(scores, dim=-1)
            return torch.bmm(weights, keys), weights

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.attention = nn.Embedding(14, 6), BahdanauAttention(6)
            self.gru, self.out = nn.GRU(12, 6, batch_first=True), nn.Linear(6, 14)

        def forward(self, encoder_outputs, hidden, target):
            outputs = []
            for i in range(target.size(1)):
                query = hidden.permute(1, 0, 2)
                context, _ = self.attention(query, encoder_outputs)
                input_gru = torch.cat((self.embedding(target[:, i : i + 1]), context), dim=2)
                output, hidden = self.gru(input_gru, hidden)
                outputs.append(self.out(output))
            return F.log_softmax(torch.cat(outputs, dim=1), dim=-1)

    class Seq2Seq(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = Encoder(), Decoder()

        def forward(self, source, target):
            return self.decoder(*self.encoder(source), target)

    return Seq2Seq(), {"source": torch.randint(14, (2, 5)), "target": torch.randint(14, (2, 3))}


def wavenet():
    class ResidualBlock(nn.Module):
        def __init__(self, residual, skip, dilation):
            super().__init__()
            self.dilation = dilation
            self.conv_filter = nn.Conv1d(residual, residual, 2, dilation=dilation)
            self.conv_gate = nn.Conv1d(residual, residual, 2, dilation=dilation)
            self.conv_1x1, self.conv_skip = nn.Conv1d(residual, residual, 1), nn.Conv1d(residual, skip, 1)

        def forward(self, x):
            padded = F.pad(x, (self.dilation, 0))
            z = torch.tanh(self.conv_filter(padded)) * torch.sigmoid(self.conv_gate(padded))
            return x + self.conv_1x1(z), self.conv_skip(z)

    class WaveNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(16, 6)
            self.blocks = nn.ModuleList([ResidualBlock(6, 5, 2**i) for i in range(3)])
            self.end_1, self.end_2 = nn.Conv1d(5, 8, 1), nn.Conv1d(8, 16, 1)

        def forward(self, x):
            x = self.embed(x).transpose(1, 2)
            skips = 0
            for block in self.blocks:
                x, skip = block(x)
                skips = skips + skip
            return self.end_2(F.relu(self.end_1(F.relu(skips))))

    return WaveNet(), torch.randint(16, (2, 10))


def wavenet_packed_gates():
    """Filter and gate come from one convolution and are cut apart; residual and skip too. Weight norm of both kinds."""
    from torch.nn.utils import weight_norm as old_weight_norm
    from torch.nn.utils.parametrizations import weight_norm

    class WN(nn.Module):
        def __init__(self, n=6, layers=2):
            super().__init__()
            self.n_channels, self.n_layers = n, layers
            self.start, self.end = weight_norm(nn.Conv1d(3, n, 1)), nn.Conv1d(n, 4, 1)
            self.in_layers, self.res_skip = nn.ModuleList(), nn.ModuleList()
            for i in range(layers):
                self.in_layers.append(weight_norm(nn.Conv1d(n, 2 * n, 3, dilation=2**i, padding=2**i)))
                last = n if i == layers - 1 else 2 * n
                self.res_skip.append(old_weight_norm(nn.Conv1d(n, last, 1)))

        def forward(self, audio):
            audio = self.start(audio)
            output = torch.zeros_like(audio)
            for i in range(self.n_layers):
                a = self.in_layers[i](audio)
                acts = torch.tanh(a[:, : self.n_channels]) * torch.sigmoid(a[:, self.n_channels :])
                res_skip = self.res_skip[i](acts)
                if i < self.n_layers - 1:
                    audio = audio + res_skip[:, : self.n_channels, :]
                    output = output + res_skip[:, self.n_channels :, :]
                else:
                    output = output + res_skip
            return self.end(output)

    return WN(), torch.randn(2, 3, 8)


def tcn():
    class Chomp1d(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.chomp_size = size

        def forward(self, x):
            return x[:, :, : -self.chomp_size].contiguous()

    class TemporalBlock(nn.Module):
        def __init__(self, n_in, n_out, dilation):
            super().__init__()
            pad = 2 * dilation
            self.conv1 = nn.Conv1d(n_in, n_out, 3, padding=pad, dilation=dilation)
            self.conv2 = nn.Conv1d(n_out, n_out, 3, padding=pad, dilation=dilation)
            self.net = nn.Sequential(
                self.conv1, Chomp1d(pad), nn.ReLU(), nn.Dropout(0.2), self.conv2, Chomp1d(pad), nn.ReLU()
            )
            self.downsample = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else None

        def forward(self, x):
            res = x if self.downsample is None else self.downsample(x)
            return F.relu(self.net(x) + res)

    class TCN(nn.Module):
        def __init__(self):
            super().__init__()
            self.tcn = nn.Sequential(TemporalBlock(2, 5, 1), TemporalBlock(5, 5, 2), TemporalBlock(5, 7, 4))
            self.linear = nn.Linear(7, 3)

        def forward(self, x):
            return self.linear(self.tcn(x)[:, :, -1])

    return TCN(), torch.randn(2, 2, 9)


def crnn():
    class BidirectionalLSTM(nn.Module):
        def __init__(self, n_in, hidden, n_out):
            super().__init__()
            self.rnn, self.embedding = nn.LSTM(n_in, hidden, bidirectional=True), nn.Linear(hidden * 2, n_out)

        def forward(self, x):
            recurrent, _ = self.rnn(x)
            T, b, h = recurrent.size()
            return self.embedding(recurrent.view(T * b, h)).view(T, b, -1)

    class CRNN(nn.Module):
        def __init__(self):
            super().__init__()
            cnn = nn.Sequential()
            n_in = 1
            for i, n in enumerate((4, 6)):
                cnn.add_module(f"conv{i}", nn.Conv2d(n_in, n, 3, 1, 1))
                cnn.add_module(f"relu{i}", nn.ReLU(True))
                cnn.add_module(f"pooling{i}", nn.MaxPool2d((2, 1), (2, 1)))
                n_in = n
            self.cnn = cnn
            self.rnn = nn.Sequential(BidirectionalLSTM(6, 5, 5), BidirectionalLSTM(5, 5, 9))

        def forward(self, x):
            conv = F.adaptive_max_pool2d(self.cnn(x), (1, None))
            conv = conv.squeeze(2).permute(2, 0, 1)
            return self.rnn(conv)

    return CRNN(), torch.randn(2, 1, 8, 6)


def text_cnn():
    class TextCNN(nn.Module):
        def __init__(self, kernels=(2, 3, 4), n=5):
            super().__init__()
            self.embed = nn.Embedding(18, 6)
            self.convs = nn.ModuleList([nn.Conv2d(1, n, (k, 6)) for k in kernels])
            self.fc1 = nn.Linear(len(kernels) * n, 3)

        def forward(self, x):
            x = self.embed(x).unsqueeze(1)
            x = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
            x = [F.max_pool1d(i, i.size(2)).squeeze(2) for i in x]
            return self.fc1(torch.cat(x, 1))

    return TextCNN(), torch.randint(18, (2, 7))


def fasttext_bag():
    class TextClassification(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.EmbeddingBag(25, 6, mode="mean")
            self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, text, offsets):
            return self.out(torch.relu(self.fc(self.embedding(text, offsets))))

    return TextClassification(), (torch.randint(25, (9,)), torch.tensor([0, 4]))


def word2vec():
    class SkipGram(nn.Module):
        def __init__(self, n=20, d=6):
            super().__init__()
            self.u_embeddings, self.v_embeddings = nn.Embedding(n, d, sparse=False), nn.Embedding(n, d)

        def forward(self, pos_u, pos_v, neg_v):
            u, v = self.u_embeddings(pos_u), self.v_embeddings(pos_v)
            score = F.logsigmoid((u * v).sum(dim=1))
            neg = torch.bmm(self.v_embeddings(neg_v), u.unsqueeze(2)).squeeze()
            return score + F.logsigmoid(-neg).sum(dim=1)

    return SkipGram(), (torch.randint(20, (3,)), torch.randint(20, (3,)), torch.randint(20, (3, 4)))


def selective_state_space():
    """Mamba's block by hand: causal depthwise convolution, an input-dependent scan, a gate."""

    class MambaBlock(nn.Module):
        def __init__(self, d=4, e=6, n=3, r=2):
            super().__init__()
            self.in_proj = nn.Linear(d, 2 * e, bias=False)
            self.conv1d = nn.Conv1d(e, e, 3, groups=e, padding=2)
            self.x_proj, self.dt_proj = nn.Linear(e, r + 2 * n, bias=False), nn.Linear(r, e)
            self.A_log = nn.Parameter(torch.log(torch.arange(1, n + 1).float()).repeat(e, 1))
            self.D = nn.Parameter(torch.ones(e))
            self.out_proj = nn.Linear(e, d, bias=False)
            self.r, self.n = r, n

        def forward(self, x):
            x, res = self.in_proj(x).chunk(2, dim=-1)
            x = F.silu(self.conv1d(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
            delta, B, C = self.x_proj(x).split([self.r, self.n, self.n], dim=-1)
            delta = F.softplus(self.dt_proj(delta))
            dA = torch.exp(torch.einsum("bld,dn->bldn", delta, -torch.exp(self.A_log)))
            dBx = torch.einsum("bld,bln,bld->bldn", delta, B, x)
            h, ys = torch.zeros_like(dA[:, 0]), []
            for t in range(x.shape[1]):
                h = dA[:, t] * h + dBx[:, t]
                ys.append(torch.einsum("bdn,bn->bd", h, C[:, t]))
            y = torch.stack(ys, dim=1) + x * self.D
            return self.out_proj(y * F.silu(res))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.block, self.head = nn.Embedding(11, 4), MambaBlock(), nn.Linear(4, 11, bias=False)

        def forward(self, ids):
            x = self.embed(ids)
            return self.head(x + self.block(x))

    return Model(), torch.randint(11, (2, 5))
