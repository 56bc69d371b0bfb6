"""COCO compressed run-length encoding of binary masks (pycocotools)."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask


def encode(mask: np.ndarray) -> str:
    """Encode a binary mask (H x W, bool or 0/1) as a COCO compressed RLE string."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")


def decode(counts: str, height: int, width: int) -> np.ndarray:
    """Decode a COCO compressed RLE string to a mask (height x width, bool)."""
    return coco_mask.decode({"size": [height, width], "counts": counts.encode("ascii")}) > 0
