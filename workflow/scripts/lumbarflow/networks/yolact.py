"""YOLACT (Bolya et al. 2019), MMDetection's implementation."""

from mmengine.config import Config

from .anchors import generator
from .base import Settings
from .detection import DetectionNetwork, set_backbone, start_from

_FULL_WIDTH = 256
_STRIDES = [8, 16, 32, 64, 128]


def _build(settings: Settings) -> Config:
    model = start_from("yolact/yolact_r50_1xb8-55e_coco.py")
    set_backbone(model, settings)
    width = settings.width
    model.bbox_head.in_channels = model.bbox_head.feat_channels = width
    model.bbox_head.num_classes = model.mask_head.num_classes = len(settings.classes)
    if settings.anchors:
        model.bbox_head.anchor_generator = generator(settings.anchors)
    else:
        # Strides of any canvas instead of the stock 550 x 550 pixels.
        model.bbox_head.anchor_generator.strides = _STRIDES
        model.bbox_head.anchor_generator.pop("centers")
    model.mask_head.in_channels = width
    if width < _FULL_WIDTH:
        model.mask_head.proto_channels = (width, width, width, None, width, 32)
    model.test_cfg.max_per_img = max(60, 2 * (settings.anchors or {}).get("objects", 0))
    return model


NETWORK = DetectionNetwork(_build)
