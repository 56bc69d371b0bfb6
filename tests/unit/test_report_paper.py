"""What a run offers a paper: tables, methods, checklists; from a small made-up results folder."""

import re
import shutil
import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from compared_results import FAMILIES, write_compared
from hypothesis import given
from hypothesis import strategies as st
from replicated_results import replicates, write_replicates

from lumbarflow import networks
from lumbarflow.annotate.agreement import agreement_table
from lumbarflow.config import resolve
from lumbarflow.deidentify.audit import table as audit_table
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError
from lumbarflow.evaluate.class_summary import CLASS_SUMMARY
from lumbarflow.evaluate.tables import METRICS
from lumbarflow.files import write_json, write_table
from lumbarflow.report.paper import FILES, paper_texts, read_run, write_paper
from lumbarflow.report.paper_checklist import CLAIM, OPEN, TRIPOD_AI, answers
from lumbarflow.report.paper_tables import Cell, Table, latex, latex_text, markdown, markdown_text

ROOT = Path(__file__).resolve().parents[2]
TITLES = {
    **{"unet": "U-Net", "mask_rcnn": "Mask R-CNN", "pspnet": "PSPNet"},
    **{"deeplabv3": "DeepLabV3", "yolact": "YOLACT"},
}
MODELS = list(FAMILIES)
CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]
FILMS = 60
TEST = 24


def configuration(**keys):
    schema = ROOT / "workflow/schemas/config.schema.yaml"
    return resolve(keys, schema, ROOT / "config/presets", networks.available())


def of_test_films():
    """The patient of each test film."""
    return {f"img-{n:02d}": f"pat-{n // 2:02d}" for n in range(FILMS - TEST, FILMS)}


def write_results(folder):
    """Sixty films of thirty patients, the last twenty-four of twelve of them for testing."""
    ids = [f"img-{n:02d}" for n in range(FILMS)]
    patients = [f"pat-{n // 2:02d}" for n in range(FILMS)]
    manifest = pd.DataFrame(
        {
            "image_id": [*ids, "img-98", "img-99"],
            "patient_id": [*patients, "pat-98", None],
            "study_id": [f"std-{n}" for n in range(FILMS + 2)],
            "rows": 2500,
            "columns": 1200,
            "pixel_spacing_mm": 0.15,
            "status": ["accepted"] * FILMS + ["rejected"] * 2,
            "reason": [None] * FILMS + ["not_lateral", "transfer_syntax_not_readable: HTJ2K"],
            "modality": "DX",
            "patient_sex": ["F", "F", "M", "M"] * 15 + ["M", "M"],
            "patient_age_years": 61,
        }
    )
    write_table(folder / "images/manifest.parquet", manifest)
    rules = Deidentifier(Pseudonyms(b"a key for these tests only"))
    accepted = {"status": "accepted", "blanked_texts": 2, "audit": [["PatientName", "removed", 7]]}
    audit = audit_table([accepted], rules, {"values": 1234, "findings": 0})
    write_table(folder / "images/deidentification.parquet", audit)
    subsets = ["train"] * 30 + ["val"] * 6 + ["test"] * TEST
    splits = pd.DataFrame({"image_id": ids, "patient_id": patients, "subset": subsets})
    write_table(folder / "splits.parquet", splits)
    findings = {"image_id": ["img-01"], "check": ["overlap"], "severity": ["warning"]}
    write_table(folder / "annotations/qc.parquet", pd.DataFrame(findings))
    write_table(folder / "annotations/agreement.parquet", agreement_table([], {}))
    drawn = {"annotator": "somebody", "origin": "drawn"}
    for n, image_id in enumerate(ids):
        bodies = [{"class_name": CLASSES[0], "level": f"L{k}"} | drawn for k in range(1, 6)]
        screws = [{"class_name": "screw", "level": None} | drawn] * (n % 2)
        record = {"image_id": image_id, "structures": bodies + screws}
        write_json(folder / f"annotations/records/{image_id}.json", record)
    rng = np.random.default_rng(3)
    scores = [
        {"model": model, "metric": metric, "mean": mean, "ci_low": mean - 0.01, "n": TEST}
        | {"ci_high": mean + 0.01}
        for model in MODELS
        for metric in METRICS
        for mean in [rng.uniform(0.8, 0.95)]
    ]
    write_table(folder / "metrics/summary.parquet", pd.DataFrame(scores))
    kinds = [("dice", "fraction"), ("surface_dice", "mm"), ("hausdorff_95", "mm")]
    rows = [
        (model, name, metric, unit, 0.5 + place / 10, 0.45, 0.95, TEST - place)
        for place, model in enumerate(MODELS)
        for name in [*CLASSES, "foreground"]
        for metric, unit in kinds + [("recognition_rate", "fraction")] * (name == "foreground")
    ]
    table = pd.DataFrame(rows, columns=list(CLASS_SUMMARY)).astype(CLASS_SUMMARY)
    write_table(folder / "metrics/class_summary.parquet", table)
    for model in MODELS:
        semantic = FAMILIES[model] == "semantic"
        settings = {
            **{"backbone": "resnet50", "size": [2528, 1216], "batch_size": 2, "weights": None},
            **{"learning_rate": 0.0005, "weight_decay": 0.01, "moving_average": 0.99},
            "classes": CLASSES,
            "augmentation": {"rotation_degrees": 8, "scale": 0.12, "noise": 0},
        }
        record = {
            **{"model": model, "parameters": 32_500_000, "best_epoch": 7, "epochs": 9},
            **{"best_validation_dice": 0.9123, "iterations": 4000, "seconds": 5400.0},
            **{"device": "cuda", "seed": 1, "settings": settings, "versions": {"torch": "2.8.0"}},
            "thresholds": {"probability_threshold": [0.45] * 5}
            if semantic
            else {"score_threshold": 0.35},
        }
        write_json(folder / f"models/{model}/run.json", record)
    write_compared(folder, MODELS, of_test_films())


