"""The methods of a paper, in sentences made from what a run has left behind.

There is a sentence for what was done, and none for what was not; every number is read from the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .. import networks
from ..evaluate.statistics import ALPHA, POWER
from ..train.schedule import learning_rate_factor
from .figures import duration
from .paper_tables import Cell, Table, markdown, markdown_text

SUBSETS = {"train": "training", "val": "validation", "test": "test"}
#: Paper and implementation of the networks that come with the workflow.
_SOURCES = {
    "unet": ("Ronneberger et al. 2015", "segmentation-models-pytorch"),
    "pspnet": ("Zhao et al. 2017", "segmentation-models-pytorch"),
    "deeplabv3": ("Chen et al. 2017", "segmentation-models-pytorch"),
    "mask_rcnn": ("He et al. 2017", "MMDetection"),
    "yolact": ("Bolya et al. 2019", "MMDetection"),
}
_BACKBONES = {f"resnet{depth}": f"ResNet-{depth}" for depth in (18, 34, 50, 101, 152)}
#: What a limit of `training.augmentation` means; {value}, or {percent} of it.
_CHANGES = {
    "rotation_degrees": "rotation by up to {value}° either way",
    "scale": "scaling by up to {percent}%",
    "shift": "shifts by up to {percent}% of a side",
    "contrast": "changes of contrast, brightness and gamma by up to {percent}%",
    "flip_probability": "mirroring with a probability of {value}",
    "local_contrast": "changes of local and of broad contrast by up to {percent}%",
    "shading": "shading by up to {percent}% of the grey range",
    "sharpness": "blur or edge enhancement up to a strength of {value}",
    "noise": "noise with a standard deviation of up to {percent}% of the grey range",
    "collimation_probability": "closed shutters with a probability of {value}",
    "implant_probability": "drawn metal with a probability of {value}",
    "cutout_probability": "hidden patches with a probability of {value}",
}


@dataclass(frozen=True)
class Run:
    """What the texts are made from; see :func:`.paper.read_run`.

    Attributes:
        config: the resolved configuration.
        titles: display name of each network, in the order of the tables.
        manifest, splits, audit, findings, agreement: the tables `images/manifest`, `splits`,
            `images/deidentification`, `annotations/qc` and `annotations/agreement`.
        structures: a structure of the reference on a film of `splits`: image_id, class_name, level,
            origin.
        annotators: a film and an annotator who drew on it: image_id, annotator.
        runs: `run.json` of each network.
        summary, compared, errors: the tables of the metrics `summary`, `comparisons`, `errors`.
        classes: `class_summary`; None where there is none.
        replicates: `replicate_summary`; None without seeds and folds.
        versions: of packages that tables and statistics were made with.
    """

    config: Mapping[str, Any]
    titles: Mapping[str, str]
    manifest: pd.DataFrame
    splits: pd.DataFrame
    audit: pd.DataFrame
    findings: pd.DataFrame
    agreement: pd.DataFrame
    structures: pd.DataFrame
    annotators: pd.DataFrame
    runs: Mapping[str, Mapping[str, Any]]
    summary: pd.DataFrame
    compared: pd.DataFrame
    errors: pd.DataFrame
    classes: pd.DataFrame | None
    replicates: pd.DataFrame | None
    versions: Mapping[str, str]

    @property
    def synthetic(self) -> bool:
        """Whether the films are simulated ones."""
        return self.config["source"] == "archive" and self.config["archive"]["embedded"]

    @property
    def accepted(self) -> pd.DataFrame:
        """The accepted films of the manifest."""
        return self.manifest[self.manifest["status"] == "accepted"]

    @property
    def annotated(self) -> pd.DataFrame:
        """The annotated films, with what the manifest says of them."""
        others = self.manifest.drop(columns="patient_id")
        return self.splits.merge(others, on="image_id", how="left")

    def size(self, subset: str) -> tuple[int, int]:
        """Films and patients of a subset."""
        films = self.splits[self.splits["subset"] == subset]
        return len(films), films["patient_id"].nunique()


def methods(run: Run) -> str:
    """The methods in Markdown: a paragraph a heading, and a table of the networks' settings."""
    parts = [
        ("Images", [source(run), flow(run), properties(run), deidentification(run)]),
        ("Reference standard", [reference(run), variability(run), quality(run)]),
        ("Division", [division(run)]),
        ("Networks", [architectures(run), beginning(run)]),
        (
            "Training",
            [
                *(preprocessing(run), augmentation(run), losses(run), schedule(run)),
                *(selection(run), thresholds(run)),
            ],
        ),
        ("Evaluation", [evaluation(run)]),
        ("Statistics", [intervals(run), tests(run), replicates(run)]),
        ("Software", [software(run)]),
    ]
    text = "# Methods\n"
    for heading, sentences in parts:
        told = " ".join(sentence for sentence in sentences if sentence)
        if told:
            text += f"\n## {heading}\n\n{markdown_text(told)}\n"
        if heading == "Training":
            text += f"\n{markdown(settings_table(run))}"
    return text


