"""DeepLabV3 (Chen et al. 2017), as in segmentation-models-pytorch."""

import segmentation_models_pytorch as smp

from .base import Settings
from .semantic import SemanticNetwork


def _build(settings: Settings) -> smp.DeepLabV3:
    return smp.DeepLabV3(
        encoder_name=settings.backbone,
        encoder_weights=settings.weights,
        in_channels=1,
        classes=len(settings.classes),
        decoder_channels=settings.width,
    )


NETWORK = SemanticNetwork(_build)
