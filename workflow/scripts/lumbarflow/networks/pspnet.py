"""PSPNet (Zhao et al. 2017), as in segmentation-models-pytorch."""

import segmentation_models_pytorch as smp

from .base import Settings
from .semantic import SemanticNetwork


def _build(settings: Settings) -> smp.PSPNet:
    return smp.PSPNet(
        encoder_name=settings.backbone,
        encoder_weights=None,
        in_channels=1,
        classes=len(settings.classes),
        psp_out_channels=2 * settings.width,
    )


NETWORK = SemanticNetwork(_build)