def source(run: Run) -> str:
    """Where the films come from."""
    config = run.config
    if run.synthetic:
        made = config["synthetic"]
        return (
            f"Synthetic lateral radiographs of the lumbar spine of "
            f"{count(made['patients'], 'simulated patient')} (seed {made['seed']}) were retrieved "
            "from a DICOM archive that the workflow itself ran."
        )
    if config["source"] == "folder":
        return "Lateral radiographs of the lumbar spine were read from a folder of files."
    archive = config["archive"]
    asked = [f"the modalities {listed(archive['modalities'])}"]
    if archive["study_dates"]:
        asked.append(f"the study dates {archive['study_dates']}")
    if archive["body_parts"]:
        asked.append(f"the body parts {listed(archive['body_parts'])}")
    if archive["descriptions"]:
        asked.append(f"descriptions with {listed(archive['descriptions'], 'or')}")
    if archive["cohort"]:
        asked.append("the studies of a list")
    return (
        "Lateral radiographs of the lumbar spine were retrieved from a DICOM archive by "
        f"C-{archive['retrieve_by'].upper()}, asking for {listed(asked)}."
    )


def flow(run: Run) -> str:
    """Films met, accepted, rejected with their reasons, and annotated."""
    manifest, accepted = run.manifest, run.accepted
    told = f"Of {count(len(manifest), 'film')}, {len(accepted):,} of "
    told += f"{count(accepted['patient_id'].nunique(), 'patient')} "
    told += f"({count(accepted['study_id'].nunique(), 'study', 'studies')}) "
    told += "was accepted" if len(accepted) == 1 else "were accepted"
    rejected = manifest.loc[manifest["status"] == "rejected", "reason"].fillna("not stated")
    if len(rejected):
        # Details follow the reason in some.
        reasons = rejected.str.split(":").str[0].str.replace("_", " ").value_counts()
        reasons = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        each = ", ".join(f"{reason} {number:,}" for reason, number in reasons)
        told += f" and {len(rejected):,} rejected ({each})"
    films, patients = len(run.splits), run.splits["patient_id"].nunique()
    return (
        f"{told}; {count(films, 'film')} of {count(patients, 'patient')} "
        f"{'has' if films == 1 else 'have'} a reference annotation."
    )


def properties(run: Run) -> str:
    """Matrix, pixel spacing, modality, sex and age of the annotated films, as far as known."""
    films = run.annotated
    told = []
    sizes = [spread(films.get(side), "{:.0f}") for side in ("rows", "columns")]
    if all(sizes):
        told.append(f"The annotated films have {sizes[0]} rows and {sizes[1]} columns of pixels.")
    kinds = films.get("modality", pd.Series(dtype="string")).dropna().value_counts()
    if len(kinds):
        each = ", ".join(f"{kind} {number:,}" for kind, number in sorted(kinds.items()))
        told.append(f"Their modality is {each}.")
    known = films.get("pixel_spacing_mm", pd.Series(dtype=float)).dropna()
    if len(known):
        told.append(
            f"The pixel spacing in the patient is known for {len(known):,} of {len(films):,} "
            f"({spread(known, '{:.3f}')} mm)."
        )
    people = characteristics(films)
    return " ".join([*told, *([f"The patients: {people}."] if people else [])])


def characteristics(films: pd.DataFrame) -> str:
    """Sex (of patients) and age (at each film), as far as the manifest tells them."""
    told = []
    sexes = films.dropna(subset="patient_sex") if "patient_sex" in films else films.iloc[:0]
    if len(sexes):
        numbers = sexes.drop_duplicates("patient_id")["patient_sex"].value_counts()
        words = {"F": "female", "M": "male", "O": "other"}
        each = ", ".join(f"{numbers[key]:,} {words[key]}" for key in words if key in numbers)
        told.append(each)
    ages = spread(films.get("patient_age_years"), "{:.0f}")
    if ages:
        told.append(f"age {ages} years")
    return ", ".join(told)