def made(folder, models=MODELS, titles=TITLES, config=None):
    return read_run(folder, models, titles, config or configuration(), {"pandas": "3.1.0"})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    write_results(folder)
    return folder


@pytest.fixture
def copy(results, tmp_path):
    """The results, to be changed."""
    return shutil.copytree(results, tmp_path / "copy")


@pytest.fixture(scope="module")
def texts(results):
    return paper_texts(made(results))


def columns_of(tex):
    """The number of cells in each row of a LaTeX table."""
    rows = [line for line in tex.splitlines() if line.endswith(("\\\\", "\\\\*"))]
    rows = [line for line in rows if not line.startswith("\\caption")]
    return {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows}


def test_all_files_are_written(results, tmp_path):
    write_paper(results, MODELS, TITLES, configuration(), {"pandas": "3.1.0"}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_the_rule_knows_the_files():
    rules = (ROOT / "workflow/rules/common.smk").read_text()
    listed = re.search(r"^PAPER = \[(.*?)\]", rules, re.MULTILINE | re.DOTALL).group(1)
    assert tuple(re.findall(r'"([^"]+)"', listed)) == FILES


def test_special_characters_of_latex_are_escaped():
    text = latex_text(r"a_b & 50% of $x^2 {#1} ~ \n <1> |2|")
    assert text == (
        r"a\_b \& 50\% of \$x\textasciicircum{}2 \{\#1\} \textasciitilde{} "
        r"\textbackslash{}n $<$1$>$ $|$2$|$"
    )
    assert latex_text("[1] − 2–3") == "{[}1{]} $-$ 2--3"


@given(st.text(alphabet=string.printable, max_size=60))
def test_no_character_keeps_a_meaning_in_latex(text):
    told = latex_text(text)
    # Without what escaping makes, nothing is left that LaTeX would take for a command.
    for made_of in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}"):
        told = told.replace(made_of, "")
    told = re.sub(r"\\[&%$#_{}]|\$[<>|]\$|\{\[\}|\{\]\}", "", told)
    assert not set(told) & set("\\&%$#_{}~^[]<>|")
    assert "\n" not in told


@given(st.text(alphabet=string.printable, max_size=40))
def test_a_cell_of_markdown_stays_one(text):
    row = markdown(Table("tab:x", "c", ["a", "b"], 1, [[[Cell(text), Cell("1")]]])).splitlines()[-1]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert markdown_text(text).count("\\|") == text.count("|")


