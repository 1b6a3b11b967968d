"""Small configurations of torchvision's networks: functions of `torchvision.models`, and the shape of the input."""

from functools import partial

from torch import nn


def _resnet(block, models, layers=(1, 1, 1, 1), **options):
    return _shortened(models.resnet.ResNet(getattr(models.resnet, block), list(layers), num_classes=5, **options))


def _shortened(net):
    """A residual network without its last two stages, which are wide."""
    last = [module for module in net.layer2.modules() if hasattr(module, "num_features")]
    net.layer3, net.layer4, net.fc = nn.Identity(), nn.Identity(), nn.Linear(last[-1].num_features, 5)
    return net


def _densenet(models):
    return models.densenet.DenseNet(4, (2, 2), 8, bn_size=2, num_classes=5)


def _squeezenet(models):
    return models.squeezenet.SqueezeNet("1_1", num_classes=5)


def _mobilenet_v2(models):
    setting = [[1, 8, 1, 1], [3, 8, 2, 2], [3, 16, 1, 2]]
    return models.mobilenetv2.MobileNetV2(5, 0.5, setting)


def _mobilenet_v3(models):
    config = partial(models.mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1)
    blocks = [
        config(8, 3, 16, 8, True, "RE", 2),
        config(8, 5, 24, 16, False, "HS", 1),
        config(16, 5, 24, 16, True, "HS", 1),
    ]
    return models.mobilenetv3.MobileNetV3(blocks, 24, num_classes=5)


def _mnasnet(models):
    return models.mnasnet.MNASNet(0.1, 5)


def _shufflenet(models):
    return models.shufflenetv2.ShuffleNetV2([2, 1, 1], [8, 16, 24, 32, 40], num_classes=5)


def _efficientnet(models):
    config = models.efficientnet.MBConvConfig
    blocks = [config(1, 3, 1, 8, 8, 1), config(4, 3, 2, 8, 16, 2)]
    return models.efficientnet.EfficientNet(blocks, 0.2, num_classes=5, last_channel=24)


def _efficientnet_v2(models):
    blocks = [
        models.efficientnet.FusedMBConvConfig(2, 3, 1, 8, 8, 2),
        models.efficientnet.MBConvConfig(2, 3, 2, 8, 16, 1),
    ]
    return models.efficientnet.EfficientNet(blocks, 0.2, num_classes=5, last_channel=24)


def _regnet(models, se_ratio=None):
    return models.regnet.RegNet(
        models.regnet.BlockParams.from_init_params(4, 16, 16, 2.0, 8, se_ratio=se_ratio), num_classes=5
    )


def _convnext(models):
    config = models.convnext.CNBlockConfig
    return models.convnext.ConvNeXt([config(8, 12, 1), config(12, 16, 2), config(16, None, 1)], num_classes=5)


def _vit(models):
    return models.vision_transformer.VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=5)


def _swin(models):
    swin = models.swin_transformer
    return swin.SwinTransformer([2, 2], 8, [2, 1], [2, 2], [4, 4], num_classes=5)


def _swin_v2(models):
    swin = models.swin_transformer
    options = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    return swin.SwinTransformer([2, 2], 8, [2, 1], [2, 2], [4, 4], num_classes=5, **options)


def _maxvit(models):
    return models.maxvit.MaxVit((16, 16), 8, 2, [8, 16], [1, 1], 4, 0.0, num_classes=5)


def _video(conv, stem, models):
    resnet = models.video.resnet
    conv_makers, stem = [getattr(resnet, conv)] * 4, getattr(resnet, stem)
    return _shortened(resnet.VideoResNet(resnet.BasicBlock, conv_makers, [1, 1, 1, 1], stem, 5))


def _mvit(models):
    mvit = models.video.mvit
    config = partial(mvit.MSBlockConfig, kernel_kv=[1, 3, 3], kernel_q=[1, 3, 3], stride_kv=[1, 2, 2])
    blocks = [config(1, 8, 16, stride_q=[1, 1, 1]), config(2, 16, 16, stride_q=[1, 2, 2])]
    return mvit.MViT((16, 16), 4, blocks, True, False, True, False, num_classes=5, patch_embed_stride=(2, 4, 4))


def _swin3d(models):
    return models.video.swin_transformer.SwinTransformer3d([2, 2, 2], 8, [1, 1], [2, 2], [2, 4, 4], num_classes=5)


def _backbone(models, out):
    resnet = _resnet("BasicBlock", models)
    return models._utils.IntermediateLayerGetter(
        resnet, {"layer1": "aux", "layer2": "out"} if out else {"layer2": "out"}
    )


def _fcn(models):
    fcn = models.segmentation.fcn
    return fcn.FCN(_backbone(models, True), fcn.FCNHead(128, 3), fcn.FCNHead(64, 3))


def _deeplab(models):
    deeplab = models.segmentation.deeplabv3
    head = deeplab.DeepLabHead(128, 3, [2, 4])
    return deeplab.DeepLabV3(_backbone(models, False), head)


def _lraspp(models):
    features = _mobilenet_v3(models).features
    backbone = models._utils.IntermediateLayerGetter(features, {"1": "low", "3": "high"})
    return models.segmentation.lraspp.LRASPP(backbone, 8, 16, 3, inter_channels=12)


_IMAGE = (1, 3, 32, 32)
MODELS = {
    "resnet_basic": (partial(_resnet, "BasicBlock"), _IMAGE), "resnet_bottleneck": (partial(_resnet, "Bottleneck",
        layers=(1, 1, 1, 1)), _IMAGE),
    "resnext": (partial(_resnet, "Bottleneck", groups=4, width_per_group=4), _IMAGE),
    "densenet": (_densenet, _IMAGE), "squeezenet": (_squeezenet, _IMAGE), "mobilenet_v2": (_mobilenet_v2, _IMAGE),
    "mobilenet_v3": (_mobilenet_v3, _IMAGE), "mnasnet": (_mnasnet, _IMAGE), "shufflenet_v2": (_shufflenet, _IMAGE),
    "efficientnet": (_efficientnet, _IMAGE), "efficientnet_v2": (_efficientnet_v2, _IMAGE), "regnet_x": (_regnet,
        _IMAGE),
    "regnet_y": (partial(_regnet, se_ratio=0.25), _IMAGE), "convnext": (_convnext, (1, 3, 16, 16)), "vit": (_vit,
        (1, 3, 16, 16)),
    "swin": (_swin, (1, 3, 16, 16)), "swin_v2": (_swin_v2, (1, 3, 16, 16)), "maxvit": (_maxvit, (1, 3, 16, 16)),
    "r3d": (partial(_video, "Conv3DSimple", "BasicStem"), (1, 3, 4, 8, 8)),
    "r2plus1d": (partial(_video, "Conv2Plus1D", "R2Plus1dStem"), (1, 3, 4, 8, 8)),
    "mvit": (_mvit, (1, 3, 4, 16, 16)), "swin3d": (_swin3d, (1, 3, 4, 16, 16)), "fcn": (_fcn, _IMAGE),
    "deeplab": (_deeplab, _IMAGE), "lraspp": (_lraspp, _IMAGE),
}  # fmt: skip
