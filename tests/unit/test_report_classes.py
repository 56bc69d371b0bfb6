"""The report's section on classes, boundaries and scores, from made-up tables."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import numpy as np
import pandas as pd
import pytest
from scored_results import STRUCTURES, scored_tables, write_scored

from lumbarflow.errors import InputError
from lumbarflow.evaluate.film import FOREGROUND
from lumbarflow.evaluate.scores import ALL
from lumbarflow.files import write_table
from lumbarflow.report import classes
from lumbarflow.report.classes import FILM_METRICS, METRICS, class_title, classes_section
from lumbarflow.report.classes_figures import film_scores, score_curves
from lumbarflow.report.figures import PALETTE

TITLES = {
    **{"unet": "U-Net", "mask_rcnn": "Mask R-CNN", "pspnet": "PSPNet"},
    **{"deeplabv3": "DeepLabV3", "yolact": "YOLACT"},
}
MODELS = list(TITLES)
COLOURS = {
    name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in zip(STRUCTURES, PALETTE, strict=False)
}
FILMS = {f"film{n}": f"patient{n // 2}" for n in range(12)}
IMPLANTS = ("cage", "screw", "instrumentation")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures take most of the time; what was to be drawn."""
    given = {}
    for name in ("film_scores", "score_curves"):
        monkeypatch.setattr(
            classes, name, lambda tables, name=name: given.update({name: tables}) or "data:,drawn"
        )
    return given


@pytest.fixture(scope="module")
def tables():
    return scored_tables(MODELS, FILMS)


def written(folder, tables, films=FILMS):
    write_scored(folder, tables)
    splits = pd.DataFrame({"image_id": list(films), "patient_id": list(films.values())})
    write_table(folder / "splits.parquet", splits.assign(subset="test"))
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory, tables):
    return written(tmp_path_factory.mktemp("scored"), tables)


def made(folder, models, films, **lacking):
    written(folder, scored_tables(models, films, **lacking), films)
    return classes_section(folder, models, TITLES, COLOURS)


