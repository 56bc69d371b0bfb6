"""What annotators would draw on the films of the embedded archive: their known truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..deidentify.pseudonyms import Pseudonyms


def draw(
    truth: Mapping[str, Any], manifest: pd.DataFrame, pseudonyms: Pseudonyms, pictures: Path
) -> list[tuple[str, int, list[Mapping[str, Any]]]]:
    """File name, size in bytes and structures of every accepted film.

    Args:
        truth: `truth.json` of the synthetic cohort, keyed by the archive's own UIDs.
        manifest: `images/manifest.parquet`.
        pseudonyms: the keyed mapping, as at retrieval.
        pictures: folder with `{image_id}.png`.
    """
    accepted = set(manifest.loc[manifest["status"] == "accepted", "image_id"])
    films = []
    for image in truth["images"]:
        image_id = pseudonyms.image(image["sop_instance_uid"])
        if image_id in accepted:
            name = f"{image_id}.png"
            films.append((name, (pictures / name).stat().st_size, image["structures"]))
    return sorted(films, key=lambda film: film[0])
