"""Small networks that make images: autoencoders, U-Nets, generators and their discriminators, diffusion."""

import torch
import torch.nn.functional as F
from torch import nn


def autoencoder():
    class AE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Linear(64, 24), nn.ReLU(True), nn.Linear(24, 12), nn.ReLU(True), nn.Linear(12, 3)
            )
            self.decoder = nn.Sequential(
                nn.Linear(3, 12), nn.ReLU(True), nn.Linear(12, 24), nn.ReLU(True), nn.Linear(24, 64), nn.Tanh()
            )

        def forward(self, x):
            return self.decoder(self.encoder(x))

    return AE(), torch.randn(4, 64)


def conv_autoencoder():
    class ConvAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.enc2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
            self.pool = nn.MaxPool2d(2, return_indices=True)
            self.unpool = nn.MaxUnpool2d(2)
            self.dec1 = nn.ConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=1)
            self.dec2 = nn.ConvTranspose2d(8, 3, 3, stride=2, padding=1, output_padding=1)

        def forward(self, x):
            h = F.relu(self.enc2(F.relu(self.enc1(x))))
            h, indices = self.pool(h)
            h = self.unpool(h, indices)
            return torch.sigmoid(self.dec2(F.relu(self.dec1(h))))

    return ConvAE(), torch.randn(2, 3, 16, 16)


def unet():
    class DoubleConv(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.double_conv = nn.Sequential(
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True),
                nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True),
            )  # fmt: skip

        def forward(self, x):
            return self.double_conv(x)

    class Up(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.up = nn.ConvTranspose2d(n_in, n_in // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(n_in, n_out)

        def forward(self, x1, x2):
            x1 = self.up(x1)
            dy, dx = x2.size()[2] - x1.size()[2], x2.size()[3] - x1.size()[3]
            x1 = F.pad(x1, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            return self.conv(torch.cat([x2, x1], dim=1))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.inc = DoubleConv(3, 6)
            self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(6, 12))
            self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(12, 24))
            self.up1 = Up(24, 12)
            self.up2 = Up(12, 6)
            self.outc = nn.Conv2d(6, 2, kernel_size=1)

        def forward(self, x):
            x1 = self.inc(x)
            x2 = self.down1(x1)
            x3 = self.down2(x2)
            return self.outc(self.up2(self.up1(x3, x2), x1))

    return UNet(), torch.randn(1, 3, 18, 18)


def dcgan_generator():
    nz, ngf, nc = 10, 4, 3
    net = nn.Sequential(
        nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0, bias=False), nn.BatchNorm2d(ngf * 4), nn.ReLU(True),
        nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf * 2), nn.ReLU(True),
        nn.ConvTranspose2d(ngf * 2, nc, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    return net, torch.randn(2, nz, 1, 1)


def dcgan_discriminator():
    class Discriminator(nn.Module):
        def __init__(self, ndf=6):
            super().__init__()
            self.main = nn.Sequential(
                nn.Conv2d(3, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(ndf, ndf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 2), nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(ndf * 2, 1, 4, 1, 0, bias=False), nn.Sigmoid(),
            )  # fmt: skip

        def forward(self, input):
            return self.main(input).view(-1, 1).squeeze(1)

    return Discriminator(), torch.randn(2, 3, 16, 16)


def conditional_gan_generator():
    """The class is embedded and concatenated with the noise; the image is a view of a Linear's output."""

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.label_emb = nn.Embedding(5, 5)

            def block(n_in, n_out, normalize=True):
                layers = [nn.Linear(n_in, n_out)]
                if normalize:
                    layers.append(nn.BatchNorm1d(n_out, 0.8))
                layers.append(nn.LeakyReLU(0.2, inplace=True))
                return layers

            self.model = nn.Sequential(*block(8 + 5, 12, normalize=False), *block(12, 16), nn.Linear(16, 64), nn.Tanh())

        def forward(self, noise, labels):
            gen_input = torch.cat((self.label_emb(labels), noise), -1)
            return self.model(gen_input).view(noise.size(0), 1, 8, 8)

    return Generator(), (torch.randn(3, 8), torch.randint(5, (3,)))


def vae():
    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(36, 16)
            self.fc21 = nn.Linear(16, 4)
            self.fc22 = nn.Linear(16, 4)
            self.fc3 = nn.Linear(4, 16)
            self.fc4 = nn.Linear(16, 36)

        def encode(self, x):
            h1 = F.relu(self.fc1(x))
            return self.fc21(h1), self.fc22(h1)

        def reparameterize(self, mu, logvar):
            if not self.training:
                return mu
            std = torch.exp(0.5 * logvar)
            return mu + torch.randn_like(std) * std

        def decode(self, z):
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

        def forward(self, x):
            mu, logvar = self.encode(x.view(-1, 36))
            z = self.reparameterize(mu, logvar)
            return self.decode(z), mu, logvar

    return VAE(), torch.rand(3, 1, 6, 6)


def super_resolution():
    class ESPCN(nn.Module):
        def __init__(self, upscale_factor=2):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 8, (5, 5), (1, 1), (2, 2))
            self.conv2 = nn.Conv2d(8, 8, (3, 3), (1, 1), (1, 1))
            self.conv3 = nn.Conv2d(8, 3 * upscale_factor**2, (3, 3), (1, 1), (1, 1))
            self.pixel_shuffle = nn.PixelShuffle(upscale_factor)
            self.last = nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, x):
            x = torch.tanh(self.conv1(x))
            x = torch.tanh(self.conv2(x))
            return self.last(self.pixel_shuffle(self.conv3(x))) + F.interpolate(x.mean(1, keepdim=True), scale_factor=2)

    return ESPCN(), torch.randn(2, 1, 8, 8)