class Page(HTMLParser):
    """Checks that every element is closed in its turn; headings and texts."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.images, self.regions = [], {}, [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        else:
            self.open.append(tag)
        if attributes.get("role") == "region":
            self.regions.append(attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(" ".join(data.split()))


def rendered(found):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(classes.__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("classes.html.j2").render(classes=found)


def table_of(found, title):
    return next(part for part in found["classes"] if part["title"] == title)


def column(found, title, metric):
    part = table_of(found, title)
    place = [name.replace("\xa0", " ") for name in part["columns"]].index(metric)
    return [row["cells"][place] for row in part["rows"]]


def test_every_class_and_network_has_every_figure_with_its_interval(results, tables):
    found = classes_section(results, MODELS, TITLES, COLOURS)
    titles = [class_title(name) for name in (FOREGROUND, *STRUCTURES, ALL)]
    assert [part["title"] for part in found["classes"]] == titles
    assert found["notes"] == []
    summary = tables["class_summary"].set_index(["model", "class_name", "metric"])
    shown = {
        **{"IoU": "iou", "Dice": "dice", "Surface Dice at 1 mm": "surface_dice", "AP": "ap"},
        **{"AP at 0.5": "ap_50", "Panoptic quality": "panoptic_quality"},
    }
    for name in STRUCTURES:
        for title, metric in shown.items():
            for model, cell in zip(MODELS, column(found, class_title(name), title), strict=True):
                row = summary.loc[(model, name, metric)]
                assert cell["value"] == f"{100 * row['value']:.1f}"
                low, high = (f"{100 * row[end]:.1f}" for end in ("ci_low", "ci_high"))
                assert cell["interval"] == f"{low}–{high}"
    merged = class_title(FOREGROUND)
    for title, metric in {"Hausdorff 95%, mm": "hausdorff_95", "Waviness": "waviness"}.items():
        for model, cell in zip(MODELS, column(found, merged, title), strict=True):
            assert cell["value"] == f"{summary.loc[(model, FOREGROUND, metric), 'value']:.2f}"
    rate = summary.loc[("unet", FOREGROUND, "recognition_rate"), "value"]
    assert column(found, merged, "Recognition rate")[0]["value"] == f"{100 * rate:.1f}"
    assert table_of(found, "Cage")["note"] == "Annotated on 6 of 12 test films"


def test_the_best_of_a_column_is_bold(results):
    found = classes_section(results, MODELS, TITLES, COLOURS)
    for part in found["classes"]:
        for place, title in enumerate(part["columns"]):
            cells = [row["cells"][place] for row in part["rows"]]
            best = {float(cell["value"]) for cell in cells if cell["best"]}
            values = [float(cell["value"]) for cell in cells]
            if title.startswith("Waviness"):
                assert not best
            elif title.startswith(("Hausdorff", "Calibration")):
                assert best == {min(values)}
            else:
                assert best == {max(values)}


def test_distances_on_other_films_are_not_ranked_and_their_number_is_told(tmp_path):
    found = made(tmp_path, ["unet", "pspnet"], FILMS, unpredicted={"pspnet": ["cage"]})
    mine, missed = column(found, "Cage", "Hausdorff 95%, mm")
    assert missed == {"value": "–", "interval": "", "of": "", "best": False}
    assert not mine["best"]
    assert column(found, "Cage", "Dice")[1]["value"] == "0.0"
    assert found["notes"] == [
        "Cage: not predicted by PSPNet on the test films: boundaries have no distance there."
    ]
    counts = {cell["of"] for cell in column(found, class_title(FOREGROUND), "Waviness")}
    assert all(re.fullmatch(r"\d+ vertebrae", count) for count in counts) and len(counts) == 2


def test_millimetres_and_pixels_have_columns_of_their_own(tmp_path):
    found = made(tmp_path, ["unet", "yolact"], FILMS, without_spacing=3)
    names = [name.replace("\xa0", " ") for name in found["classes"][0]["columns"]]
    assert names[2:6] == [
        *("Surface Dice at 1 mm", "Surface Dice at 7 px"),
        *("Hausdorff 95%, mm", "Hausdorff 95%, px"),
    ]
    assert found["notes"] == [
        "The pixel spacing of 3 test films is not known: boundaries on them are measured in "
        "pixels, apart from the others."
    ]
    # Of a single film with screws.
    assert {cell["interval"] for cell in column(found, "Screw", "Hausdorff 95%, px")} == {""}
    assert "" not in {cell["interval"] for cell in column(found, "Screw", "Hausdorff 95%, mm")}


def test_without_any_spacing_distances_are_in_pixels(tmp_path):
    found = made(tmp_path, ["unet", "yolact"], FILMS, without_spacing=len(FILMS))
    assert not any("mm" in name for part in found["classes"] for name in part["columns"])
    assert found["notes"] == [
        "The pixel spacing of no test film is known: distances are in pixels and have no common "
        "scale."
    ]


def test_absent_classes_are_told(tmp_path):
    found = made(
        tmp_path, ["unet", "yolact"], FILMS, absent=IMPLANTS, invented={"yolact": ["screw"]}
    )
    assert [part["title"] for part in found["classes"]] == [
        class_title(name) for name in (FOREGROUND, *list(STRUCTURES)[:2], "screw", ALL)
    ]
    assert table_of(found, "Screw")["note"] == "Annotated on no test film"
    assert "AP" not in table_of(found, "Screw")["columns"]
    assert [cell["value"] for cell in column(found, "Screw", "IoU")] == ["–", "0.0"]
    assert found["notes"] == [
        "Neither annotated nor predicted on the test films: cage, instrumentation.",
        "Annotated on no test film, though predicted: screw. All of that is false, and there is "
        "no average precision.",
    ]
    Page(rendered(found))


def test_a_class_that_no_network_predicts_is_told(tmp_path):
    silent = {"unet": ["cage"], "yolact": ["cage"]}
    found = made(tmp_path, ["unet", "yolact"], FILMS, unpredicted=silent)
    assert "Cage: not predicted by any network" in found["notes"][0]
    assert not any("Hausdorff" in name for name in table_of(found, "Cage")["columns"])


def test_one_network_on_one_film_makes_no_claims(tmp_path, undrawn):
    found = made(
        tmp_path,
        ["unet"],
        {"film0": "patient0"},
        absent=IMPLANTS,
        without_spacing=1,
        levels=False,
    )
    text = " ".join(found["notes"])
    assert "one network only" in text
    assert "one test film only" in text
    assert "spacing of this film is not known" in text
    assert "named no level" in text
    cells = [
        cell for part in found["classes"] for row in part["rows"] for cell in row["cells"]
    ]  # fmt: skip
    assert not any(cell["best"] or cell["interval"] for cell in cells)
    assert [len(scores["U-Net"]) for scores in undrawn["film_scores"].values()] == [1] * 5
    page = Page(rendered(found))
    assert not any("nan" in text.lower() for texts in page.text.values() for text in texts)


def test_films_of_one_patient_have_no_intervals(tmp_path):
    films = {"film0": "patient0", "film1": "patient0"}
    found = made(tmp_path, ["unet", "yolact"], films)
    assert found["notes"][0] == "The test films are of one patient: there are no intervals."
    assert {cell["interval"] for cell in column(found, "Lumbar vertebra", "IoU")} == {""}


def test_networks_that_see_nothing_are_shown_with_nothing(tmp_path, undrawn):
    found = made(tmp_path, ["unet", "yolact"], FILMS, unpredicted={"yolact": list(STRUCTURES)})
    assert found["scores"]["columns"] == ["U-Net"]
    assert list(undrawn["score_curves"]) == ["U-Net"]
    found = made(tmp_path, ["yolact"], FILMS, unpredicted={"yolact": list(STRUCTURES)})
    assert found["scores"] is None
    assert "No vertebra was found by any network: there is no waviness." in found["notes"]
    page = Page(rendered(found))
    assert (
        "No network predicted anything on the test films, so there are no scores."
        in (page.text["p"])
    )


def test_nothing_annotated_nor_predicted(tmp_path):
    nothing = {"absent": list(STRUCTURES), "levels": False}
    found = made(tmp_path, ["unet"], FILMS, **nothing)
    assert found["classes"] == []
    assert "Nothing is annotated or predicted on the test films." in Page(rendered(found)).text["p"]


def test_distributions_are_of_the_films(results, tables, undrawn):
    found = classes_section(results, MODELS, TITLES, COLOURS)["films"]
    assert found["columns"] == list(FILM_METRICS.values())
    of_network = tables["per_image"].query("model == 'pspnet'")["mean_iou"]
    row = next(row for row in found["rows"] if row["name"] == "PSPNet")
    low, middle, high = 100 * of_network.quantile([0.25, 0.5, 0.75])
    assert row["cells"][0]["median"] == f"{middle:.1f}"
    assert row["cells"][0]["quartiles"] == f"{low:.1f}–{high:.1f}"
    assert row["cells"][0]["range"] == f"{100 * of_network.min():.1f}–{100 * of_network.max():.1f}"
    assert f"PSPNet {middle:.1f}" in found["alt"]
    drawn = undrawn["film_scores"]["Mean IoU"]["PSPNet"]
    assert sorted(drawn) == pytest.approx(sorted(100 * of_network))


def test_calibration_counts_every_instance_once(results, tables, undrawn):
    found = classes_section(results, MODELS, TITLES, COLOURS)["scores"]
    for place, model in enumerate(MODELS):
        n = sum(int(row["cells"][place]["of"].split()[0] or 0) for row in found["rows"]
                if row["cells"][place]["of"])  # fmt: skip
        assert n == (tables["detections"]["model"] == model).sum()
    errors = tables["class_summary"].query("class_name == 'all' and metric == 'calibration_error'")
    first = errors.set_index("model").loc["unet", "value"]
    assert f"U-Net {100 * first:.1f}" in found["alt"]
    assert set(undrawn["score_curves"]["U-Net"]["class_name"]) == {ALL}


def test_only_the_networks_asked_for_are_shown(results):
    found = classes_section(results, ["pspnet"], TITLES, COLOURS)
    assert {row["name"] for part in found["classes"] for row in part["rows"]} == {"PSPNet"}


def test_headings_captions_and_alternative_texts(results):
    found = classes_section(results, MODELS, TITLES, COLOURS)
    html = rendered(found)
    page = Page(html)
    assert page.text["h2"] == ["Classes, boundaries and scores"]
    assert len(page.text["h3"]) == len(found["classes"]) + 2
    assert html.count("<table") == html.count("<caption>") == len(found["classes"]) + 2
    assert len(page.images) == 2 and all(len(image["alt"]) > 40 for image in page.images)
    assert all(region["aria-label"] and region["tabindex"] == "0" for region in page.regions)
    assert len({region["aria-label"] for region in page.regions}) == len(page.regions)
    for metric in METRICS.values():
        assert metric.title.split("{")[0] in html.replace("&#39;", "'")


def test_titles_from_the_configuration_are_escaped(tmp_path):
    films = {"film0": "patient0", "film1": "patient1"}
    written(tmp_path, scored_tables(["unet"], films), films)
    found = classes_section(tmp_path, ["unet"], {"unet": "<b>"}, COLOURS)
    assert "<b>" not in rendered(found)


def test_a_missing_table_is_told_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"class_summary\.parquet is missing"):
        classes_section(tmp_path, MODELS, TITLES, COLOURS)


def svg(uri):
    text = base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()
    return ElementTree.fromstring(text), re.findall(r"<!-- (.*?) -->", text)


@pytest.mark.parametrize(("networks", "films"), [(1, 1), (5, 12)])
def test_drawing_of_the_films_has_one_size_and_all_its_words(networks, films):
    rng = np.random.default_rng(0)
    panels = {
        title: {f"network {n}": rng.uniform(80, 100, films) for n in range(networks)}
        for title in ("Mean IoU", "Dice")
    }
    uri = film_scores(panels)
    root, texts = svg(uri)
    assert root.attrib["width"] == "828pt"
    assert {"Mean IoU", "Dice", *panels["Dice"]} <= set(texts)
    # Nothing is beyond 100 %.
    assert max(float(text) for text in texts if re.fullmatch(r"[\d.]+", text)) <= 100
    assert uri == film_scores(panels)


def test_drawing_of_the_films_stands_equal_and_missing_scores():
    panels = {"Dice": {"a": np.full(6, 100.0), "b": np.zeros(0)}}
    assert {"a", "b"} <= set(svg(film_scores(panels))[1])


def test_drawing_of_the_scores_has_a_panel_for_each_network(tables):
    reliability = tables["score_reliability"].query("class_name == 'all'")
    shown = {TITLES[model]: rows for model, rows in reliability.groupby("model")}
    uri = score_curves(shown)
    _, texts = svg(uri)
    assert set(shown) <= set(texts)
    assert texts.count("score") == len(shown)
    assert uri == score_curves(shown)