def deidentification(run: Run) -> str:
    """What was done about identifying data."""
    text = run.audit[run.audit["part"] == "text"].set_index("item")["count"]
    verified = run.audit[run.audit["part"] == "verification"].set_index("item")["count"]
    told = ["Films, studies and patients have pseudonyms made with a secret key."]
    if (run.audit["part"] == "attribute").any():
        told.insert(
            0,
            "Films were de-identified in memory before anything was written, by the Basic "
            "Application Level Confidentiality Profile of DICOM PS3.15 annex E.",
        )
    if text.get("films searched", 0):
        told.append(
            f"Burned-in text was searched for in {count(int(text['films searched']), 'film')}, "
            f"and {count(int(text.get('areas blanked', 0)), 'area')} blanked."
        )
    if verified.get("values", 0):
        told.append(
            f"Everything written was then searched for {count(int(verified['values']), 'value')} "
            f"of the originals, with {count(int(verified.get('findings', 0)), 'finding')}."
        )
    return " ".join(told)


def reference(run: Run) -> str:
    """Who drew what on how many films."""
    structures = run.structures
    numbers = structures["class_name"].value_counts()
    each = ", ".join(
        f"{words(name)} {numbers[name]:,}" for name in run.config["classes"] if name in numbers
    )
    people = run.annotators["annotator"].nunique()
    if run.synthetic and not run.config["annotations"]["via"]:
        who = f"by {count(people, 'simulated annotator')} from the known anatomy"
    else:
        files = count(len(run.config["annotations"]["via"] or []), "annotation file")
        who = f"by {count(people, 'annotator')} ({files}, VGG Image Annotator or COCO)"
    told = [
        f"The reference standard consists of {count(len(structures), 'structure')} outlined as "
        f"polygons {who}: {each}."
    ]
    levels = int(structures["level"].notna().sum())
    if levels:
        told.append(f"Of these, {levels:,} have a vertebral level.")
    taken = int(structures["origin"].fillna("").str.startswith("predicted").sum())
    if taken:
        told.append(f"An annotator took over {count(taken, 'outline')} predicted by a network.")
    return " ".join(told)


def variability(run: Run) -> str:
    """How far annotators of the same films agree."""
    table = run.agreement
    matched = table[table["status"] == "matched"] if len(table) else table
    if matched.empty:
        return ""
    rules = {
        "first": "the drawing of the annotator named first counts",
        "last": "the drawing of the annotator named last counts",
        "consensus": "structures that most annotators drew count, with the outline of the majority",
    }
    films = table["image_id"].nunique()
    told = (
        f"On {count(films, 'film')} drawn on by several annotators, where "
        f"{rules[run.config['annotations']['annotators']['rule']]}, the Dice coefficient of "
        f"{count(len(matched), 'pair')} of outlines of the same structure is "
        f"{spread(matched['dice'], '{:.3f}')}"
    )
    corners = spread(matched["corner_distance_mm"], "{:.1f}")
    return told + (f", and the distance of vertebral corners {corners} mm." if corners else ".")


def quality(run: Run) -> str:
    """Automatic checks of the annotations."""
    severities = run.findings["severity"].value_counts()
    found = [
        count(int(severities[name]), name)
        for name in ("error", "warning")
        if severities.get(name, 0)
    ]
    if not found:
        return "Automatic checks of all outlines raised no errors and no warnings."
    told = f"Automatic checks of the outlines raised {listed(found)}"
    left_out = "; structures with an error were left out" if severities.get("error", 0) else ""
    return f"{told}{left_out}."


def division(run: Run) -> str:
    """How films were divided, and into what."""
    splits = run.config["splits"]
    how = "as listed in a file" if splits["file"] else f"at random (seed {splits['seed']})"
    sizes = []
    for subset, name in SUBSETS.items():
        films, patients = run.size(subset)
        sizes.append(f"{count(films, f'{name} film')} of {count(patients, 'patient')}")
    return f"Films were divided by patient {how} into {listed(sizes)}; {disjoint(run)}."