def ddpm_unet():
    """GroupNorm, time embedding added, attention over pixels by 1×1 convolutions and einsum."""

    class ResBlock(nn.Module):
        def __init__(self, c_in, c_out, c_time):
            super().__init__()
            self.norm1, self.conv1 = nn.GroupNorm(2, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
            self.temb_proj = nn.Linear(c_time, c_out)
            self.norm2, self.conv2 = nn.GroupNorm(2, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

        def forward(self, x, temb):
            h = self.conv1(F.silu(self.norm1(x)))
            h = h + self.temb_proj(F.silu(temb))[:, :, None, None]
            return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))

    class Attention(nn.Module):
        def __init__(self, dim, heads=2, dim_head=4):
            super().__init__()
            self.scale, self.heads = dim_head**-0.5, heads
            self.to_qkv = nn.Conv2d(dim, heads * dim_head * 3, 1, bias=False)
            self.to_out = nn.Conv2d(heads * dim_head, dim, 1)

        def forward(self, x):
            b, c, h, w = x.shape
            q, k, v = (t.reshape(b, self.heads, -1, h * w) for t in self.to_qkv(x).chunk(3, dim=1))
            sim = torch.einsum("b h d i, b h d j -> b h i j", q * self.scale, k)
            out = torch.einsum("b h i j, b h d j -> b h i d", sim.softmax(dim=-1), v)
            return x + self.to_out(out.permute(0, 1, 3, 2).reshape(b, -1, h, w))

    class UNet(nn.Module):
        def __init__(self, ch=8):
            super().__init__()
            self.time_mlp = nn.Sequential(nn.Linear(ch, 2 * ch), nn.SiLU(), nn.Linear(2 * ch, 2 * ch))
            self.conv_in = nn.Conv2d(3, ch, 3, padding=1)
            self.down_block = ResBlock(ch, 2 * ch, 2 * ch)
            self.downsample = nn.Conv2d(2 * ch, 2 * ch, 3, stride=2, padding=1)
            self.mid = ResBlock(2 * ch, 2 * ch, 2 * ch)
            self.mid_attn = Attention(2 * ch)
            self.up_block = ResBlock(4 * ch, ch, 2 * ch)
            self.norm_out, self.conv_out = nn.GroupNorm(4, ch), nn.Conv2d(ch, 3, 3, padding=1)
            self.ch = ch

        def time(self, t):
            freq = torch.exp(-torch.arange(self.ch // 2, device=t.device) / 2.0)
            angle = t[:, None] * freq[None]
            return torch.cat([angle.sin(), angle.cos()], dim=1)

        def forward(self, x, t):
            temb = self.time_mlp(self.time(t))
            h1 = self.down_block(self.conv_in(x), temb)
            h = self.mid_attn(self.mid(self.downsample(h1), temb))
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = self.up_block(torch.cat([h, h1], dim=1), temb)
            return self.conv_out(F.silu(self.norm_out(h)))

    return UNet(), (torch.randn(1, 3, 6, 6), torch.rand(1))


def spectral_discriminator():
    from torch.nn.utils import spectral_norm as old_spectral_norm
    from torch.nn.utils.parametrizations import spectral_norm

    net = nn.Sequential(
        spectral_norm(nn.Conv2d(3, 6, 3, 2, 1)), nn.LeakyReLU(0.1), old_spectral_norm(nn.Conv2d(6, 8, 3, 2, 1)),
        nn.LeakyReLU(0.1), nn.Flatten(), spectral_norm(nn.Linear(32, 5)), nn.LeakyReLU(0.1), nn.Linear(5, 1),
    )  # fmt: skip
    return net, torch.randn(2, 3, 8, 8)


def instance_norm_style():
    """CycleGAN's generator: reflection padding, InstanceNorm with and without parameters, residual blocks."""

    class Residual(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.block = nn.Sequential(
                nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c), nn.ReLU(inplace=True),
                nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c),
            )  # fmt: skip

        def forward(self, x):
            return x + self.block(x)

    net = nn.Sequential(
        nn.ReflectionPad2d(3), nn.Conv2d(3, 6, 7), nn.InstanceNorm2d(6, affine=True), nn.ReLU(inplace=True),
            Residual(6),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), nn.InstanceNorm2d(4), nn.PReLU(4),
        nn.Conv2d(4, 3, 5, padding=2), nn.Tanh(),
    )  # fmt: skip
    return net, torch.randn(1, 3, 8, 8)
