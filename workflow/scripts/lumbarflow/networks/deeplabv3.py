"""DeepLabV3 (Chen et al. 2017), as in segmentation-models-pytorch."""

import segmentation_models_pytorch as smp

from .base import Settings
from .semantic import SemanticNetwork


_FULL_WIDTH = 256


def _build(settings: Settings) -> smp.DeepLabV3:
    return smp.DeepLabV3(
        encoder_name=settings.backbone,
        encoder_weights=settings.weights,
        # The last stage runs dilated at an eighth of the resolution: most of the time on a CPU.
        encoder_depth=5 if settings.width >= _FULL_WIDTH else 4,
        in_channels=1,
        classes=len(settings.classes),
        decoder_channels=settings.width,
    )


NETWORK = SemanticNetwork(_build)
