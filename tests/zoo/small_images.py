"""Small networks for images: classifiers, residual, grouped, gated and concatenated."""

import torch
import torch.nn.functional as F
from torch import nn


def lenet():
    class LeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 5)
            self.conv2 = nn.Conv2d(6, 8, 5)
            self.fc1 = nn.Linear(8 * 4 * 4, 20)
            self.fc2 = nn.Linear(20, 12)
            self.fc3 = nn.Linear(12, 10)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = x.view(-1, self.num_flat_features(x))
            x = F.relu(self.fc1(x))
            x = F.relu(self.fc2(x))
            return self.fc3(x)

        def num_flat_features(self, x):
            n = 1
            for s in x.size()[1:]:
                n *= s
            return n

    return LeNet(), torch.randn(2, 1, 28, 28)


def resnet_cifar():
    """He's residual network with shortcuts of option A: a stride and a padding of channels."""

    class Shortcut(nn.Module):
        def __init__(self, pad):
            super().__init__()
            self.pad = pad

        def forward(self, x):
            return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad), "constant", 0)

    class BasicBlock(nn.Module):
        def __init__(self, n_in, planes, stride=1):
            super().__init__()
            self.conv1 = nn.Conv2d(n_in, planes, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.shortcut = nn.Sequential() if stride == 1 else Shortcut((planes - n_in) // 2)

        def forward(self, x):
            out = F.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += self.shortcut(x)
            return F.relu(out)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(4)
            self.layer1 = BasicBlock(4, 4)
            self.layer2 = BasicBlock(4, 8, 2)
            self.linear = nn.Linear(8, 5)

        def forward(self, x):
            out = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
            out = F.avg_pool2d(out, out.size()[3])
            return self.linear(out.view(out.size(0), -1))

    return ResNet(), torch.randn(2, 3, 8, 8)


def se_resnet():
    class SELayer(nn.Module):
        def __init__(self, channel, reduction=2):
            super().__init__()
            self.avg_pool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Sequential(
                nn.Linear(channel, channel // reduction, bias=False), nn.ReLU(inplace=True),
                nn.Linear(channel // reduction, channel, bias=False), nn.Sigmoid(),
            )  # fmt: skip

        def forward(self, x):
            b, c, _, _ = x.size()
            y = self.avg_pool(x).view(b, c)
            y = self.fc(y).view(b, c, 1, 1)
            return x * y.expand_as(x)

    class Block(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
            self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
            self.se = SELayer(c)

        def forward(self, x):
            return F.relu(x + self.se(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))))

    net = nn.Sequential(nn.Conv2d(3, 8, 3), Block(8), Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(8, 4))
    return net, torch.randn(2, 3, 9, 9)


def densenet():
    class DenseLayer(nn.Module):
        def __init__(self, n_in, growth, bn_size=2):
            super().__init__()
            self.norm1, self.conv1 = nn.BatchNorm2d(n_in), nn.Conv2d(n_in, bn_size * growth, 1, bias=False)
            self.norm2, self.conv2 = nn.BatchNorm2d(bn_size * growth), nn.Conv2d(bn_size * growth, growth, 3, padding=1)

        def forward(self, features):
            x = torch.cat(features, 1)
            return self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))

    class DenseNet(nn.Module):
        def __init__(self, growth=4, n_layers=3):
            super().__init__()
            self.stem = nn.Conv2d(3, 2 * growth, 3, padding=1)
            self.layers = nn.ModuleList(DenseLayer((2 + i) * growth, growth) for i in range(n_layers))
            self.transition = nn.Conv2d((2 + n_layers) * growth, 6, 1)
            self.classifier = nn.Linear(6, 3)

        def forward(self, x):
            features = [self.stem(x)]
            for layer in self.layers:
                features.append(layer(features))
            out = F.avg_pool2d(self.transition(torch.cat(features, 1)), 2)
            return self.classifier(F.adaptive_avg_pool2d(out, (1, 1)).flatten(1))

    return DenseNet(), torch.randn(2, 3, 8, 8)


def inception():
    class Inception(nn.Module):
        def __init__(self, n_in):
            super().__init__()
            self.branch1x1 = nn.Conv2d(n_in, 4, 1)
            self.branch5x5_1, self.branch5x5_2 = nn.Conv2d(n_in, 3, 1), nn.Conv2d(3, 6, 5, padding=2)
            self.branch3x3dbl_1 = nn.Conv2d(n_in, 4, 1)
            self.branch3x3dbl_2a = nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
            self.branch3x3dbl_2b = nn.Conv2d(4, 4, (3, 1), padding=(1, 0))
            self.branch_pool = nn.Conv2d(n_in, 2, 1)

        def forward(self, x):
            dbl = self.branch3x3dbl_1(x)
            outputs = [
                self.branch1x1(x),
                self.branch5x5_2(F.relu(self.branch5x5_1(x))),
                torch.cat([self.branch3x3dbl_2a(dbl), self.branch3x3dbl_2b(dbl)], 1),
                self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)),
            ]
            return F.relu(torch.cat(outputs, 1))

    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), Inception(6), Inception(20), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(20, 4)
    )
    return net, torch.randn(2, 3, 10, 10)


