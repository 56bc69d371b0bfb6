"""Mask R-CNN (He et al. 2017), MMDetection's implementation with a feature pyramid."""

from mmengine.config import Config

from .base import Settings
from .detection import DetectionNetwork, set_backbone, start_from

_FULL_WIDTH = 256


def _build(settings: Settings) -> Config:
    model = start_from("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    set_backbone(model, settings)
    width, slim = settings.width, settings.width < _FULL_WIDTH
    model.rpn_head.in_channels = model.rpn_head.feat_channels = width
    # Screws and cages are smaller than what photographs ask for.
    model.rpn_head.anchor_generator.scales = [4, 8]
    heads = model.roi_head
    heads.bbox_roi_extractor.out_channels = heads.mask_roi_extractor.out_channels = width
    heads.bbox_head.in_channels = width
    heads.bbox_head.fc_out_channels = 4 * width
    heads.mask_head.in_channels = heads.mask_head.conv_out_channels = width
    heads.bbox_head.num_classes = heads.mask_head.num_classes = len(settings.classes)
    model.test_cfg.rcnn.max_per_img = 60
    if slim:
        heads.mask_head.num_convs = 2
        model.train_cfg.rpn_proposal.update(nms_pre=400, max_per_img=100)
        model.test_cfg.rpn.update(nms_pre=400, max_per_img=100)
        model.train_cfg.rcnn.sampler.num = 64
    return model


NETWORK = DetectionNetwork(_build)