def disjoint(run: Run) -> str:
    """Whether the subsets share patients."""
    shared = int((run.splits.groupby("patient_id")["subset"].nunique() > 1).sum())
    if shared:
        has = "has" if shared == 1 else "have"
        return f"{count(shared, 'patient')} {has} films in several subsets"
    return "every patient is in one subset only"


def architectures(run: Run) -> str:
    """The networks, their families and backbones."""
    semantic = [model for model in run.runs if family(model) == "semantic"]
    instance = [model for model in run.runs if family(model) == "instance"]
    others = [model for model in run.runs if model not in (*semantic, *instance)]
    told = []
    if semantic:
        told.append(
            f"{_networks(run, semantic)} every pixel a probability for each class, so that classes "
            "may overlap (semantic segmentation)."
        )
    if instance:
        told.append(
            f"{_networks(run, instance)} every object a class, a score and a mask (instance "
            "segmentation)."
        )
    if others:
        told.append(f"{_networks(run, others)} every film instances with a class and a mask.")
    classes = ", ".join(words(name) for name in run.config["classes"])
    return " ".join([*told, f"The classes are {classes}; the input is the film alone."])


def beginning(run: Run) -> str:
    """What weights the networks started from."""
    of: dict[str, list[str]] = {}
    for model, record in run.runs.items():
        of.setdefault(_start(record), []).append(run.titles[model])
    return " ".join(
        f"Training of {listed(names)} started from {start}." for start, names in of.items()
    )


def preprocessing(run: Run) -> str:
    """What the networks see."""
    canvases = {tuple(record["settings"]["size"]) for record in run.runs.values()}
    sizes = listed(f"{rows} × {columns}" for rows, columns in sorted(canvases))
    return (
        f"Films (8-bit grey) were scaled with their aspect ratio kept to a canvas of {sizes} "
        "(rows × columns) pixels, padded with black, equalised by contrast-limited adaptive "
        "histogram equalisation, and normalised by mean and standard deviation of the training "
        "films."
    )


def augmentation(run: Run) -> str:
    """The random changes of the training films."""
    of: dict[str, list[str]] = {}
    for model, record in run.runs.items():
        limits = record["settings"].get("augmentation", {})
        changes = [_change(key, value) for key, value in limits.items() if value]
        if changes:
            of.setdefault(", ".join(changes), []).append(run.titles[model])
    everywhere = len(of) == 1 and len(next(iter(of.values()))) == len(run.runs)
    return " ".join(
        f"Training films{'' if everywhere else f' of {listed(names)}'} were changed at random "
        f"in every epoch: {changes}."
        for changes, names in of.items()
    )


def losses(run: Run) -> str:
    """What is minimised."""
    families = {family(model) for model in run.runs}
    told = []
    if "semantic" in families:
        told.append(
            "The loss of semantic networks is the sum of cross-entropy, of every pixel and class, "
            "and soft Dice."
        )
    if "instance" in families:
        told.append("The losses of instance networks are those of their implementation.")
    return " ".join(told)


def schedule(run: Run) -> str:
    """The optimiser and its rate, alike for all networks."""
    steps = 1000
    rates = [learning_rate_factor(step, steps) for step in range(steps + 1)]
    warm_up = 100 * (rates.index(max(rates)) + 1) / steps
    settings = [record["settings"] for record in run.runs.values()]
    decays = sorted({one["weight_decay"] for one in settings if "weight_decay" in one})
    averages = sorted({one["moving_average"] for one in settings if one.get("moving_average")})
    seeds = sorted({record["seed"] for record in run.runs.values()})
    told = "Training used AdamW"
    told += f" (weight decay {listed(f'{value:g}' for value in decays)})" if decays else ""
    told += (
        f"; the learning rate rises linearly over the first {warm_up:g}% of the steps and falls as "
        f"a cosine to {100 * rates[-1]:g}% of its peak (seed {listed(map(str, seeds))})."
    )
    if averages:
        values = listed(f"{value:g}" for value in averages)
        told += f" Weights are an exponential moving average (decay {values} a step)."
    devices = sorted({str(record["device"]).upper() for record in run.runs.values()})
    time = duration(sum(record["seconds"] for record in run.runs.values()))
    return f"{told} It took {time} in all ({listed(devices)})."


def selection(run: Run) -> str:
    """Which weights were kept."""
    return (
        "The weights of the epoch with the highest Dice coefficient of "
        f"{_foreground(run)} on the validation films were kept."
    )