def mobile_inverted_bottleneck():
    """EfficientNet's MBConv: expansion, depthwise convolution, squeeze and excitation, projection, drop path."""

    class MBConv(nn.Module):
        def __init__(self, c, expand=2):
            super().__init__()
            e = c * expand
            self.expand = nn.Sequential(nn.Conv2d(c, e, 1, bias=False), nn.BatchNorm2d(e), nn.SiLU(inplace=True))
            self.depthwise = nn.Sequential(nn.Conv2d(e, e, 3, 1, 1, groups=e, bias=False), nn.BatchNorm2d(e), nn.SiLU())
            self.se_reduce, self.se_expand = nn.Conv2d(e, 2, 1), nn.Conv2d(2, e, 1)
            self.project = nn.Sequential(nn.Conv2d(e, c, 1, bias=False), nn.BatchNorm2d(c))

        def drop_path(self, x, p=0.2):
            if not self.training:
                return x
            keep = torch.rand((x.shape[0], 1, 1, 1), device=x.device) + (1 - p)
            return x.div(1 - p) * keep.floor()

        def forward(self, inputs):
            x = self.depthwise(self.expand(inputs))
            s = F.adaptive_avg_pool2d(x, 1)
            s = self.se_expand(F.silu(self.se_reduce(s)))
            x = torch.sigmoid(s) * x
            return self.drop_path(self.project(x)) + inputs

    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2),
        MBConv(6),
        MBConv(6),
        nn.Flatten(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    return net, torch.randn(2, 3, 9, 9)


def depthwise_separable():
    def conv_dw(n_in, n_out, stride):
        return nn.Sequential(
            nn.Conv2d(n_in, n_in, 3, stride, 1, groups=n_in, bias=False), nn.BatchNorm2d(n_in), nn.ReLU6(inplace=True),
            nn.Conv2d(n_in, n_out, 1, 1, 0, bias=False), nn.BatchNorm2d(n_out), nn.ReLU6(inplace=True),
        )  # fmt: skip

    class MobileNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), conv_dw(4, 8, 1), conv_dw(8, 12, 2), nn.AvgPool2d(4))
            self.fc = nn.Linear(12, 5)

        def forward(self, x):
            return self.fc(self.model(x).view(-1, 12))

    return MobileNet(), torch.randn(2, 3, 16, 16)


def resnext():
    class Bottleneck(nn.Module):
        def __init__(self, c, width, cardinality):
            super().__init__()
            self.conv_reduce = nn.Conv2d(c, width, 1, bias=False)
            self.conv_conv = nn.Conv2d(width, width, 3, padding=1, groups=cardinality, bias=False)
            self.bn = nn.BatchNorm2d(width)
            self.conv_expand = nn.Conv2d(width, c, 1, bias=False)

        def forward(self, x):
            bottleneck = F.relu(self.conv_reduce(x), inplace=True)
            bottleneck = F.relu(self.bn(self.conv_conv(bottleneck)), inplace=True)
            return F.relu(x + self.conv_expand(bottleneck), inplace=True)

    class CifarResNeXt(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, 1, 1)
            self.stage = nn.Sequential()
            for i in range(2):
                self.stage.add_module(f"bottleneck_{i}", Bottleneck(8, 12, 3))
            self.classifier = nn.Linear(8, 4)

        def forward(self, x):
            return self.classifier(self.stage(self.stem(x)).mean((-2, -1)))

    return CifarResNeXt(), torch.randn(2, 3, 8, 8)


def shufflenet():
    """Half of the channels goes through a branch, and both halves are shuffled by hand."""

    class Unit(nn.Module):
        def __init__(self, c):
            super().__init__()
            h = c // 2
            self.branch = nn.Sequential(
                nn.Conv2d(h, h, 1), nn.ReLU(), nn.Conv2d(h, h, 3, padding=1, groups=h), nn.Conv2d(h, h, 1), nn.ReLU()
            )

        def forward(self, x):
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch(x2)), dim=1)
            b, c, h, w = out.shape
            return out.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)

    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), Unit(8), Unit(8), nn.Conv2d(8, 10, 1), nn.ReLU())
    net.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(10, 4))
    return net, torch.randn(2, 3, 11, 11)


