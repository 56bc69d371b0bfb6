"""DeepLabV3 (Chen et al. 2017), as in segmentation-models-pytorch."""

import segmentation_models_pytorch as smp

from ..errors import InputError
from .base import Settings
from .semantic import SemanticNetwork

_FULL_WIDTH = 256


def _build(settings: Settings) -> smp.DeepLabV3:
    if settings.batch_size == 1:
        raise InputError(
            "networks.deeplabv3.batch_size: expected at least 2, found 1, for DeepLabV3 normalises "
            "the mean of a film over the batch."
        )
    slim = settings.width < _FULL_WIDTH
    return smp.DeepLabV3(
        encoder_name=settings.backbone,
        encoder_weights=None,
        # The last two stages run dilated, at an eighth of the resolution: they take most of the
        # time on a CPU, and the pyramid's dilated convolutions give the context without them.
        encoder_depth=3 if slim else 5,
        in_channels=1,
        classes=len(settings.classes),
        decoder_channels=settings.width,
        # Half of the features dropped is too much for some hundred steps.
        aspp_dropout=0.1 if slim else 0.5,
    )


NETWORK = SemanticNetwork(_build)
