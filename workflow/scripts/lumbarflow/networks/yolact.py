"""YOLACT (Bolya et al. 2019), MMDetection's implementation."""

from typing import Any

import torch
from mmdet.models.dense_heads import YOLACTProtonet
from mmengine.config import Config

from .anchors import generator
from .base import Settings
from .detection import DetectionNetwork, set_backbone, start_from

_FULL_WIDTH = 256
_STRIDES = [8, 16, 32, 64, 128]


class Protonet(YOLACTProtonet):
    """MMDetection's mask head, its losses in full precision.

    PyTorch refuses the cross-entropy of probabilities, of which the masks' loss is made, where
    mixed precision is on: in half precision its gradient would not hold.
    """

    def loss_by_feat(
        self, mask_preds: list[torch.Tensor], segm_preds: torch.Tensor, **others: Any
    ) -> dict[str, Any]:
        """The losses of the masks of a batch, by MMDetection's names."""
        with torch.autocast(segm_preds.device.type, enabled=False):
            masks = [mask.float() for mask in mask_preds]
            return super().loss_by_feat(masks, segm_preds.float(), **others)


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
    model.mask_head.type = Protonet
    model.mask_head.in_channels = width
    if width < _FULL_WIDTH:
        model.mask_head.proto_channels = (width, width, width, None, width, 32)
    model.test_cfg.max_per_img = max(60, 2 * (settings.anchors or {}).get("objects", 0))
    return model


NETWORK = DetectionNetwork(_build)
