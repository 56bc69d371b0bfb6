"""The report page from a small made-up results folder, and its figures."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest
from compared_results import write_compared
from labelled_results import write_labelled
from replicated_results import replicates, write_replicates
from scored_results import scored_tables, write_scored

from lumbarflow.annotate.agreement import agreement_table
from lumbarflow.annotate.qc import CHECKS
from lumbarflow.deidentify.audit import table
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError
from lumbarflow.evaluate.tables import Reference, paper_order, score_masks, summarise
from lumbarflow.files import write_json, write_png, write_table, write_text
from lumbarflow.prepare.masks import bit_mask, rasterise
from lumbarflow.report.figures import class_colours, duration, learning_curves, overlay, shrink
from lumbarflow.report.page import MAX_FINDING_PICTURES, build_page, build_report
from lumbarflow.rle import encode

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]
NAMES = {
    "yolact": "YOLACT",
    "deeplabv3": "DeepLabV3",
    "pspnet": "PSPNet",
    "mask_rcnn": "Mask R-CNN",
    "unet": "U-Net",
}
IN_ORDER = ["U-Net", "Mask R-CNN", "PSPNet", "DeepLabV3", "YOLACT"]
ROWS, COLUMNS = 300, 200
VOID = {"meta", "link", "img", "br", "hr", "input"}


def rectangle(x, y, width, height):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def spine(shift):
    structures = [
        ("lumbar_vertebra", f"L{n + 1}", rectangle(60 + shift + 5 * n, 20 + 45 * n, 70, 34))
        for n in range(5)
    ]
    structures.append(("sacral_vertebra", "S1", rectangle(90 + shift, 246, 62, 32)))
    structures.append(("cage", None, rectangle(78 + shift, 190, 40, 9)))
    return [
        {"structure_id": f"s{n}", "class_name": name, "level": level, "polygon": polygon}
        for n, (name, level, polygon) in enumerate(structures)
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Six films of four patients, scored for five models; three of the films are test films."""
    folder = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    ids = [f"film{n}" for n in range(6)]
    patients = ["p0", "p0", "p1", "p2", "p3", "p3"]
    manifest = pd.DataFrame(
        {
            "image_id": [*ids, "film6"],
            "patient_id": [*patients, "p4"],
            "study_id": [f"study{n}" for n in range(7)],
            "view_evidence": ["film_text:lateral"] * 6 + [None],
            "status": ["accepted"] * 6 + ["rejected"],
            "reason": [None] * 6 + ["the view is AP, not lateral"],
        }
    )
    write_table(folder / "images/manifest.parquet", manifest)
    audit = [{"status": "accepted", "blanked_texts": 2, "audit": [["PatientName", "removed", 7]]}]
    rules = Deidentifier(Pseudonyms(b"a key for these tests only"))
    write_table(
        folder / "images/deidentification.parquet",
        table(audit, rules, {"values": 1234, "findings": 0}),
    )
    splits = pd.DataFrame(
        {
            "image_id": ids,
            "patient_id": patients,
            "subset": ["train", "train", "val", "test", "test", "test"],
        }
    )
    write_table(folder / "splits.parquet", splits)
    write_table(
        folder / "annotations/qc.parquet",
        pd.DataFrame(
            {
                "image_id": ["film0", "film1", "film2"],
                "structure_id": ["film0-001", None, "film2-004"],
                "check": ["outside", "no annotation", "outside"],
                "severity": ["warning", "info", "warning"],
                "message": ["A point is <outside> the image.", "", "A point is outside."],
            }
        ),
    )
    write_table(folder / "annotations/agreement.parquet", agreement_table([], {}))
    references = []
    for number, image_id in enumerate(ids):
        structures = spine(4 * number)
        film = rng.normal(70, 10, (ROWS, COLUMNS))
        for structure in structures:
            film[rasterise(structure["polygon"], ROWS, COLUMNS)] += 80
        write_png(folder / f"images/png/{image_id}.png", film.clip(0, 255).astype(np.uint8))
        record = {"image_id": image_id, "rows": ROWS, "columns": COLUMNS, "structures": structures}
        write_json(folder / f"annotations/records/{image_id}.json", record)
        bits = bit_mask(structures, CLASSES, ROWS, COLUMNS)
        if number >= 3:
            references.append(Reference(image_id, bits, structures))

    scores = []
    for offset, model in enumerate(NAMES):
        predictions = pd.DataFrame(
            [
                {
                    "image_id": reference.image_id,
                    "instance_id": f"{reference.image_id}-{n}",
                    "class_name": structure["class_name"],
                    "level": None,
                    "rle_counts": encode(
                        np.roll(
                            rasterise(structure["polygon"], ROWS, COLUMNS), offset + image, (0, 1)
                        )
                    ),
                    "rle_height": ROWS,
                    "rle_width": COLUMNS,
                }
                for image, reference in enumerate(references)
                for n, structure in enumerate(reference.structures)
            ]
        )
        write_table(folder / f"predictions/networks/{model}.parquet", predictions)
        scores.append(score_masks(model, predictions, references, CLASSES, CLASSES[:2]))
        history = [
            {
                "epoch": epoch,
                "split": split,
                "loss": None if split == "val" and epoch == 1 else 1 / epoch + 0.05 * offset,
                "metrics": {"dice": 1 - 0.6 / epoch} if split == "val" else {},
                "seconds": 2.0,
                "images_per_second": 3.0,
            }
            for epoch in range(1, 9)
            for split in ("train", "val")
        ]
        write_text(
            folder / f"models/{model}/history.jsonl", "\n".join(map(json.dumps, history)) + "\n"
        )
        write_json(
            folder / f"models/{model}/run.json",
            {
                **{"model": model, "parameters": 1_234_567, "best_epoch": 8, "epochs": 8},
                **{"seconds": 3720.0, "device": "cpu", "seed": 7},
                "versions": {"torch": "2.8.0", "numpy": "2.4.0"},
            },
        )
    per_image = pd.concat([table for table, _ in scores])
    write_table(folder / "metrics/per_image.parquet", per_image)
    write_table(
        folder / "metrics/summary.parquet",
        summarise(per_image.merge(splits[["image_id", "patient_id"]]), seed=0),
    )
    test_films = dict(zip(ids[3:], patients[3:], strict=True))
    write_labelled(folder, paper_order(list(NAMES)), test_films)
    write_compared(folder, paper_order(list(NAMES)), test_films)
    write_scored(folder, scored_tables(paper_order(list(NAMES)), test_films))
    return folder


