"""The exact measurements of synthetic films, known from their making."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..deidentify.pseudonyms import Pseudonyms

TRUTH = {"image_id": "str", "name": "str", "site": "str", "value": "float64", "unit": "str"}


def truth_table(
    truth: Mapping[str, Any], manifest: pd.DataFrame, pseudonyms: Pseudonyms
) -> pd.DataFrame:
    """The known measurements of every accepted film, under its pseudonym.

    Args:
        truth: `truth.json` of the synthetic cohort; its images may have `measurements`, a list of
            dictionaries with name, site, value and unit.
        manifest: `images/manifest.parquet`.
        pseudonyms: the keyed mapping, as at retrieval.

    Returns:
        A row a measurement: image_id, name (such as `lordosis`), site (such as `L1-S1`, `L4/L5` or
        `L3`), value and unit, by image_id and otherwise in the order of `truth`.
    """
    accepted = set(manifest.loc[manifest["status"] == "accepted", "image_id"])
    rows = []
    for image in truth["images"]:
        image_id = pseudonyms.image(image["sop_instance_uid"])
        if image_id in accepted:
            rows += [
                {"image_id": image_id} | {key: known[key] for key in list(TRUTH)[1:]}
                for known in image.get("measurements") or ()
            ]
    table = pd.DataFrame(rows, columns=list(TRUTH)).astype(TRUTH)
    return table.sort_values("image_id", kind="stable", ignore_index=True)
