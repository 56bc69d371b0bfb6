"""Reporting checklists, filled in as far as a run can tell.

CLAIM: Checklist for Artificial Intelligence in Medical Imaging, 2024 update (Tejani et al., Radiol
Artif Intell 2024;6(4):e240300). TRIPOD+AI: Collins et al., BMJ 2024;385:e078378. Items have the
numbers of these papers; their contents are told in other words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from ..evaluate.failures import KINDS
from ..evaluate.statistics import POWER
from ..evaluate.tables import TABLE1_ROWS
from . import paper_methods as told
from .comparison import KIND_TITLES, METRIC, SCORES
from .paper_methods import SUBSETS, Run, count, listed, words
from .paper_tables import markdown_text

OPEN = "to be answered by the authors"

#: Number, content in our words, and the topic of :func:`answers` that says something on it.
CLAIM = (
    ("1", "title names the method", None),
    ("2", "structured abstract", None),
    ("3", "background and intended use", None),
    ("4", "aims and hypotheses", None),
    ("5", "prospective or retrospective", None),
    ("6", "goal of the study", None),
    ("7", "where the data come from", "source"),
    ("8", "which films were taken and which not", "flow"),
    ("9", "preprocessing", "preprocessing"),
    ("10", "how data were chosen from all", "selected"),
    ("11", "de-identification", "deidentification"),
    ("12", "missing data", "missing"),
    ("13", "how films were made", "properties"),
    ("14", "how the reference standard was made", "reference"),
    ("15", "why this reference standard", None),
    ("16", "who annotated", "annotators"),
    ("17", "annotation of the test films", "test_reference"),
    ("18", "agreement between and within annotators", "variability"),
    ("19", "how films were assigned to subsets", "division"),
    ("20", "what the subsets do not share", "disjoint"),
    ("21", "intended size of the test subset", "sample"),
    ("22", "the models", "architectures"),
    ("23", "software with versions", "software"),
    ("24", "initial weights", "beginning"),
    ("25", "training", "training"),
    ("26", "how the final weights were chosen", "selection"),
    ("27", "ensembles", "ensembles"),
    ("28", "metrics", "evaluation"),
    ("29", "uncertainty and tests", "statistics"),
    ("30", "robustness", "robustness"),
    ("31", "explainability", None),
    ("32", "testing on internal data", "internal"),
    ("33", "testing on external data", None),
    ("34", "registration of a trial", None),
    ("35", "numbers taken and left out", "flow"),
    ("36", "patients of each subset", "patients"),
    ("37", "performance with uncertainty", "performance"),
    ("38", "precision of the estimates", "precision"),
    ("39", "analysis of failures", "failures"),
    ("40", "limitations", None),
    ("41", "implications for practice", None),
    ("42", "full protocol", "protocol"),
    ("43", "availability of software, model and data", "availability"),
    ("44", "funding", None),
)
TRIPOD_AI = (
    ("1", "title names model, population and outcome", None),
    ("2", "abstract", None),
    ("3a", "healthcare context and rationale", None),
    ("3b", "target population, purpose and users", None),
    ("3c", "known health inequalities", None),
    ("4", "objectives", None),
    ("5a", "sources of the data", "source"),
    ("5b", "dates of the data", "dates"),
    ("6a", "setting and centres", None),
    ("6b", "who was eligible", "flow"),
    ("6c", "treatments", "treatments"),
    ("7", "preprocessing and checks of quality", "preparation"),
    ("8a", "what is predicted, and its reference", "reference"),
    ("8b", "who judged the reference", "annotators"),
    ("8c", "blinding of the reference", None),
    ("9a", "choice of what is put in", "input"),
    ("9b", "definition of what is put in", "input"),
    ("9c", "who judged what is put in", None),
    ("10", "sample size", "sample"),
    ("11", "missing data", "missing"),
    ("12a", "which data for what", "division"),
    ("12b", "how the input is handled", "preprocessing"),
    ("12c", "type of model, building and internal validation", "building"),
    ("12d", "differences between clusters such as hospitals", None),
    ("12e", "measures of performance and comparison", "measures"),
    ("12f", "updating of the model", None),
    ("12g", "how predictions are made", "predictions"),
    ("13", "imbalance of classes", None),
    ("14", "fairness", None),
    ("15", "output and thresholds", "output"),
    ("16", "development against evaluation data", "alike"),
    ("17", "ethical approval", None),
    ("18a", "funding", None),
    ("18b", "conflicts of interest", None),
    ("18c", "protocol", "protocol"),
    ("18d", "registration", None),
    ("18e", "availability of the data", None),
    ("18f", "availability of the code", None),
    ("19", "involvement of patients and public", None),
    ("20a", "flow of participants", "flow"),
    ("20b", "characteristics of participants", "patients"),
    ("20c", "development and evaluation data compared", "patients"),
    ("21", "numbers in each analysis", "numbers"),
    ("22", "the full model", "model"),
    ("23a", "performance with intervals, subgroups included", "performance"),
    ("23b", "differences between clusters", None),
    ("24", "results of updating", None),
    ("25", "interpretation", None),
    ("26", "limitations", None),
    ("27a", "poor or missing input in use", None),
    ("27b", "what users have to do and know", None),
    ("27c", "next steps", None),
)


def checklist(run: Run) -> str:
    """Both checklists in Markdown, a table each."""
    known = answers(run)
    text = (
        "# Reporting checklists\n\nItem numbers are those of the published checklists; their "
        "contents are told in other words. The answers come from the run. Complete them, and take "
        "the wording of the items from the publications.\n"
    )
    for title, items in (
        ("CLAIM, 2024 update (Tejani et al., Radiol Artif Intell 2024;6(4):e240300)", CLAIM),
        ("TRIPOD+AI (Collins et al., BMJ 2024;385:e078378)", TRIPOD_AI),
    ):
        answered = sum(bool(topic and known[topic]) for _, _, topic in items)
        text += f"\n## {title}\n\n"
        text += f"Answered from the run, at least in part: {answered} of {len(items)} items.\n\n"
        text += "| item | about | answer |\n| --- | --- | --- |\n"
        for number, about, topic in items:
            answer = known[topic] if topic else ""
            text += f"| {number} | {about} | {markdown_text(answer or OPEN)} |\n"
    return text


def answers(run: Run) -> dict[str, str]:
    """What the run has to say, by topic; "" where nothing."""
    made: Mapping[str, Callable[[Run], str] | tuple[Callable[[Run], str], ...]] = {
        "source": told.source,
        "flow": told.flow,
        "preprocessing": told.preprocessing,
        "selected": _selected,
        "deidentification": (told.deidentification, _statement),
        "missing": _missing,
        "properties": told.properties,
        "reference": (told.reference, told.quality),
        "annotators": _annotators,
        "test_reference": _test_reference,
        "variability": told.variability,
        "division": told.division,
        "disjoint": _disjoint,
        "sample": _sample,
        "architectures": told.architectures,
        "software": told.software,
        "beginning": told.beginning,
        "training": (told.losses, told.schedule, told.augmentation, _settings),
        "selection": (told.selection, told.thresholds),
        "ensembles": _ensembles,
        "evaluation": told.evaluation,
        "statistics": (told.intervals, told.tests),
        "robustness": (_strata, told.replicates),
        "internal": _internal,
        "patients": _patients,
        "performance": (_performance, _strata),
        "precision": _precision,
        "failures": _failures,
        "protocol": _protocol,
        "availability": _availability,
        "dates": _dates,
        "treatments": _treatments,
        "preparation": (told.preprocessing, told.quality),
        "input": _input,
        "building": (told.architectures, told.schedule, told.selection, told.replicates),
        "measures": (told.evaluation, told.intervals, told.tests),
        "predictions": _model,
        "output": (told.architectures, told.thresholds),
        "alike": _alike,
        "numbers": _numbers,
        "model": _model,
    }
    return {
        topic: " ".join(
            sentence
            for function in (functions if isinstance(functions, tuple) else (functions,))
            if (sentence := function(run))
        )
        for topic, functions in made.items()
    }


def _and_authors(what: str) -> str:
    return f"{what[:1].upper()}{what[1:]}: {OPEN}."


def _selected(run: Run) -> str:
    chosen = f"All accepted films with a reference annotation were used: {len(run.splits):,} of "
    chosen += f"{len(run.accepted):,}."
    return f"{chosen} {_and_authors('how films were chosen for annotation')}"


def _statement(run: Run) -> str:
    return " ".join(run.audit.loc[run.audit["part"] == "statement", "item"])


def _missing(run: Run) -> str:
    films = run.annotated
    sentences = ["Means by class leave out films that neither show nor predict the class."]
    left = len(run.accepted) - len(run.splits)
    if left:
        films_left = count(left, "accepted film")
        sentences.insert(0, f"{films_left} without a reference annotation took no part.")
    spacing = films.get("pixel_spacing_mm", pd.Series(np.nan, films.index))
    unknown = int(spacing.isna().sum())
    if unknown:
        sentences.append(
            f"The pixel spacing of {count(unknown, 'annotated film')} is not known: lengths on "
            "these are in pixels and summarised apart."
        )
    return " ".join(sentences)


def _annotators(run: Run) -> str:
    people = count(run.annotators["annotator"].nunique(), "annotator")
    if run.synthetic and not run.config["annotations"]["via"]:
        return f"{people}, simulated."
    return f"{people}. {_and_authors('their qualification and preparation')}"


def _test_reference(run: Run) -> str:
    test = run.splits.loc[run.splits["subset"] == "test", "image_id"]
    structures = run.structures[run.structures["image_id"].isin(test)]
    people = run.annotators.loc[run.annotators["image_id"].isin(test), "annotator"].nunique()
    return (
        f"{count(len(structures), 'structure')} on {count(len(test), 'test film')}, drawn by "
        f"{count(people, 'annotator')} in the same way as on the other films."
    )


def _disjoint(run: Run) -> str:
    return f"Division by patient: {told.disjoint(run)}."


def _sample(run: Run) -> str:
    films, patients = run.size("test")
    parts = [f"{count(films, 'test film')} of {count(patients, 'patient')}."]
    compared = run.compared
    chosen = (compared["metric"] == METRIC) & (compared["stratum"] == "all")
    found = 100 * compared.loc[chosen & (compared["kind"] == "pair"), "detectable"].dropna()
    if len(found):
        low, high = f"{found.min():.2f}", f"{found.max():.2f}"
        parts.append(
            f"With these, a difference of {low if low == high else f'{low} to {high}'} percentage "
            f"points of {SCORES[METRIC]} between two networks would be found with a power of "
            f"{100 * POWER:g}%, by the spread observed and in a single test."
        )
    return " ".join([*parts, _and_authors("why this size was chosen")])


def _settings(run: Run) -> str:
    return "Settings of each network are in the table of methods.md and in config.yaml."


def _ensembles(run: Run) -> str:
    return "None: every network predicts by itself."


def _strata(run: Run) -> str:
    compared = run.compared
    found = [
        words(stratum)
        for stratum in compared["stratum"].unique()
        if stratum != "all" and compared.loc[compared["stratum"] == stratum, "value"].nunique() > 1
    ]
    return f"Differences between networks are given by {listed(found)}." if found else ""


def _internal(run: Run) -> str:
    films, patients = run.size("test")
    return (
        f"{count(films, 'test film')} of {count(patients, 'patient')} from the same source, used "
        "neither in training nor for the choice of weights and thresholds."
    )


def _by_subset(run: Run, tell: Callable[[pd.DataFrame], str]) -> str:
    films = run.annotated
    text = "; ".join(
        f"{name}: {told_of}"
        for subset, name in SUBSETS.items()
        if (told_of := tell(films[films["subset"] == subset]))
    )
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _patients(run: Run) -> str:
    def tell(films: pd.DataFrame) -> str:
        number = f"{count(len(films), 'film')} of "
        number += count(films["patient_id"].nunique(), "patient")
        return ", ".join(filter(None, [number, told.characteristics(films)]))

    return f"{_by_subset(run, tell)} {_treatments(run)}".strip()


def _performance(run: Run) -> str:
    by = run.summary.set_index(["metric", "model"])
    each = [
        f"{title} {_with_interval(run, by.loc[(METRIC, model)], 'mean')}"
        for model, title in run.titles.items()
    ]
    return f"{TABLE1_ROWS[METRIC]}: {', '.join(each)}. More is in the tables."


def _precision(run: Run) -> str:
    if run.classes is None:
        return ""
    rows = run.classes[run.classes["metric"] == "recognition_rate"].set_index("model")
    each = []
    for model, title in run.titles.items():
        if model in rows.index:
            n = count(int(rows.loc[model, "n"]), "vertebra", "vertebrae")
            each.append(f"{title} {_with_interval(run, rows.loc[model], 'value')} of {n}")
    return f"Found with the right level: {', '.join(each)}." if each else ""


def _with_interval(run: Run, row: pd.Series, column: str) -> str:
    value, low, high = (100 * float(row[name]) for name in (column, "ci_low", "ci_high"))
    if run.size("test")[1] < 2:  # of one patient there is none
        return f"{value:.2f}%"
    return f"{value:.2f}% (95% interval {low:.2f} to {high:.2f})"


def _failures(run: Run) -> str:
    errors = run.errors[
        (run.errors["stage"] == "labelled") & run.errors["model"].isin(list(run.titles))
    ]
    each = []
    for model, title in run.titles.items():
        numbers = errors.loc[errors["model"] == model, "kind"].value_counts()
        kinds = [
            f"{KIND_TITLES[kind].lower()} {numbers[kind]:,}" for kind in KINDS if kind in numbers
        ]
        each.append(f"{title} {', '.join(kinds) or 'none'}")
    return (
        f"Errors of the labelled vertebrae by kind: {'; '.join(each)}. The films with the largest "
        "errors are in the report."
    )


def _protocol(run: Run) -> str:
    return f"The complete configuration is in config.yaml. {_and_authors('the study protocol')}"


def _availability(run: Run) -> str:
    return (
        "The run keeps the weights (models), settings and versions of every network. "
        f"{_and_authors('what is made available, and where')}"
    )


def _dates(run: Run) -> str:
    dates = run.config["archive"]["study_dates"]
    if run.synthetic or run.config["source"] != "archive" or not dates:
        return ""
    return f"Studies dated {dates} were asked for. {_and_authors('dates of the films found')}"


def _treatments(run: Run) -> str:
    foreground = run.config["evaluation"]["foreground"]
    implants = run.structures[~run.structures["class_name"].isin(foreground)]
    if implants.empty:
        return ""
    films = set(implants["image_id"])
    return f"Implants are outlined on {len(films):,} of {count(len(run.splits), 'annotated film')}."


def _input(run: Run) -> str:
    return f"The input is the film alone, an 8-bit grey picture. {told.preprocessing(run)}"


def _alike(run: Run) -> str:
    same = "All subsets come from one source by the same criteria."
    return f"{same} {_by_subset(run, told.characteristics)}".strip()


def _numbers(run: Run) -> str:
    def tell(films: pd.DataFrame) -> str:
        drawn = run.structures["image_id"].isin(films["image_id"])
        numbers = run.structures.loc[drawn, "class_name"].value_counts()
        each = ", ".join(
            f"{words(name)} {numbers[name]:,}" for name in run.config["classes"] if name in numbers
        )
        number = f"{count(len(films), 'film')} of "
        number += count(films["patient_id"].nunique(), "patient")
        return f"{number} ({each})" if each else number

    return _by_subset(run, tell)


def _model(run: Run) -> str:
    return (
        "Weights, settings and thresholds of each network are in models/NETWORK/model.pth and "
        "run.json, from which the workflow predicts on other films (target predict_new)."
    )
