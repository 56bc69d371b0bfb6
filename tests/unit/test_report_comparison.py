"""The report's section on differences between networks, from made-up tables."""

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import numpy as np
import pandas as pd
import pytest
from compared_results import FAMILIES, write_compared

from lumbarflow.errors import InputError
from lumbarflow.evaluate.failures import KINDS
from lumbarflow.files import write_table
from lumbarflow.report import comparison
from lumbarflow.report.comparison import KIND_TITLES, SCORES, STRATUM_TITLES, comparison_section
from lumbarflow.report.comparison_figures import strata_plot

TITLES = {
    **{"unet": "U-Net", "mask_rcnn": "Mask R-CNN", "pspnet": "PSPNet"},
    **{"deeplabv3": "DeepLabV3", "yolact": "YOLACT"},
}
MODELS = list(FAMILIES)
FILMS = {f"film{n}": f"patient{n // 2}" for n in range(48)}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures take most of the time; what was to be drawn."""
    given = []
    monkeypatch.setattr(
        comparison, "strata_plot", lambda *values: given.append(values) or "data:,drawn"
    )
    return given


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    write_compared(folder, MODELS, FILMS)
    return folder


def made(folder, models, films):
    write_compared(folder, models, films)
    return comparison_section(folder, models, TITLES)


def rendered(found, models=MODELS):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(comparison.__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("comparison.html.j2")
    return template.render(comparison=found, models=[TITLES[model] for model in models])


def words(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_every_pair_and_the_families_are_told(results):
    found = comparison_section(results, MODELS, TITLES)
    assert len(found["pairs"]) == 10
    assert found["pairs"][0]["name"] == "U-Net − Mask R-CNN"
    assert [row["name"] for row in found["families"]] == list(SCORES.values())
    assert len(found["details"]) == len(SCORES) - 1
    assert found["notes"] == []
    table = pd.read_parquet(results / "metrics/comparisons.parquet")
    row = table[
        (table["a"] == "unet")
        & (table["b"] == "yolact")
        & (table["metric"] == "mean_iou")
        & (table["stratum"] == "all")
    ].iloc[0]
    told = next(row for row in found["pairs"] if row["name"] == "U-Net − YOLACT")
    assert told["difference"] == f"{100 * row['difference']:+.2f}".replace("-", "−")
    assert told["significant"] == (row["p_holm"] < 0.05)
    html = rendered(found)
    assert "U-Net − YOLACT" in html
    assert html.count("<table>") == 1 + 1 + len(found["details"]) + 3


def test_strata_and_the_papers_observation(results, undrawn):
    found = comparison_section(results, MODELS, TITLES)
    assert [stratum["title"] for stratum in found["strata"]] == list(STRATUM_TITLES.values())
    grades = found["strata"][1]
    assert [row["value"] for row in grades["rows"]] == ["none", "mild", "severe"]
    assert [row["films"] for row in grades["rows"]] == [16, 16, 16]
    assert grades["rows"][0]["difference"].startswith("+")
    assert grades["rows"][2]["difference"].startswith("−")
    assert grades["dependence"] in ("< 0.001",) or float(grades["dependence"]) < 0.05
    assert "The difference depends on the degree" in found["observation"]
    html = rendered(found)
    assert html.count('scope="rowgroup"') == 4
    ((panels, label),) = undrawn
    assert list(panels) == list(STRATUM_TITLES.values())
    assert label == "Mean IoU, %"
    drawn = panels["Degeneration"]["networks"]["YOLACT"]
    assert drawn.shape == (3, 3)
    assert (drawn[:, 1] < drawn[:, 0]).all()
    assert (drawn[:, 0] < drawn[:, 2]).all()


def test_a_dependence_that_is_not_shown_is_not_claimed(results, tmp_path):
    for path in (results / "metrics").glob("*.parquet"):
        write_table(tmp_path / "metrics" / path.name, pd.read_parquet(path))
    path = tmp_path / "metrics/comparisons.parquet"
    table = pd.read_parquet(path)
    write_table(
        path, table.assign(interaction_p=table["interaction_p"].where(lambda p: p.isna(), 0.4))
    )
    told = comparison_section(tmp_path, MODELS, TITLES)["observation"]
    assert "is not shown (p = 0.400)" in told


def test_errors_are_counted_by_network_and_kind(results):
    found = comparison_section(results, MODELS, TITLES)
    assert found["kinds"] == [KIND_TITLES[kind] for kind in KINDS]
    errors = pd.read_parquet(results / "metrics/errors.parquet")
    for model, row in zip(MODELS, found["errors"], strict=True):
        assert row["name"] == TITLES[model]
        for kind, cell in zip(KINDS, row["cells"], strict=True):
            mine = errors[(errors["model"] == model) & (errors["kind"] == kind)]
            after = mine[mine["stage"] == "labelled"]
            assert cell["count"] == len(after)
            assert cell["films"] == after["image_id"].nunique()
            expected = "" if kind == "level_shifted" else str(len(mine) - len(after))
            assert cell["before"] == expected


def test_hardest_films_come_first(results):
    found = comparison_section(results, MODELS, TITLES)
    ranking = pd.read_parquet(results / "metrics/film_ranking.parquet")
    assert [film["image_id"] for film in found["films"]] == ranking["image_id"][:10].tolist()
    assert found["films"][0]["error"] == f"{100 * ranking['error'].max():.1f}"
    assert found["n_films"] == len(FILMS)
    counted = sum(
        int(number) for film in found["films"] for number in re.findall(r"(\d+) ", film["kinds"])
    )
    assert counted == ranking["n_errors"][:10].sum()


def test_one_network_has_nothing_to_be_compared_with(tmp_path):
    found = made(tmp_path, ["unet"], FILMS)
    assert found["notes"] == ["There is one network only: it has nothing to be compared with."]
    assert found["pairs"] == found["families"] == found["strata"] == []
    assert found["observation"] is None
    text = words(rendered(found, ["unet"]))
    assert "nothing to be compared with" in text
    assert "Errors by kind" in text


def test_one_film_makes_no_claims(tmp_path):
    found = made(tmp_path, MODELS, {"film0": "patient0"})
    assert "1 test film of 1 patient" in found["notes"][0]
    assert all(not row["significant"] and row["interval"] == "" for row in found["pairs"])
    assert found["drawing"] is None
    text = words(rendered(found))
    assert "do not differ in any stratum" in text
    assert "nan" not in text.lower()
    assert "Implants: all test films are alike (without)." in text


def test_few_films_are_told_without_numbers_that_are_not_there(tmp_path):
    found = made(tmp_path, MODELS, {f"film{n}": f"patient{n}" for n in range(3)})
    assert "too few patients to test" in found["observation"]
    assert "nan" not in words(rendered(found)).lower()


def test_strata_that_are_too_small_are_told(tmp_path):
    # Of 16 patients six have mild degeneration.
    films = {f"film{n}": f"patient{n}" for n in range(16)}
    assert made(tmp_path, MODELS, films)["notes"] == [
        "Strata of fewer than 6 patients, in which no difference can be told from chance: "
        "degeneration none (5), degeneration severe (5)."
    ]


def test_one_family_is_said_to_lack_the_other(tmp_path):
    found = made(tmp_path, ["unet", "pspnet"], FILMS)
    assert any("not of both families" in note for note in found["notes"])
    assert found["families"] == []
    assert len(found["pairs"]) == 1


def test_unknown_strata_are_told(tmp_path):
    write_compared(tmp_path, MODELS, FILMS)
    path = tmp_path / "metrics/strata.parquet"
    table = pd.read_parquet(path)
    write_table(path, table[table["stratum"] != "fracture"])
    notes = comparison_section(tmp_path, MODELS, TITLES)["notes"]
    assert notes == ["Fracture: not known of any test film, for want of measurements."]


def test_a_missing_table_is_told_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"comparisons\.parquet is missing"):
        comparison_section(tmp_path, MODELS, TITLES)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_drawing_has_one_size_and_all_its_words(count):
    networks = {
        f"network {n}": np.array([[80, 78, 82], [70, np.nan, np.nan]]) for n in range(count)
    }
    panels = {"Implants": {"values": ["without", "with"], "networks": networks}}
    uri = strata_plot(panels, "Mean IoU, %")
    svg = base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()
    root = ElementTree.fromstring(svg)
    assert root.attrib["width"] == "828pt"
    texts = re.findall(r"<!-- (.*?) -->", svg)
    assert {"Implants", "without", "with", *networks} <= set(texts)
    assert uri == strata_plot(panels, "Mean IoU, %")