def yolo_c2f():
    class Conv(nn.Module):
        def __init__(self, c1, c2, k=1):
            super().__init__()
            self.conv = nn.Conv2d(c1, c2, k, 1, k // 2, bias=False)
            self.bn = nn.BatchNorm2d(c2)
            self.act = nn.SiLU()

        def forward(self, x):
            return self.act(self.bn(self.conv(x)))

    class Bottleneck(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.cv1, self.cv2 = Conv(c, c, 3), Conv(c, c, 3)

        def forward(self, x):
            return x + self.cv2(self.cv1(x))

    class C2f(nn.Module):
        def __init__(self, c1, c2, n=2):
            super().__init__()
            self.c = c2 // 2
            self.cv1, self.cv2 = Conv(c1, 2 * self.c), Conv((2 + n) * self.c, c2)
            self.m = nn.ModuleList(Bottleneck(self.c) for _ in range(n))

        def forward(self, x):
            y = list(self.cv1(x).chunk(2, 1))
            y.extend(m(y[-1]) for m in self.m)
            return self.cv2(torch.cat(y, 1))

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.c2f = Conv(3, 6, 3), C2f(6, 8)
            self.box, self.cls = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

        def forward(self, x):
            x = self.c2f(F.max_pool2d(self.stem(x), 2))
            return {"boxes": self.box(x).flatten(2).permute(0, 2, 1), "scores": self.cls(x).sigmoid()}

    return Detector(), torch.randn(1, 3, 8, 8)


def convnext():
    class LayerNorm2d(nn.Module):
        def __init__(self, c, eps=1e-6):
            super().__init__()
            self.weight, self.bias, self.eps = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c)), eps

        def forward(self, x):
            u = x.mean(1, keepdim=True)
            s = (x - u).pow(2).mean(1, keepdim=True)
            x = (x - u) / torch.sqrt(s + self.eps)
            return self.weight[:, None, None] * x + self.bias[:, None, None]

    class Block(nn.Module):
        def __init__(self, dim, layer_scale_init_value=1e-6):
            super().__init__()
            self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
            self.norm = nn.LayerNorm(dim, eps=1e-6)
            self.pwconv1 = nn.Linear(dim, 4 * dim)
            self.act = nn.GELU()
            self.pwconv2 = nn.Linear(4 * dim, dim)
            self.gamma = nn.Parameter(layer_scale_init_value * torch.ones(dim))

        def forward(self, x):
            input = x
            x = self.dwconv(x).permute(0, 2, 3, 1)
            x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
            return input + (self.gamma * x).permute(0, 3, 1, 2)

    class ConvNeXt(nn.Module):
        def __init__(self, dims=(6, 8)):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), LayerNorm2d(dims[0]))
            self.stage1 = Block(dims[0])
            self.down = nn.Sequential(LayerNorm2d(dims[0]), nn.Conv2d(dims[0], dims[1], 2, stride=2))
            self.stage2 = Block(dims[1])
            self.norm = nn.LayerNorm(dims[-1])
            self.head = nn.Linear(dims[-1], 3)

        def forward(self, x):
            x = self.stage2(self.down(self.stage1(self.stem(x))))
            return self.head(self.norm(x.mean([-2, -1])))

    return ConvNeXt(), torch.randn(1, 3, 16, 16)


def capsules():
    """Primary capsules are squashed over their dimension and routed to classes by agreement."""

    def squash(s, dim=-1):
        norm2 = (s * s).sum(dim, keepdim=True)
        return norm2 / (1 + norm2) * s / (norm2.sqrt() + 1e-8)

    class CapsNet(nn.Module):
        def __init__(self, n_caps=4, d=4, n_classes=3):
            super().__init__()
            self.n_caps, self.d, self.n_classes = n_caps, d, n_classes
            self.conv = nn.Conv2d(1, 6, 3)
            self.primary = nn.Conv2d(6, n_caps * d, 3, stride=2)
            self.W = nn.Parameter(0.1 * torch.randn(n_classes, n_caps * 4, 5, d))
            self.decoder = nn.Sequential(nn.Linear(5 * n_classes, 8), nn.ReLU(), nn.Linear(8, 2))

        def forward(self, x):
            u = self.primary(F.relu(self.conv(x)))
            u = u.view(x.size(0), self.n_caps, self.d, -1).permute(0, 1, 3, 2).reshape(x.size(0), -1, self.d)
            u_hat = torch.einsum("ciod,bid->bcio", self.W, squash(u))
            logits = torch.zeros(u_hat.shape[:3], device=x.device, dtype=x.dtype)
            for _ in range(2):
                v = squash((logits.softmax(1).unsqueeze(-1) * u_hat).sum(2))
                logits = logits + (u_hat * v.unsqueeze(2)).sum(-1)
            return self.decoder(v.flatten(1))

    return CapsNet(), torch.randn(2, 1, 7, 7)
