"""Mask R-CNN (He et al. 2017), MMDetection's implementation with a feature pyramid."""

from mmcv.ops import get_compiling_cuda_version
from mmengine.config import Config

from ..errors import InputError
from .anchors import generator
from .base import Settings, device
from .detection import DetectionNetwork, set_backbone, start_from

_FULL_WIDTH = 256
_OBJECTS = 25  # of a film with many screws, where the training films have not been counted


def _build(settings: Settings) -> Config:
    if device().type == "cuda" and get_compiling_cuda_version() == "not available":
        raise InputError(
            "Mask R-CNN needs mmcv's operators for the GPU, but mmcv was built for the CPU alone: "
            "install nvcc of PyTorch's CUDA version and build mmcv again (make setup), or set "
            "training.gpu to never."
        )
    model = start_from("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    set_backbone(model, settings)
    width, slim = settings.width, settings.width < _FULL_WIDTH
    model.rpn_head.in_channels = model.rpn_head.feat_channels = width
    if settings.anchors:
        model.rpn_head.anchor_generator = generator(settings.anchors)
    else:
        # Screws and cages are smaller than what photographs ask for.
        model.rpn_head.anchor_generator.scales = [4, 8]
    heads = model.roi_head
    heads.bbox_roi_extractor.out_channels = heads.mask_roi_extractor.out_channels = width
    heads.bbox_head.in_channels = width
    heads.bbox_head.fc_out_channels = 4 * width
    heads.mask_head.in_channels = heads.mask_head.conv_out_channels = width
    heads.bbox_head.num_classes = heads.mask_head.num_classes = len(settings.classes)
    if slim:
        heads.mask_head.num_convs = 2
    _size_proposals(model, (settings.anchors or {}).get("objects", _OBJECTS), slim)
    return model


def _size_proposals(model: Config, objects: int, slim: bool) -> None:
    """Proposals and regions for films of so many objects, where stock is for crowded streets.

    Most of the time goes into the regions: a slim network samples fewer of them.
    """
    proposals = max(64, (4 if slim else 16) * objects)
    for proposing in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        proposing.update(nms_pre=4 * proposals, max_per_img=proposals)
    model.train_cfg.rcnn.sampler.num = max(32, (3 if slim else 10) * objects)
    model.test_cfg.rcnn.max_per_img = max(60, 2 * objects)


NETWORK = DetectionNetwork(_build)