def test_titles_of_networks_are_escaped_everywhere(results):
    titles = TITLES | {"unet": "U_Net & 50%"}
    found = paper_texts(made(results, titles=titles))
    for name in ("table1", "table2", "comparisons"):
        assert r"U\_Net \& 50\%" in found[f"{name}.tex"]
        assert "U_Net" not in found[f"{name}.tex"]
        assert r"U\_Net & 50%" in found[f"{name}.md"]
    assert r"U\_Net" in found["methods.md"] and "U_Net" not in found["methods.md"]


def test_table_1_has_the_scores_with_their_intervals(results, texts):
    summary = pd.read_parquet(results / "metrics/summary.parquet").set_index(["metric", "model"])
    row = 100 * summary.loc["mean_iou", "yolact"][["mean", "ci_low", "ci_high"]].astype(float)
    value, low, high = (f"{number:.2f}" for number in row)
    line = next(line for line in texts["table1.md"].splitlines() if "Mean IoU" in line)
    assert f"{low}–{high}" in line.split("|")[-2]
    assert value in line.split("|")[-2]
    assert texts["table1.md"].splitlines()[2] == (
        "| Metric | U-Net | Mask R-CNN | PSPNet | DeepLabV3 | YOLACT |"
    )
    tex = texts["table1.tex"]
    assert f"({low}--{high})" in tex
    assert tex.count("\\textbf{") == 4
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert tex.count(rule) == 1
    assert "24 test films of 12 patients" in tex


@pytest.mark.parametrize("name, cells", [("table1", {6}), ("table2", {8}), ("comparisons", {7, 9})])
def test_rows_of_latex_have_as_many_cells_as_columns(texts, name, cells):
    tex = texts[f"{name}.tex"]
    assert columns_of(tex) == cells
    for kind in ("table", "tabular", "longtable"):
        assert tex.count(f"\\begin{{{kind}}}") == tex.count(f"\\end{{{kind}}}")
    assert tex.count("\\begingroup") == tex.count("\\endgroup")
    assert len(re.findall(r"(?<!\\)\{", tex)) == len(re.findall(r"(?<!\\)\}", tex))


def test_table_2_marks_the_least_distance_and_the_highest_overlap(texts):
    lines = texts["table2.md"].splitlines()
    dice = next(line for line in lines if "Dice, %" in line and "Surface" not in line).split("|")
    far = next(line for line in lines if "Hausdorff" in line).split("|")
    assert dice[1].strip() == "Lumbar vertebra" and dice[3].strip() == "20–24"
    assert ["**" in cell for cell in dice[4:9]] == [False] * 4 + [True]
    assert ["**" in cell for cell in far[4:9]] == [True] + [False] * 4
    assert "90.00" in dice[8] and "0.50" in far[4]
    assert "Hausdorff distance, 95%, mm" in far[2]


def test_comparisons_are_those_of_the_table(results, texts):
    compared = pd.read_parquet(results / "metrics/comparisons.parquet")
    chosen = compared[(compared["stratum"] == "all") & (compared["metric"] == "mean_iou")]
    row = chosen[(chosen["a"] == "unet") & (chosen["b"] == "yolact")].iloc[0]
    told = f"{100 * row['difference']:+.2f}".replace("-", "−")
    line = next(line for line in texts["comparisons.md"].splitlines() if "U-Net − YOLACT" in line)
    assert f"| {told} |" in line
    assert texts["comparisons.md"].count("Semantic − Instance") == 6
    assert "Degeneration" in texts["comparisons.md"]


