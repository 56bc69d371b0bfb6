"""U-Net (Ronneberger et al. 2015), as in segmentation-models-pytorch."""

import segmentation_models_pytorch as smp

from .base import Settings
from .semantic import SemanticNetwork


def _build(settings: Settings) -> smp.Unet:
    # 256, 128, 64, 32, 16 at full width, as the library has it.
    widths = [max(16, settings.width // 2**level) for level in range(5)]
    return smp.Unet(
        encoder_name=settings.backbone,
        encoder_weights=None,
        in_channels=1,
        classes=len(settings.classes),
        decoder_channels=widths,
    )


NETWORK = SemanticNetwork(_build)