def thresholds(run: Run) -> str:
    """The thresholds, those chosen on validation films and those that the configuration sets."""
    chosen, given = [], []
    for model, record in run.runs.items():
        for name, value in record.get("thresholds", {}).items():
            fixed = run.config["predict"].get(name)
            if fixed is not None:
                given.append(f"{run.titles[model]} {_threshold(name)} {fixed:g}")
            elif isinstance(value, list):
                pairs = zip(record["settings"]["classes"], value, strict=True)
                each = ", ".join(f"{words(of_class)} {number:g}" for of_class, number in pairs)
                chosen.append(f"{run.titles[model]} {_threshold(name)} {each}")
            else:
                chosen.append(f"{run.titles[model]} {_threshold(name)} {value:g}")
    told = []
    if chosen:
        told.append(f"Thresholds were chosen on the validation films: {'; '.join(chosen)}.")
    if given:
        told.append(f"Thresholds were set: {'; '.join(given)}.")
    smallest = run.config["predict"]["minimum_area"]
    if smallest:
        told.append(f"What is smaller than {100 * smallest:g}% of a film was left out.")
    return " ".join(told)


def evaluation(run: Run) -> str:
    """The metrics."""
    films, patients = run.size("test")
    evaluated = run.config["evaluation"]
    told = [
        f"Networks were scored on the {count(films, 'test film')} of "
        f"{count(patients, 'patient')} at full resolution.",
        "Pixel accuracy, mean accuracy, mean IoU and frequency weighted IoU (Long et al. 2015) "
        f"and Dice are those of the merged mask of {_foreground(run)}, computed for each film and "
        "averaged over films.",
    ]
    classes = run.classes if run.classes is not None else pd.DataFrame(columns=["metric", "unit"])
    found = set(classes["metric"])
    if found & {"iou", "dice"}:
        told.append("Dice and IoU of each class are means over the films that show or predict it.")
    units = set(classes.loc[classes["metric"] == "surface_dice", "unit"])
    tolerances = [
        f"{evaluated[f'tolerance_{unit}']:g} {unit}" for unit in ("mm", "px") if unit in units
    ]
    if tolerances:
        spared = " on films without a known pixel spacing" if len(tolerances) == 2 else ""
        told.append(
            "Boundaries were compared by the 95% Hausdorff distance and normalised surface Dice "
            f"with a tolerance of {listed(tolerances, 'and')}{spared} (Nikolov et al. 2021)."
        )
    if "ap" in found:
        told.append(
            "Instances were compared by average precision as defined for COCO (Lin et al. 2014) "
            "and panoptic quality (Kirillov et al. 2019)."
        )
    if "recognition_rate" in found:
        told.append(
            "After fused vertebrae were separated and levels assigned, a vertebra counts as "
            "recognised if an instance with its level overlaps it by an IoU of 0.5 or more."
        )
    return " ".join(told)


def intervals(run: Run) -> str:
    """The intervals of the scores; patients are drawn, so that one alone has none."""
    if run.size("test")[1] < 2:
        return ""
    samples, seed = (run.config["evaluation"][key] for key in ("bootstrap_samples", "seed"))
    return (
        f"95% intervals are percentile bootstrap intervals over patients ({samples:,} samples, "
        f"seed {seed})."
    )


def tests(run: Run) -> str:
    """The comparisons of networks."""
    compared = run.compared
    whole = compared[compared["stratum"] == "all"]
    if whole.empty:
        return ""
    pairs = whole.loc[whole["kind"] == "pair", ["a", "b"]].drop_duplicates()
    what = [count(len(pairs), "pair") + " of networks"] if len(pairs) else []
    if (whole["kind"] == "family").any():
        what.append("semantic against instance networks (mean of each family on a film)")
    told = [
        f"Paired differences on the same films were tested for {listed(what)} by Wilcoxon's signed "
        "rank test in which the differences of a patient change sign together, with Holm's "
        "correction over the contrasts of a score; the effect size is the matched-pairs "
        "rank-biserial correlation.",
    ]
    strata = sorted(set(compared.loc[compared["interaction_p"].notna(), "stratum"]) - {"all"})
    if strata:
        told.append(
            f"Whether differences depend on {listed(map(words, strata))} was tested by "
            "permutation of Welch's statistic over patients."
        )
    if whole["detectable"].notna().any():
        told.append(
            f"Smallest detectable differences are for a power of {100 * POWER:g}% at a two-sided "
            f"level of {100 * ALPHA:g}%."
        )
    return " ".join(told)