def test_methods_tell_the_numbers_of_the_run(texts):
    text = texts["methods.md"]
    for part in (
        "54 simulated patients (seed 2022)",
        "Of 62 films, 60 of 30 patients (60 studies) were accepted and 2 rejected "
        "(not lateral 1, transfer syntax not readable 1); 60 films of 30 patients have",
        "330 structures outlined as polygons by 1 simulated annotator",
        "lumbar vertebra 300, screw 30",
        "30 training films of 15 patients, 6 validation films of 3 patients and 24 test films of "
        "12 patients; every patient is in one subset only",
        "U-Net (Ronneberger et al. 2015, segmentation-models-pytorch, ResNet-50)",
        "canvas of 2528 × 1216",
        "rotation by up to 8° either way, scaling by up to 12%.",
        "first 8% of the steps",
        "Mask R-CNN score 0.35",
        "tolerance of 1 mm (",
        "2,000 samples, seed 1",
        "torch 2.8.0",
        "pandas 3.1.0",
        "It took 7 h 30 min in all (CUDA)",
    ):
        assert part in text, part
    assert (
        "| Mask R-CNN | ResNet-50 | 32.50 | 2528 × 1216 | 2 | 4,000 | 0.0005 | 7 of 9 | 0.912 |"
        in (text)
    )


def test_methods_say_nothing_of_what_was_not_done(texts):
    for word in (" not done", " no ", " none", "cross-validation", "Noise", "several annotators"):
        assert word not in texts["methods.md"], word


def test_nobody_is_named(texts):
    assert not [name for name, text in texts.items() if "somebody" in text or "pat-" in text]


def test_every_item_has_an_answer_or_is_left_to_the_authors(results, texts):
    known = answers(made(results))
    topics = {topic for _, _, topic in (*CLAIM, *TRIPOD_AI) if topic}
    assert topics == set(known)
    lines = [line for line in texts["checklist.md"].splitlines() if re.match(r"\| \d", line)]
    assert len(lines) == len(CLAIM) + len(TRIPOD_AI)
    assert all(line.count("|") == 4 and line.split("|")[3].strip() for line in lines)
    by_number = {line.split("|")[1].strip(): line for line in lines[: len(CLAIM)]}
    assert OPEN in by_number["44"] and OPEN in by_number["18"]
    assert "every patient is in one subset only" in by_number["20"]
    assert "1,234 values" in by_number["11"]
    assert [int(number) for number, _, _ in CLAIM] == list(range(1, 45))
    assert len({number for number, _, _ in TRIPOD_AI}) == len(TRIPOD_AI)


def test_patients_of_each_subset_are_described(results):
    told = answers(made(results))["patients"]
    assert "Training: 30 films of 15 patients, 8 female, 7 male, age 61 years" in told
    assert "Implants are outlined on 30 of 60 annotated films." in told


def test_a_single_network_without_class_table(copy):
    write_compared(copy, ["unet"], of_test_films())
    (copy / "metrics/class_summary.parquet").unlink()
    found = paper_texts(made(copy, ["unet"]))
    assert found["table2.md"] == "There are no scores by class.\n"
    assert found["table2.tex"].startswith("% ")
    assert "nothing to be compared with" in found["comparisons.md"]
    assert "\\begin" not in found["comparisons.tex"]
    assert "\\textbf" not in found["table1.tex"] and columns_of(found["table1.tex"]) == {2}
    assert "Wilcoxon" not in found["methods.md"]
    assert "instance segmentation" not in found["methods.md"]
    assert "Boundaries" not in found["methods.md"]
    assert OPEN in next(line for line in found["checklist.md"].splitlines() if "| 38 |" in line)


def test_an_empty_class_table_and_unknown_values(copy):
    path = copy / "metrics/class_summary.parquet"
    write_table(path, pd.read_parquet(path).iloc[:0])
    manifest = pd.read_parquet(copy / "images/manifest.parquet")
    names = ["patient_sex", "patient_age_years", "modality", "pixel_spacing_mm"]
    write_table(copy / "images/manifest.parquet", manifest.assign(**dict.fromkeys(names)))
    found = paper_texts(made(copy, ["yolact", "unet"]))
    assert found["table2.md"] == "There are no scores by class.\n"
    assert "spacing" not in found["methods.md"] and "modality" not in found["methods.md"]
    assert "The pixel spacing of 60 annotated films is not known" in found["checklist.md"]
    assert not re.search(r"\bnan\b|<NA>|None\b(?!:)", " ".join(found.values()))


