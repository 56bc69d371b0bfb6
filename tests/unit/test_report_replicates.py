"""The report's section on seeds and folds."""

from __future__ import annotations

import base64
import re

import jinja2
import pandas as pd
import pytest
from replicated_results import replicates, write_replicates
from test_report import NAMES, Page

from lumbarflow.errors import InputError
from lumbarflow.evaluate.tables import METRICS
from lumbarflow.report.replicates import dots, replicates_section

TRAINING = {"seed": 1, "seeds": [2, 3], "folds": 3}


def section(folder, models=("unet", "yolact"), training=TRAINING, kinds=("seed", "fold")):
    write_replicates(folder, replicates(models, kinds), models)
    return replicates_section(folder, models, {model: NAMES[model] for model in models}, training)


def test_values_are_those_of_the_tables(tmp_path):
    found = section(tmp_path)
    summary = pd.read_parquet(tmp_path / "metrics/replicate_summary.parquet")
    assert [part["title"] for part in found["kinds"]] == ["Seeds", "Folds"]
    assert [part["trainings"] for part in found["kinds"]] == [3, 3]
    assert [part["films"] for part in found["kinds"]] == [4, 12]
    row = next(row for row in found["kinds"][1]["rows"] if row["metric"] == "Mean IoU Average")
    expected = summary.set_index(["model", "kind", "metric"]).loc["yolact", "fold", "mean_iou"]
    mean, sd, low, high = (100 * expected[name] for name in ("mean", "sd", "low", "high"))
    assert row["cells"][1] == {
        "value": f"{mean:.2f} ± {sd:.2f}",
        "range": f"{low:.2f}–{high:.2f}",
    }


def test_the_better_network_comes_first_in_a_pair(tmp_path):
    models = ("yolact", "unet")
    better = section(tmp_path, models)["kinds"][0]["pairs"]
    assert [(pair["first"], pair["second"], pair["alike"]) for pair in better] == [
        ("YOLACT", "U-Net", True)
    ]
    # Paired the other way round, the differences are negative.
    write_replicates(tmp_path, replicates(models), models[::-1])
    swapped = replicates_section(tmp_path, models, NAMES, TRAINING)["kinds"][0]["pairs"]
    assert swapped == better
    assert re.fullmatch(r"\+\d\.\d\d to \+\d\.\d\d", better[0]["range"])


def test_a_pair_without_a_constant_winner(tmp_path):
    scores = replicates(["unet", "yolact"], ["seed"])
    first = (scores["model"] == "yolact") & (scores["replicate"] == "seed1")
    scores.loc[first, list(METRICS)] += 0.05
    write_replicates(tmp_path, scores, ["unet", "yolact"])
    (part,) = replicates_section(tmp_path, ["unet", "yolact"], NAMES, TRAINING)["kinds"]
    (pair,) = part["pairs"]
    assert not pair["alike"] and "−" in pair["range"]


def test_nothing_where_nothing_is_asked_for(tmp_path):
    for training in ({}, {"seed": 1, "seeds": [], "folds": 0}):
        assert section(tmp_path, training=training) is None


def test_missing_tables_are_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"metrics/replicates\.parquet is missing"):
        replicates_section(tmp_path, ["unet"], NAMES, TRAINING)


@pytest.mark.parametrize("kinds", [("seed",), ("fold",), ("seed", "fold")])
def test_the_drawing_has_a_panel_a_kind_and_is_repeatable(kinds, tmp_path):
    scores = {kind: {"U-Net": [90.0, 91.0], "YOLACT": [88.0]} for kind in kinds}
    drawing = dots(scores)
    assert drawing == dots(scores)
    text = base64.b64decode(drawing.split(",")[1]).decode()
    assert text.count('id="axes_') == len(kinds)


@pytest.mark.parametrize("models", [["unet", "yolact", "pspnet"], ["unet"]])
def test_the_template_shows_it_all(models, tmp_path):
    titles = [NAMES[model] for model in models]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lumbarflow.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("replicates.html.j2")
    html = template.render(replicates=section(tmp_path, models), models=titles)
    page = Page(html)
    assert [text.partition(" ")[0] for text in page.text["h3"]] == ["Seeds", "Folds"]
    assert all(image["alt"] for image in page.all("img"))
    start = page.text["th"].index("Metric") + 1
    assert page.text["th"][start : start + len(models)] == titles
    pairs = len(models) * (len(models) - 1) // 2
    assert sum(" over " in text for text in page.text["th"]) == 2 * pairs
    assert len(page.all("details")) == (2 if pairs else 0)