def build(results, out, models=tuple(NAMES), films_shown=2):
    build_report(results, models, NAMES, CLASSES, films_shown, {"seed": 7, "a": "<b>"}, out)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(results, tmp_path_factory):
    return build(results, tmp_path_factory.mktemp("report") / "index.html")


class Page(HTMLParser):
    """Collects the elements of a page and checks that every element is closed in its turn."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_page_is_well_formed_and_self_contained(html):
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "base"}
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, name)
    assert not [script for script in page.all("script") if "src" in script]
    assert "@import" not in html
    assert "url(" not in html
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= ids


def test_five_models_in_the_papers_order_beside_its_figures(html):
    headers = Page(html).text["th"]
    first = headers.index("Metric") + 1
    assert headers[first : first + 5] == IN_ORDER
    assert headers.count("This run") == headers.count("Paper") == 5
    table = html[html.index("<tbody>") : html.index("</tbody>")]
    paper = re.findall(r'<td class="paper[^"]*">([\d.]+)<', table)
    assert paper[5:10] == ["88.64", "86.78", "86.50", "88.14", "91.64"]
    assert len(re.findall(r'class="paper best"', table)) == 4


def test_scores_are_those_of_the_tables(html, results):
    summary = pd.read_parquet(results / "metrics/summary.parquet").set_index(["model", "metric"])
    row = summary.loc[("deeplabv3", "mean_iou")]
    mean, low, high = (f"{100 * row[name]:.2f}" for name in ("mean", "ci_low", "ci_high"))
    assert f"{mean}<small>{low}–{high}</small>" in html
    assert html.count('class="run best"') == 4


def test_pictures_have_alternative_texts_and_decode(html):
    images = [image for image in Page(html).all("img") if "src" in image]
    films = [image for image in images if image["src"].startswith("data:image/jpeg;base64,")]
    # Film, reference, five models and an overlay for each of two films; two findings; the curves,
    # the strata, two drawings of films and scores and three of levels and measurements.
    assert len(films) == 18
    assert len(images) == 25
    assert all(image["alt"] for image in images)
    data = base64.b64decode(films[1]["src"].split(",")[1])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), -1).shape == (ROWS, COLUMNS, 3)


def test_findings_are_pictured_and_explained(html, results, tmp_path):
    assert "all 2</small>" in html
    path = results / "annotations/qc.parquet"
    whole = path.read_bytes()
    rows = [
        (f"film{n % 6}", f"s{n % 7}", check, severity, f"message {n}")
        for n, (check, severity) in enumerate(
            [("gap", "warning"), ("duplicate", "error"), ("no_annotation", "info")] * 90
        )
    ]
    columns = ["image_id", "structure_id", "check", "severity", "message"]
    try:
        write_table(path, pd.DataFrame(rows, columns=columns))
        page = build(results, tmp_path / "index.html")
    finally:
        path.write_bytes(whole)
    assert CHECKS["duplicate"].remedy in page
    # Six films of seven structures: each pictured once at most, its findings below it.
    assert f"the worst {MAX_FINDING_PICTURES} of" in page or "<small>all" in page
    section = page[page.index('id="quality"') :]
    first = Page(section[section.index("<div") : section.index("<details>")])
    assert first.text["td"][:2] == ["90", CHECKS["duplicate"].meaning]
    assert "The worst 200 of 270" in page


def test_text_from_outside_is_escaped(html):
    assert "A point is &lt;outside&gt; the image." in html
    assert "&lt;b&gt;" in html
    assert "the view is AP, not lateral" in html


def test_films_to_decide_are_on_a_contact_sheet(html, results, tmp_path):
    assert "Films to decide" not in html
    path = results / "images/manifest.parquet"
    manifest = pd.read_parquet(path)
    whole = path.read_bytes()
    undecided = pd.DataFrame(
        {
            "image_id": ["img-b", "img-a", "img-t"],
            "patient_id": ["p5", "p5", "p5"],
            "study_id": ["study7", "study7", "study7"],
            "view_evidence": ["film_text:lateral view_position:frontal", None, None],
            "status": ["rejected", "rejected", "rejected"],
            "reason": ["view_uncertain", "view_uncertain", "burned_in_text_uncertain"],
        }
    )
    try:
        write_table(path, pd.concat([manifest, undecided]))
        for image_id in undecided["image_id"]:
            picture = np.full((480, 300), 90, np.uint8)
            write_png(results / f"images/uncertain/{image_id}.png", picture)
        sheet = build(results, tmp_path / "index.html")
    finally:
        path.write_bytes(whole)
    page = Page(sheet)
    assert page.text["code"][-2:] == ["img-a,accept", "img-b,accept"]
    assert "film_text:lateral, view_position:frontal" in page.text["small"]
    assert "<td>view_uncertain</td><td>2</td>" in sheet
    assert "may hold text: blurred" in page.text["small"] and "img-t,accept" not in sheet
    test_page_is_well_formed_and_self_contained(sheet)


def test_the_statement_of_deidentification(html):
    page = Page(html)
    fingerprint = Pseudonyms(b"a key for these tests only").fingerprint
    assert any(fingerprint in text for text in page.text["p"])
    for text in ("films accepted", "burned-in text: areas blanked", "verification: values"):
        assert text in page.text["th"]
    for text in ("removed", "1,234", "7"):
        assert text in page.text["td"]


def test_classes_have_their_section_and_colours(html):
    page = Page(html)
    assert {"href": "#classes"} in page.all("a")
    assert "Classes, boundaries and scores" in page.text["h2"]
    assert {"Merged mask of the vertebrae", "Lumbar vertebra", "Cage"} <= set(page.text["h3"])
    swatches = re.findall(r'<h3><span class="swatch" style="background: (#\w+)">', html)
    assert swatches == [
        "#{:02x}{:02x}{:02x}".format(*rgb) for rgb in class_colours(CLASSES).values()
    ]


def test_films_run_from_best_to_worst(html):
    page = Page(html)
    assert [text for text in page.text["h3"] if text.startswith("film")] == ["film3", "film5"]
    assert "rank 3 of 3 by mean Dice" in page.text["small"]


def test_same_input_same_page(html, results, tmp_path):
    assert build(results, tmp_path / "again.html") == html


def test_no_films_one_model(results, tmp_path):
    html = build(results, tmp_path / "index.html", ["unet"], films_shown=0)
    page = Page(html)
    assert page.text["th"].count("This run") == 1
    assert "No test film was chosen to be shown." in page.text["p"]


def test_seeds_and_folds_have_a_section_where_they_are_asked_for(results, html, tmp_path):
    assert "replicates" not in html
    write_replicates(results, replicates(["unet"]), ["unet"])
    out = tmp_path / "index.html"
    config = {"training": {"seed": 1, "seeds": [2, 3], "folds": 3}}
    build_report(results, ["unet"], NAMES, CLASSES, 0, config, out)
    page = Page(out.read_text(encoding="utf-8"))
    assert {"href": "#replicates"} in page.all("a")
    assert "Spread over seeds and folds" in page.text["h2"]


def test_missing_and_broken_files_are_one_sentence(results, tmp_path):
    with pytest.raises(InputError, match=r"models/other/run.json is missing"):
        build(results, tmp_path / "index.html", ["unet", "other"])
    history = results / "models/unet/history.jsonl"
    whole = history.read_text()
    try:
        history.write_text(whole[:-20])
        with pytest.raises(InputError, match=r"history.jsonl has a line that is not JSON"):
            build(results, tmp_path / "index.html")
    finally:
        history.write_text(whole)
    assert not (tmp_path / "index.html").exists()


def test_empty_sections_say_so(results, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lumbarflow.report.page.build_page", lambda page: seen.append(page) or build_page(page)
    )
    build(results, tmp_path / "index.html")
    text = Page(build_page(replace(seen[0], rejected=[], findings=[], finding_list=[]))).text["p"]
    assert "No film was rejected." in text
    assert "The checks of the annotations found nothing." in text


def test_agreement_of_annotators(html, results, tmp_path):
    assert "Agreement between annotators" not in html
    path = results / "annotations/agreement.parquet"
    whole = path.read_bytes()
    names = ["<anna>", "bert"]
    drawings = [
        {"annotator": name, "source": name, "structures": spine(shift)}
        for shift, name in enumerate(names)
    ]
    drawings[1]["structures"][0]["level"] = "T12"
    record = {"image_id": "film0", "rows": ROWS, "columns": COLUMNS, "drawings": drawings}
    try:
        write_table(path, agreement_table([record], {"film0": 0.5}))
        page = build(results, tmp_path / "index.html")
    finally:
        path.write_bytes(whole)
    section = page[
        page.index('<section id="annotators">') : page.index('<section id="provenance">')
    ]
    row = re.search(
        r"&lt;anna&gt;, bert</th>\s*<td[^>]*>lumbar vertebra</td>(.*?)</tr>", section, re.S
    )
    cells = re.findall(r"<td>(.*?)</td>", row[1])
    assert cells[:5] == ["1", "5", "0", "0", "1"]
    assert cells[5:] == ["98.6 (98.6–98.6)", "1.0 (1.0–1.0)", "0.5 (0.5–0.5)"]
    assert re.findall(r'<td class="text">(T12|L1)</td>', section) == ["L1", "T12"]
    test_page_is_well_formed_and_self_contained(page)


def test_overlay_fills_outlines_and_leaves_the_rest():
    film = np.full((40, 30), 100, np.uint8)
    mask = np.zeros_like(film, bool)
    mask[10:30, 8:22] = True
    colours = class_colours(CLASSES)
    image = overlay(film, [("cage", mask)], colours)
    assert image.shape == (40, 30, 3)
    assert image.dtype == np.uint8
    bgr = np.array(colours["cage"][::-1])
    assert np.array_equal(image[20, 15], np.rint(0.65 * 100 + 0.35 * bgr))
    assert np.array_equal(image[10, 15], bgr)
    assert (image[:5] == 100).all()
    assert np.array_equal(film, np.full((40, 30), 100))


def test_touching_instances_keep_their_outlines():
    film = np.zeros((20, 40), np.uint8)
    left, right = np.zeros((2, 20, 40), bool)
    left[5:15, 5:20] = right[5:15, 20:35] = True
    colours = class_colours(CLASSES)
    apart = overlay(film, [("cage", left), ("cage", right)], colours)
    fused = overlay(film, [("cage", left | right)], colours)
    assert apart[10, 20].sum() > fused[10, 20].sum()


def test_colours_differ_for_every_class_a_mask_can_hold():
    assert len(set(class_colours([f"class{n}" for n in range(8)]).values())) == 8


def test_shrink_keeps_kind_and_proportions():
    film = np.arange(200 * 100, dtype=np.uint32).reshape(200, 100).astype(np.uint8)
    assert shrink(film, 50).shape == (100, 50)
    assert shrink(film, 100) is film
    mask = np.zeros((200, 100), bool)
    mask[:100] = True
    assert np.array_equal(shrink(mask, 50), mask[::2, ::2])


def history(epochs, split="train", **columns):
    """Rows of a history; columns that are not given are NaN."""
    names = ("loss", "dice", "seconds", "data", "forward", "backward", "step")
    return pd.DataFrame(
        {"epoch": epochs, "split": split}
        | {name: columns.get(name, [np.nan] * len(epochs)) for name in names}
    )


def drawing(histories):
    """The SVG of learning curves as text; in it are comments with the texts that it shows."""
    kind, data = learning_curves(histories).split(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


def shown(histories):
    return re.findall("<!-- (.*?) -->", drawing(histories))


def test_learning_curves_stand_missing_values():
    rows = [history([1], loss=[0.5]), history([1], "val")]
    assert drawing({"U-Net": pd.concat(rows)}).startswith("<?xml")


def test_letters_of_learning_curves_have_one_size_whatever_the_number_of_networks():
    rows = [history([1, 2], loss=[2.0, 1.0], seconds=[5.0, 5.0])]
    rows += [history([1, 2], "val", dice=[0.5, 0.6], seconds=[1.0, 1.0])]
    table = pd.concat(rows)
    letters = []
    for count in (1, 2, 5, 8):
        svg = drawing({f"network {number}": table for number in range(count)})
        # Drawn in points, and the picture is as large as its drawing.
        width, height = (re.search(f'{side}="([0-9.]+)pt"', svg)[1] for side in ("width", "height"))
        assert f'viewBox="0 0 {width} {height}"' in svg
        letters.append(set(re.findall(r"scale\(([0-9.]+) -\1\)", svg)))
    assert letters[0] and all(sizes == letters[0] for sizes in letters)


def test_learning_curves_mark_the_first_of_the_best_epochs():
    table = history([1, 2, 3, 4], "val", dice=[0.5, 0.9, 0.9, np.nan])
    assert {"best 0.900", "in epoch 2"} <= set(shown({"U-Net": table}))


def test_where_the_time_went_adds_up():
    times = {"data": [1.0, 1.0], "forward": [20.0, 22.0], "backward": [30.0, 30.0]}
    rows = [history([1, 2], seconds=[76.0, 74.0], step=[20.0, 20.0], **times)]
    rows += [history([1, 2], "val", dice=[0.5, 0.6], seconds=[24.0, 26.0])]
    texts = shown({"U-Net": pd.concat(rows)})
    assert [text for text in texts if text.endswith("%")] == ["21 %", "30 %", "20 %", "25 %"]
    assert "time: 3 min" in texts
    # Data are in the bar though too narrow for a number: 1 %, and 3 % of what was not measured.
    parts = ["data", "forward", "backward", "optimiser", "rest of training", "validation"]
    assert texts[-6:] == parts


def test_histories_without_times_show_training_undivided():
    rows = [history([1], seconds=[30.0]), history([1], "val", dice=[0.5], seconds=[10.0])]
    texts = shown({"U-Net": pd.concat(rows)})
    assert [text for text in texts if text.endswith("%")] == ["75 %", "25 %"]
    assert texts[-2:] == ["rest of training", "validation"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99.4, "99 s"), (99.6, "2 min"), (3569, "59 min"), (3571, "1 h 00 min")],
)
def test_durations_are_told_in_words(seconds, text):
    assert duration(seconds) == text