def replicates(run: Run) -> str:
    """Further trainings."""
    if run.replicates is None or run.replicates.empty:
        return ""
    numbers = run.replicates.groupby("kind")["n_replicates"].max()
    told = []
    if "seed" in numbers:
        told.append(f"with {count(int(numbers['seed']), 'seed')} on the same films")
    if "fold" in numbers:
        told.append(f"in {int(numbers['fold'])}-fold cross-validation by patient")
    return (
        f"To tell how far scores spread over trainings, every network was trained {listed(told)}; "
        "mean, standard deviation and range of the scores are given."
    )


def software(run: Run) -> str:
    """Packages and versions."""
    found: dict[str, set[str]] = {}
    used = [record["versions"] for record in run.runs.values()]
    audited = run.audit[run.audit["part"] == "version"]
    used += [dict(zip(audited["item"], audited["outcome"], strict=True)), run.versions]
    for versions in used:
        for package, version in versions.items():
            found.setdefault(package, set()).add(str(version))
    each = ", ".join(
        f"{package} {' and '.join(sorted(found[package]))}"
        for package in sorted(found, key=str.lower)
    )
    return f"All steps were run by the workflow Lumbarflow with {each}."


def settings_table(run: Run) -> Table:
    """A row a network: what its training was asked for and came to."""
    rows = []
    for model, record in run.runs.items():
        settings = record["settings"]
        rows.append(
            [
                Cell(run.titles[model]),
                Cell(_BACKBONES.get(settings["backbone"], settings["backbone"])),
                Cell(f"{record['parameters'] / 1e6:.2f}"),
                Cell(" × ".join(map(str, settings["size"]))),
                Cell(f"{settings['batch_size']}"),
                Cell(f"{record['iterations']:,}"),
                Cell(f"{settings['learning_rate']:g}"),
                Cell(f"{record['best_epoch']} of {record['epochs']}"),
                Cell(f"{record['best_validation_dice']:.3f}"),
            ]
        )
    header = ["Network", "Backbone", "Parameters, millions", "Canvas, pixels", "Films a step"]
    header += ["Steps", "Peak learning rate", "Best epoch", "Validation Dice"]
    return Table("tab:settings", "Networks and their training.", header, 2, [rows])


def family(model: str) -> str | None:
    """`semantic`, `instance`, or None."""
    return networks.family(model) if model in networks.available() else None


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(items: Iterable[str], last: str = "and") -> str:
    """Items as in a sentence."""
    items = list(items)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def spread(values: pd.Series | None, form: str) -> str:
    """Median and range of what is known, such as `54 (19 to 88)`; "" of nothing."""
    known = pd.Series(dtype=float) if values is None else values.dropna().astype(float)
    if known.empty:
        return ""
    middle, low, high = (form.format(value) for value in (known.median(), known.min(), known.max()))
    return middle if low == high else f"{middle} ({low} to {high})"


def words(name: str) -> str:
    """A name of the configuration in words."""
    return name.replace("_", " ")


def _networks(run: Run, models: Sequence[str]) -> str:
    """Beginning of a sentence on what these networks give."""
    names = []
    for model in models:
        settings = run.runs[model]["settings"]
        backbone = _BACKBONES.get(settings["backbone"], settings["backbone"])
        source = [*_SOURCES.get(model, ()), backbone]
        names.append(f"{run.titles[model]} ({', '.join(source)})")
    return f"{listed(names)} {'gives' if len(models) == 1 else 'give'}"


def _foreground(run: Run) -> str:
    return listed(words(name) for name in run.config["evaluation"]["foreground"])


def _start(record: Mapping[str, Any]) -> str:
    if record.get("continued_from_previous"):
        return "the weights of an earlier training on this cohort"
    weights = record["settings"].get("weights")
    # A file's path may name people or places.
    known = {None: "random weights", "imagenet": "weights learned on ImageNet"}
    return known.get(weights, "weights from a file")


def _threshold(name: str) -> str:
    return words(name.removesuffix("_threshold"))


def _change(key: str, value: float) -> str:
    form = _CHANGES.get(key, f"{words(key)} {{value}}")
    return form.format(value=f"{value:g}", percent=f"{100 * value:g}")