def test_a_single_test_film_has_no_intervals(copy):
    splits = pd.read_parquet(copy / "splits.parquet")
    others = (splits["subset"] == "test") & (splits["image_id"] != "img-59")
    write_table(copy / "splits.parquet", splits[~others])
    found = paper_texts(made(copy))
    assert "1 test film of 1 patient, in percent." in found["table1.md"]
    for name in ("table1.md", "table2.md"):
        assert "there are no intervals" in found[name]
        assert not re.search(r"\(\d+\.\d\d–", found[name])
    assert "bootstrap" not in found["methods.md"]
    assert "95% interval" not in found["checklist.md"].split("| 37 |")[1].splitlines()[0]


def test_seeds_and_folds_are_told_where_there_are_any(copy):
    write_replicates(copy, replicates(["unet", "yolact"]), ["unet", "yolact"])
    asked = configuration(training={"seeds": [2, 3], "folds": 3})
    found = paper_texts(made(copy, ["unet", "yolact"], config=asked))
    assert "tested for 1 pair of networks and" in found["methods.md"]
    assert "with 3 seeds on the same films and in 3-fold cross-validation" in found["methods.md"]


def test_thresholds_that_are_set_are_not_said_to_be_chosen(results):
    config = configuration(predict={"score_threshold": 0.3})
    text = paper_texts(made(results, config=config))["methods.md"]
    assert "Thresholds were set: Mask R-CNN score 0.3; YOLACT score 0.3." in text
    assert "score 0.35" not in text
    assert "validation films: U-Net probability lumbar vertebra 0.45, sacral" in text


def test_merged_drawings_count_each_annotator(copy):
    merged = {"class_name": "lumbar_vertebra", "level": "L1", "annotator": "all"}
    drawings = [{"annotator": name, "structures": []} for name in ("one", "other")]
    record = {"image_id": "img-59", "structures": [merged], "drawings": drawings}
    write_json(copy / "annotations/records/img-59.json", record)
    run = made(copy)
    assert set(run.annotators["annotator"]) == {"somebody", "one", "other"}
    assert (
        "127 structures on 24 test films, drawn by 3 annotators" in answers(run)["test_reference"]
    )


def test_agreement_is_told_of_matched_structures(copy):
    agreement = pd.DataFrame(
        {
            "image_id": ["img-01", "img-01", "img-02"],
            "status": ["matched", "matched", "missing"],
            "dice": [0.9, 0.96, None],
            "corner_distance_mm": [1.5, None, None],
        }
    )
    write_table(copy / "annotations/agreement.parquet", agreement)
    rule = configuration(annotations={"annotators": {"rule": "last"}})
    assert answers(made(copy, config=rule))["variability"] == (
        "On 2 films drawn on by several annotators, where the drawing of the annotator named last "
        "counts, the Dice coefficient of 2 pairs of outlines of the same structure is 0.930 "
        "(0.900 to 0.960), and the distance of vertebral corners 1.5 mm."
    )


def test_an_archive_and_several_annotation_files_are_described(results):
    config = configuration(
        archive={"embedded": False, "study_dates": "20150101-20191231", "retrieve_by": "move"},
        annotations={"via": ["a.json", "b.json"]},
        splits={"file": "mine.csv"},
    )
    text = paper_texts(made(results, config=config))["methods.md"]
    assert (
        "from a DICOM archive by C-MOVE, asking for the modalities DX and CR and the study" in text
    )
    assert "by 1 annotator (2 annotation files" in text
    assert "divided by patient as listed in a file" in text
    assert "imulated" not in text and "mine.csv" not in text and "a.json" not in text


def test_what_is_missing_is_told_in_a_sentence(copy):
    with pytest.raises(InputError, match="The network segformer has no scores"):
        made(copy, ["unet", "segformer"])
    (copy / "models/unet/run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json is not JSON"):
        made(copy, ["unet"])
    (copy / "models/unet/run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json is missing"):
        made(copy, ["unet"])


def test_long_tables_go_over_pages_and_short_ones_do_not():
    def rows(n):
        return latex(Table("tab:x", "c", ["a", "b"], 1, [[[Cell("1"), Cell("2", "1–3")]] * n]))

    assert "longtable" in rows(25) and "longtable" not in rows(24)
    assert columns_of(rows(3)) == {2}
