"""The report's section on levels and measurements, from made-up tables."""

import base64
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import cv2
import jinja2
import numpy as np
import pandas as pd
import pytest
from labelled_results import LEVELS, write_labelled

from lumbarflow.errors import InputError
from lumbarflow.evaluate import levels
from lumbarflow.files import write_table
from lumbarflow.report import labelling
from lumbarflow.report.labelling import OVERLAY_ROWS, film_words, labelling_section
from lumbarflow.report.labelling_figures import bland_altman

MODELS = ["unet", "yolact"]
TITLES = {"unet": "U-Net", "yolact": "YOLACT"}
FILMS = {f"film{n}": f"patient{n // 2}" for n in range(6)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_labelled(folder, MODELS, FILMS)
    return folder


@pytest.fixture
def results(made, tmp_path):
    """Tables of its own for each test, which may change them."""
    return shutil.copytree(made, tmp_path / "results")


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take most of the time; what was to be drawn, by function."""
    given = {}

    def instead(name):
        return lambda *values: given.setdefault(name, values) and f"data:,{name}"

    for name in ("bland_altman", "reliability_curves", "confusion_matrices"):
        monkeypatch.setattr(labelling, name, instead(name))
    return given


def section(results, films=("film0", "film3")):
    return labelling_section(results, MODELS, TITLES, list(films))


def rendered(found):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(labelling.__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("labelling.html.j2")
    return template.render(labelling=found, models=list(TITLES.values()))


def edit(path, change):
    write_table(path, change(pd.read_parquet(path)))


def drawing(uri):
    """The texts of an SVG drawing, and how many markers and lines it places."""
    svg = base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()
    ElementTree.fromstring(svg)
    return re.findall(r"<!-- (.*?) -->", svg)


def instances(model, pairs, image_id="film0", iou=0.8):
    """Rows of metrics/instances: the level drawn and the level given, "" for none."""
    return pd.DataFrame(
        [
            {
                **{"model": model, "image_id": image_id, "class_name": "lumbar_vertebra"},
                **{"level": drawn, "matched_instance_id": f"{image_id}-{n}", "iou": iou},
                **{"predicted_level": given or None, "iou_unrepaired": 0.2},
                **{"level_unrepaired": given or None, "level_probability": 0.9},
            }
            for n, (drawn, given) in enumerate(pairs)
        ]
    ).astype({"level": "string", "predicted_level": "string", "level_unrepaired": "string"})


def write_instances(results, table):
    matched = levels.of_instances(table)
    films = levels.film_table(matched)
    tables = {"instances": table, "levels": films, "level_summary": levels.summarise(films)}
    for name, known in (tables | {"level_confusion": levels.confusion(matched)}).items():
        write_table(results / f"metrics/{name}.parquet", known)


def test_levels_and_recognition_are_counted(results, undrawn):
    right = [(level, level) for level in LEVELS]
    lower = list(zip(LEVELS[1:], LEVELS, strict=False))
    table = pd.concat(
        [
            instances("unet", right),
            instances("unet", [*right[:4], ("L4", ""), ("L5", "S1")], "film1"),
            instances("unet", lower, "film2"),
            instances("unet", right, "film3", iou=0.49),
            instances("yolact", right),
        ]
    )
    table.loc[table["image_id"] == "film0", "iou_unrepaired"] = 0.5
    write_instances(results, table)
    unet, yolact = section(results)["levels"]
    # Found are 7 + 6 + 6 of 26 vertebrae, with the right level 7 + 4.
    assert unet["right"] == f"{100 * 11 / 19:.1f}"
    assert unet["after"] == f"{100 * 11 / 26:.1f}"
    assert unet["before"] == f"{100 * 7 / 26:.1f}"
    assert unet["shifted"] == "1 of 4"
    assert (yolact["right"], yolact["before"], yolact["after"]) == ("100.0",) * 3
    assert yolact["shifted"] == "0 of 1"
    best = [(row["right_best"], row["after_best"], row["shifted_best"]) for row in (unet, yolact)]
    assert best == [(False,) * 3, (True,) * 3]


def test_best_network_is_the_one_that_recognises_most(results, undrawn):
    assert section(results)["best"] == "U-Net"
    right = [(level, level) for level in LEVELS]
    table = pd.concat([instances("unet", right[1:]), instances("yolact", right)])
    write_instances(results, table)
    assert section(results)["best"] == "YOLACT"


def test_errors_are_those_of_the_summary(results, undrawn):
    summary = pd.read_parquet(results / "metrics/measurement_summary.parquet")
    # Lordosis is that of L1-S1 alone.
    summary = summary[(summary["name"] != "lordosis") | (summary["site"] == "L1-S1")]
    values = summary.set_index(["model", "against", "name", "metric"])["value"]
    found = section(results)["references"]
    assert [one["title"] for one in found] == list(labelling.REFERENCES.values())
    for reference, one in zip(labelling.REFERENCES, found, strict=True):
        for model, row in zip(MODELS, one["rows"], strict=True):
            of = values[model, reference]
            assert row["lordosis"]["value"] == f"{of['lordosis', 'mae']:.2f}°"
            assert row["segmental"]["value"] == f"{of['segmental_angle', 'mae']:.2f}°"
            assert row["slip"]["value"] == f"{of['slip', 'mae']:.2f} mm"
            low, high = of["lordosis", "limit_low"], of["lordosis", "limit_high"]
            assert row["limits"].replace("−", "-") == f"{low:+.1f} to {high:+.1f}°"
            assert row["icc"] == f"{of['lordosis', 'icc']:.2f}"
        errors = [row["lordosis"]["number"] for row in one["rows"]]
        best = [row["lordosis"]["best"] for row in one["rows"]]
        assert best == [error == min(errors) for error in errors]
        assert {"Lordosis", "Slip percent", "Disc height middle"} <= {
            row["name"] for row in one["details"]
        }


def test_disc_heights_and_shares_are_pooled_by_their_numbers(results, undrawn):
    def change(table):
        table = table[(table["model"] != "unet") | (table["metric"] == "share_measurable")]
        rows = pd.DataFrame(
            {
                "name": ["disc_height_anterior", "disc_height_middle", "disc_height_posterior"],
                "value": [1.0, 2.0, np.nan],
                "n": [30, 10, 0],
            }
        ).assign(model="unet", against="annotation", site="all", unit="mm", metric="mae")
        share = table["model"].eq("unet") & table["name"].isin(["lordosis", "slip"])
        other = table["model"].eq("unet") & ~share
        table.loc[table["name"].eq("lordosis") & share, ["value", "n"]] = 1.0, 10
        table.loc[table["name"].eq("slip") & share, ["value", "n"]] = 0.5, 30
        return pd.concat([table[~other], rows.assign(ci_low=0.0, ci_high=3.0)])

    edit(results / "metrics/measurement_summary.parquet", change)
    row = section(results)["references"][0]["rows"][0]
    assert (row["disc"]["value"], row["disc"]["interval"]) == ("1.25 mm", "")
    assert row["measurable"] == "62.5"
    assert (row["lordosis"]["value"], row["limits"], row["icc"]) == ("–", "–", "–")


def test_millimetres_and_pixels_are_not_ranked(results, undrawn):
    def change(table):
        mine = (table["model"] == "unet") & (table["unit"] == "mm")
        return table.assign(unit=table["unit"].mask(mine, "px"))

    edit(results / "metrics/measurement_summary.parquet", change)
    rows = section(results)["references"][0]["rows"]
    assert rows[0]["slip"]["value"].endswith(" px")
    assert rows[1]["slip"]["value"].endswith(" mm")
    assert not any(row["slip"]["best"] or row["disc"]["best"] for row in rows)


def test_drawings_name_networks_and_levels(results):
    found = section(results)
    for name in ("agreement", "reliability", "confusion"):
        texts = drawing(found[name])
        assert {"U-Net", "YOLACT"} <= set(texts), name
    texts = drawing(found["confusion"])
    assert texts.count("T12") == 4
    assert texts.count("not found") == 2
    # The same tables give the same bytes.
    assert found["agreement"] == section(results)["agreement"]


def test_limits_of_agreement_are_drawn_where_there_are_three_films():
    table = pd.DataFrame(
        {"reference": [40.0, 50.0, 60.0], "value": [41.0, 53.0, 62.0], "status": "measured"}
    )
    texts = drawing(bland_altman({"truth": {"U-Net": table}}))
    # Differences 1, 3, 2: bias 2, standard deviation 1.
    assert {"+4.0", "+0.0"} <= set(texts)
    few = drawing(bland_altman({"truth": {"U-Net": table.head(2)}}))
    assert not {"+4.0", "+0.0"} & set(few)


def test_confusion_holds_every_vertebra(results, undrawn):
    pairs = [("L4", "L4"), ("L5", "S1"), ("L3", "")]
    table = pd.concat(
        [instances("unet", pairs), instances("unet", [("S1", "S1")], "film1", iou=0.1)]
    )
    write_instances(results, table)
    section(results)
    counts, rows, columns = undrawn["confusion_matrices"]
    assert rows == ["L3", "L4", "L5", "S1"]
    assert columns == [*rows, "no level", "not found"]
    cells = [(0, 4), (1, 1), (2, 3), (3, 5)]
    assert sorted(zip(*map(list, np.nonzero(counts["U-Net"])), strict=True)) == cells
    assert counts["U-Net"].sum() == 4
    assert counts["YOLACT"].sum() == 0


def test_overlays_are_embedded_small_enough_and_named(results, undrawn):
    films = section(results)["films"]
    assert [film["image_id"] for film in films] == ["film0", "film3"]
    data = base64.b64decode(films[0]["image"].split(",")[1])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), -1).shape[0] == OVERLAY_ROWS
    assert films[0]["path"] == "measurements/overlays/unet/film0.png"
    assert len(section(results, list(FILMS))["films"]) == labelling.MAX_OVERLAYS


def test_without_overlays_films_are_told_in_words(results, undrawn):
    for path in (results / "measurements/overlays/unet").iterdir():
        path.unlink()
    page = rendered(section(results))
    assert page.count("No overlay was drawn of this film.") == 2
    assert "data:image/jpeg" not in page


def test_broken_overlay_and_missing_table_are_one_sentence(results, undrawn):
    path = results / "measurements/overlays/unet/film0.png"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"overlays/unet/film0.png is damaged: remove it"):
        section(results)
    (results / "metrics/reliability.parquet").unlink()
    with pytest.raises(InputError, match=r"metrics/reliability.parquet is missing: run"):
        section(results)


def words(rows, chain=(("L4", 0.99), ("L5", 0.7), ("S1", 0.95)), flags=""):
    columns = ["name", "site", "value", "unit", "confidence", "status", "reason"]
    bodies = pd.DataFrame(chain, columns=["level", "level_probability"]).assign(
        anterior="left", anterior_probability=0.98, flags=flags
    )
    return film_words(pd.DataFrame(rows, columns=columns), bodies)


def test_words_of_a_film():
    found = words(
        [
            ("slip", "L4/L5", -4.2, "mm", 0.4, "uncertain", "the corner is not clear"),
            ("slip", "L5/S1", 6.2, "mm", 0.93, "measured", ""),
            ("slip_grade", "L5/S1", 1.0, "1", 0.9, "measured", ""),
            ("sacral_slope", "S1", 43.21, "deg", 0.93, "measured", ""),
            ("lordosis", "L1-S1", np.nan, "deg", 0.0, "not_measurable", "L1 was not found"),
            ("lordosis", "L1-L5", np.nan, "deg", 0.0, "not_measurable", "L1 was not found"),
            ("genant_grade", "L4", 1.0, "1", 0.8, "measured", ""),
            ("genant_grade", "L5", 0.0, "1", 0.8, "measured", ""),
        ],
        flags="possible_l6 gap_in_chain",
    )
    assert found == [
        "L4 to S1, least certain L5 (70%); the patient faces left (98%). "
        "Flags: possible L6, gap in chain.",
        "Sacral slope S1 43.2° (93%).",
        "Slips: L4/L5 4.2 mm backward (uncertain, 40%), L5/S1 6.2 mm forward, Meyerding I (93%).",
        "Loss of height after Genant: L4 grade 1 (80%).",
        "Not measurable: 2 values: L1 was not found (2).",
    ]


def test_slips_in_pixels_are_told_by_their_share_of_the_depth():
    row = ("slip", "L4/L5", 40.0, "px", 0.9, "measured", "")
    share = ("slip_percent", "L4/L5", 4.0, "%", 0.9, "measured", "")
    assert words([row, share])[1] == "No slip of 8% or more at the one disc measured."
    share = ("slip_percent", "L4/L5", 12.0, "%", 0.9, "measured", "")
    assert words([row, share])[1] == "Slips: L4/L5 40 px forward (90%)."


def test_films_without_vertebrae_or_levels():
    assert words([], chain=()) == ["The network found no vertebra on this film."]
    assert words([], chain=((None, 0.9), (None, 0.8)))[0].startswith("2 bodies, none with a level")
    assert "and 1 body without a level" in words([], chain=(("L5", 0.9), (None, 0.8)))[0]


def test_changes_are_listed_and_counted(results, undrawn):
    path = results / "measurements/changes/unet.parquet"
    rows = pd.read_parquet(path).head(4)
    rows["status"] = ["changed", "within_error", "not_comparable", "changed"]
    rows.loc[0, ["name", "site", "unit", "value_from", "value_to", "change"]] = [
        *("lordosis", "L1-S1", "deg", 40.0, 52.5, 12.5),
    ]
    rows.loc[3, "consecutive"] = False
    write_table(path, rows)
    found = section(results)["changes"][0]
    assert (found["patients"], found["compared"], found["n_rows"]) == (1, 3, 2)
    assert found["counts"] == {"changed": 1, "within_error": 1, "not_comparable": 1}
    row = next(row for row in found["rows"] if row["what"] == "Lordosis L1–S1")
    assert (row["before"], row["after"], row["change"]) == ("40.0°", "52.5°", "+12.5°")
    assert row["days"] == "0 to 180"
    page = rendered(section(results))
    assert "1 changed by more than the smallest detectable change" in re.sub(r"\s+", " ", page)


def test_what_is_missing_gets_a_sentence_and_no_table(results, undrawn):
    for path in (results / "metrics").iterdir():
        edit(path, lambda table: table.iloc[:0])
    for name in ("changes/unet", "changes/annotation", "unet", "vertebrae/unet"):
        edit(results / f"measurements/{name}.parquet", lambda table: table.iloc[:0])
    found = section(results)
    page = re.sub(r"\s+", " ", rendered(found))
    assert "<table" not in page
    assert not [found[name] for name in ("agreement", "reliability", "confusion") if found[name]]
    assert "The annotators named no level on the test films" in page
    assert "There is no reference with measurements" in page
    assert "no patient has films of several days" in page
    assert "The network found no vertebra on this film." in page


def test_films_of_patients_are_told_apart_from_synthetic_ones(results, undrawn):
    for name in ("measurement_summary", "measurements", "reliability"):
        edit(results / f"metrics/{name}.parquet", lambda table: table[table["against"] != "truth"])
    edit(
        results / "measurements/unet.parquet",
        lambda table: table.assign(
            unit=table["unit"].mask((table["image_id"] == "film0") & (table["unit"] == "mm"), "px")
        ),
    )
    found = section(results)
    assert len(found["references"]) == 1
    assert any("true measurements of these films are not known" in note for note in found["notes"])
    assert any("spacing of one test film is not known" in note for note in found["notes"])
    assert list(undrawn["bland_altman"][0]) == ["annotation"]


def test_a_network_without_predictions_has_its_row(results, undrawn):
    for path in (results / "metrics").iterdir():
        edit(path, lambda table: table[table["model"] == "unet"])
    found = section(results)
    assert found["levels"][1]["right"] == "–"
    assert found["references"][0]["rows"][1]["lordosis"]["value"] == "–"
    assert "YOLACT" in rendered(found)


def test_text_from_outside_is_escaped(results, undrawn):
    edit(
        results / "measurements/unet.parquet",
        lambda table: table.assign(value=np.nan, reason="<b>no</b>"),
    )
    assert "&lt;b&gt;no&lt;/b&gt;" in rendered(section(results))
