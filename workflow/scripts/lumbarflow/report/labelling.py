"""The section of the report on levels and measurements, of every network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from ..annotate.spine import RANK
from ..errors import InputError
from ..evaluate.levels import MIN_IOU, MISSED, UNNAMED
from ..evaluate.measurements import calibration_error
from .figures import jpeg_uri, shrink
from .labelling_figures import bland_altman, confusion_matrices, reliability_curves
from .reading import read_table

#: What measurements are compared with, in the order of the page.
REFERENCES = {
    "annotation": "Against the annotations",
    "truth": "Against the truth of the synthetic films",
}
#: Films shown with what was measured on them, at about 0.2 MB each.
MAX_OVERLAYS = 4
#: Rows of an embedded overlay: its letters can be read when it is enlarged.
OVERLAY_ROWS = 1100
#: Changes listed for each source; the counts above them are always complete.
MAX_CHANGES = 50
#: Slips are told from this size on; where a pixel has no size in mm, in percent of the depth.
SLIP_MM, SLIP_PERCENT = 3.0, 8.0
#: Decimals and what follows a number, by unit.
_UNITS = {"deg": (1, "°"), "mm": (1, " mm"), "px": (0, " px"), "%": (0, "%"), "1": (2, "")}
_DISC_HEIGHTS = tuple(f"disc_height_{part}" for part in ("anterior", "middle", "posterior"))
_MEYERDING = ("0", "I", "II", "III", "IV", "V")


def labelling_section(
    results: Path, models: Sequence[str], titles: Mapping[str, str], films: Sequence[str]
) -> dict[str, Any]:
    """What the template shows of levels and measurements.

    Args:
        results: the results folder; read are the tables of `metrics` on vertebrae and
            measurements, those of `measurements` of the best network with its overlays, and the
            changes of the annotations.
        models: to show, in the order of the rows.
        titles: display name of each model.
        films: image_id of test films to show, at most :data:`MAX_OVERLAYS` of them.

    Returns:
        levels: a dictionary a network, see :func:`_level_rows`; references: what measurements are
        compared with, each {"title", "rows", "details"}, see :func:`_error_rows` and
        :func:`_details`; confusion, agreement, reliability: addresses of drawings, None where there
        is nothing to draw; best: display name of the network that recognised most vertebrae; films:
        {"image_id", "sentences", "image", "alt", "path"}, image is None without an overlay;
        changes: see :func:`_changes`; notes: sentences on what is missing.

    Raises:
        InputError: a table is missing or a picture is broken.
    """
    tables = {
        name: _of(read_table(results / f"metrics/{name}.parquet"), models)
        for name in (
            *("instances", "level_summary", "level_confusion"),
            *("measurements", "measurement_summary", "reliability"),
        )
    }
    summary, reliability = tables["measurement_summary"], tables["reliability"]
    drawn = tables["instances"][tables["instances"]["level"].notna()]
    best = _best(tables["level_summary"], models)
    measured = read_table(results / f"measurements/{best}.parquet")
    present = [name for name in REFERENCES if (summary["against"] == name).any()]
    return {
        "levels": _level_rows(tables["level_summary"], drawn, models, titles),
        "references": [
            {
                "title": REFERENCES[name],
                "rows": _error_rows(
                    *(table[table["against"] == name] for table in (summary, reliability)),
                    models,
                    titles,
                ),
                "details": _details(summary[summary["against"] == name], models),
            }
            for name in present
        ],
        "confusion": _confusion(tables["level_confusion"], models, titles),
        "agreement": _agreement(tables["measurements"], models, titles),
        "reliability": _reliability(reliability, models, titles),
        "best": titles[best],
        "films": _films(results, best, titles[best], measured, films[:MAX_OVERLAYS]),
        "changes": [
            {"title": f"As {titles[best]} measured the test films"}
            | _changes(read_table(results / f"measurements/changes/{best}.parquet")),
            {"title": "As measured from the annotations"}
            | _changes(read_table(results / "measurements/changes/annotation.parquet")),
        ],
        "notes": _notes(drawn, present, measured),
    }


def _of(table: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    return table[table["model"].isin(models)]


# Levels -----------------------------------------------------------------------------------------


def _level_rows(
    summary: pd.DataFrame,
    drawn: pd.DataFrame,
    models: Sequence[str],
    titles: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A dictionary for each network, of the vertebrae whose level was drawn; empty without any.

    name; right: of the vertebrae that were found, the percentage with the right level; shifted: of
    how many films the levels are shifted by one, "1 of 26"; before and after: percentage
    recognised, found with the right level, before and after bodies were separated; *_best: whether
    it is the best.

    Args:
        summary: `metrics/level_summary`.
        drawn: rows of `metrics/instances` that have a level.
        models, titles: as of :func:`labelling_section`.
    """
    if drawn.empty:
        return []
    known = summary.set_index("model").to_dict("index")
    same = (drawn["level"] == drawn["level_unrepaired"]).fillna(False).astype(bool)
    before = (same & (drawn["iou_unrepaired"] >= MIN_IOU)).groupby(drawn["model"]).mean()
    rows = []
    for model in models:
        row = known.get(model, {})
        numbers = {
            "right": 100 * row.get("share_correct", np.nan),
            "shifted": row.get("share_shifted_by_one", np.nan),
            "before": 100 * before.get(model, np.nan),
            "after": 100 * row.get("recognition_rate", np.nan),
        }
        rows.append({"name": titles[model], "numbers": numbers})
        for key in ("right", "before", "after"):
            rows[-1][key] = _number(numbers[key], 1)
        films = row.get("n_films", 0)
        rows[-1]["shifted"] = f"{row['n_shifted_by_one']} of {films}" if films else "–"
    for key in ("right", "shifted", "before", "after"):
        values = [row["numbers"][key] for row in rows if not np.isnan(row["numbers"][key])]
        best = (min if key == "shifted" else max)(values, default=None)
        for row in rows:
            row[f"{key}_best"] = len(values) > 1 and row["numbers"][key] == best
    return rows


def _best(summary: pd.DataFrame, models: Sequence[str]) -> str:
    """The network that recognises most vertebrae; of equals the first."""
    recognised = summary.set_index("model")["n_correct"].to_dict()
    return max(models, key=lambda model: recognised.get(model, 0))


def _confusion(table: pd.DataFrame, models: Sequence[str], titles: Mapping[str, str]) -> str | None:
    if table.empty:
        return None
    table = table.replace({"predicted_level": {UNNAMED: "no level", MISSED: "not found"}})
    others = ["no level", "not found"]
    rows = sorted(set(table["reference_level"]), key=RANK.__getitem__)
    columns = sorted({*rows, *table["predicted_level"]} - {*others}, key=RANK.__getitem__) + others
    counts = {}
    for model in models:
        of_model = table[table["model"] == model].pivot(
            index="reference_level", columns="predicted_level", values="count"
        )
        of_model = of_model.reindex(index=rows, columns=columns)
        counts[titles[model]] = of_model.fillna(0).to_numpy(int)
    return confusion_matrices(counts, rows, columns)


# Errors -----------------------------------------------------------------------------------------


def _error_rows(
    summary: pd.DataFrame,
    reliability: pd.DataFrame,
    models: Sequence[str],
    titles: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A dictionary for each network, of its errors against one reference.

    name; lordosis, segmental, disc, slip: {"value", "interval", "best"}, the mean absolute error
    with its unit; limits and icc of the lordosis; measurable: percentage of the expected values;
    calibration: expected calibration error of the confidences in percent. Texts are "–" where there
    is nothing.
    """
    rows = []
    for model in models:
        table = summary[summary["model"] == model]
        lordosis = _metrics(table, "lordosis", "L1-S1")
        icc = lordosis.get("icc", {})
        low, high = (
            _signed(lordosis.get(metric, {}).get("value", np.nan))
            for metric in ("limit_low", "limit_high")
        )
        rows.append(
            {
                "name": titles[model],
                "lordosis": _error(lordosis),
                "limits": "–" if "–" in (low, high) else f"{low} to {high}°",
                "icc": _number(icc.get("value", np.nan), 2),
                "icc_interval": _interval(icc, 2),
                "segmental": _error(_metrics(table, "segmental_angle")),
                "disc": _error(_pooled(table, _DISC_HEIGHTS)),
                "slip": _error(_metrics(table, "slip")),
                "measurable": _number(100 * _share_measurable(table), 1),
                "calibration": _number(
                    100 * calibration_error(reliability[reliability["model"] == model]), 1
                ),
            }
        )
    for key in ("lordosis", "segmental", "disc", "slip"):
        units = {row[key]["unit"] for row in rows if row[key]["number"] is not None}
        # Errors in mm and in pixels cannot be ranked.
        numbers = [row[key]["number"] for row in rows if row[key]["number"] is not None]
        for row in rows:
            row[key]["best"] = (
                len(numbers) > 1 and len(units) == 1 and row[key]["number"] == min(numbers)
            )
    return rows


def _metrics(table: pd.DataFrame, name: str, site: str | None = None) -> dict[str, dict[str, Any]]:
    """Rows of one measurement by metric: of `site` where it is there, otherwise of all sites.

    Of several units that with most values, of equals mm.
    """
    rows = table[table["name"] == name]
    rows = rows[rows["site"] == (site if (rows["site"] == site).any() else "all")]
    errors = rows[rows["metric"] == "mae"].sort_values(["n", "unit"], ascending=[False, True])
    if errors.empty:
        return {}
    rows = rows[rows["unit"] == errors["unit"].iloc[0]]
    return {row["metric"]: row for row in rows.to_dict("records")}


def _pooled(table: pd.DataFrame, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The mean absolute error over several measurements of one unit; it has no interval."""
    errors = [_metrics(table, name).get("mae") for name in names]
    errors = [row for row in errors if row and row["n"] > 0]
    if not errors or len({row["unit"] for row in errors}) > 1:
        return {}
    mean = np.average([row["value"] for row in errors], weights=[row["n"] for row in errors])
    bounds = {"ci_low": np.nan, "ci_high": np.nan}
    return {"mae": {"value": float(mean), "unit": errors[0]["unit"], **bounds}}


def _error(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    row = metrics.get("mae")
    if row is None or np.isnan(row["value"]):
        return {"value": "–", "interval": "", "number": None, "unit": None}
    decimals = 1 if row["unit"] == "px" else 2
    return {
        "value": _number(row["value"], decimals) + _UNITS[row["unit"]][1],
        "interval": _interval(row, decimals),
        "number": round(row["value"], decimals),
        "unit": row["unit"],
    }


def _share_measurable(table: pd.DataFrame) -> float:
    """Over all measurements; n of this metric is the number of values expected."""
    rows = table[
        (table["metric"] == "share_measurable") & (table["site"] == "all") & (table["n"] > 0)
    ].dropna(subset=["value"])
    return float(np.average(rows["value"], weights=rows["n"])) if len(rows) else np.nan


def _details(summary: pd.DataFrame, models: Sequence[str]) -> list[dict[str, Any]]:
    """A row each measurement and unit: {"name", "unit", "cells": [{"mae", "bias", "n"}]}."""
    table = summary[(summary["site"] == "all") & summary["metric"].isin(["mae", "bias"])]
    found = {
        (row["name"], row["unit"], row["model"], row["metric"]): row
        for row in table.to_dict("records")
    }
    rows = []
    for name, unit in dict.fromkeys((key[0], key[1]) for key in found):
        cells = []
        for model in models:
            mae, bias = (found.get((name, unit, model, metric)) for metric in ("mae", "bias"))
            known = mae is not None and bias is not None and mae["n"] > 0
            cells.append(
                {
                    "mae": _number(mae["value"], 2) if known else "–",
                    "bias": _signed(bias["value"], 2) if known else "",
                    "n": int(mae["n"]) if known else 0,
                }
            )
        if any(cell["n"] for cell in cells):
            words = {"deg": "°", "1": ""}.get(unit, unit)
            rows.append({"name": _capital(_words(name)), "unit": words, "cells": cells})
    return rows


def _agreement(
    compared: pd.DataFrame, models: Sequence[str], titles: Mapping[str, str]
) -> str | None:
    lordosis = compared[
        (compared["name"] == "lordosis") & (compared["site"] == "L1-S1") & compared["error"].notna()
    ]
    points = {
        name: {
            titles[model]: lordosis[(lordosis["against"] == name) & (lordosis["model"] == model)]
            for model in models
        }
        for name in REFERENCES
        if (lordosis["against"] == name).any()
    }
    return bland_altman(points) if points else None


def _reliability(
    table: pd.DataFrame, models: Sequence[str], titles: Mapping[str, str]
) -> str | None:
    if table.empty:
        return None
    by = dict(iter(table.groupby(["model", "against"])))
    return reliability_curves(
        {
            titles[model]: {name: by[model, name] for name in REFERENCES if (model, name) in by}
            for model in models
        }
    )


def _notes(drawn: pd.DataFrame, present: Sequence[str], measured: pd.DataFrame) -> list[str]:
    notes = []
    if drawn.empty:
        notes.append("The annotators named no level on the test films: levels cannot be scored.")
    if "annotation" not in present:
        notes.append(
            "Nothing could be measured from the annotations of the test films, so the networks' "
            "measurements have nothing to be compared with there."
        )
    if "truth" not in present:
        notes.append(
            "The true measurements of these films are not known, as they are of synthetic films: "
            "errors against the annotations hold the annotators' own."
        )
    in_pixels = measured.loc[measured["unit"] == "px", "image_id"].nunique()
    if in_pixels:
        films = "one test film" if in_pixels == 1 else f"{in_pixels} test films"
        notes.append(
            f"The pixel spacing of {films} is not known: lengths are in pixels there and have no "
            "common scale; angles and ratios do not need it."
        )
    return notes


# Films ------------------------------------------------------------------------------------------


def _films(
    results: Path, model: str, title: str, measured: pd.DataFrame, films: Sequence[str]
) -> list[dict[str, Any]]:
    vertebrae = read_table(results / f"measurements/vertebrae/{model}.parquet")
    shown = []
    for image_id in films:
        path = Path(f"measurements/overlays/{model}/{image_id}.png")
        image = _overlay(results / path) if (results / path).is_file() else None
        shown.append(
            {
                "image_id": image_id,
                "sentences": film_words(
                    measured[measured["image_id"] == image_id],
                    vertebrae[vertebrae["image_id"] == image_id],
                ),
                "image": image,
                "alt": f"{title}: levels and measurements on film {image_id}",
                "path": path.as_posix(),
            }
        )
    return shown


def _overlay(path: Path) -> str:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise InputError(f"{path} is damaged: remove it and run the workflow again.")
    height, width = picture.shape[:2]
    return jpeg_uri(shrink(picture, round(width * min(1.0, OVERLAY_ROWS / height))))


def film_words(measured: pd.DataFrame, vertebrae: pd.DataFrame) -> list[str]:
    """What was found on one film, in sentences.

    Args:
        measured: rows of `measurements/{source}.parquet`.
        vertebrae: rows of `measurements/vertebrae/{source}.parquet`.

    Returns:
        Levels and side; then angles, disc heights, slips from :data:`SLIP_MM` on, fractures by
        their Genant grade, each value with its confidence in brackets; then what cannot be
        measured, and why. Sentences of which there is nothing to say are left out.
    """
    if vertebrae.empty:
        return ["The network found no vertebra on this film."]
    values = measured[measured["value"].notna()]
    sentences = [_level_words(vertebrae)]
    for names, middle in (
        (("lordosis", "sacral_slope", "cobb"), ""),
        (("segmental_angle",), "Segmental angles: "),
        (("disc_height_middle",), "Disc heights in the middle: "),
    ):
        rows = values[values["name"].isin(names)]
        rows = rows.iloc[rows["name"].map(names.index).argsort(kind="stable")]
        listed = ", ".join(
            ("" if middle else f"{_words(row['name'])} ") + f"{_site(row['site'])} {_value(row)}"
            for row in rows.to_dict("records")
        )
        if listed:
            sentences.append(_capital(f"{middle}{listed}."))
    sentences += _slip_words(values)
    grades = values[(values["name"] == "genant_grade") & (values["value"] >= 1)]
    if len(grades):
        listed = ", ".join(
            f"{row['site']} grade {row['value']:.0f} ({_sure(row)})"
            for row in grades.to_dict("records")
        )
        sentences.append(f"Loss of height after Genant: {listed}.")
    return sentences + _missing_words(measured[measured["value"].isna()])


def _level_words(vertebrae: pd.DataFrame) -> str:
    named = vertebrae[vertebrae["level"].notna()]
    if named.empty:
        text = f"{len(vertebrae)} bodies, none with a level"
    else:
        weakest = named.loc[named["level_probability"].idxmin()]
        text = f"{named['level'].iloc[0]} to {named['level'].iloc[-1]}, least certain "
        text += f"{weakest['level']} ({weakest['level_probability']:.0%})"
        nameless = len(vertebrae) - len(named)
        if nameless:
            text += f", and {nameless} {'body' if nameless == 1 else 'bodies'} without a level"
    side = vertebrae.iloc[0]
    text += f"; the patient faces {side['anterior']} ({side['anterior_probability']:.0%})"
    flags = [_words(flag) for flag in str(side["flags"] or "").split()]
    return text + (f". Flags: {', '.join(flags)}." if flags else ".")


def _slip_words(values: pd.DataFrame) -> list[str]:
    slips = values[values["name"] == "slip"]
    if slips.empty:
        return []
    shares = values[values["name"] == "slip_percent"].set_index("site")["value"]
    grades = values[values["name"] == "slip_grade"].set_index("site")["value"]
    told = []
    for row in slips.to_dict("records"):
        share = shares.get(row["site"], 0.0)
        if abs(row["value"]) < SLIP_MM if row["unit"] == "mm" else abs(share) < SLIP_PERCENT:
            continue
        way = "forward" if row["value"] > 0 else "backward"
        grade = int(grades.get(row["site"], 0))
        meyerding = f", Meyerding {_MEYERDING[grade]}" if 0 < grade < len(_MEYERDING) else ""
        length = _quantity(abs(row["value"]), row["unit"])
        told.append(f"{row['site']} {length} {way}{meyerding} ({_sure(row)})")
    if told:
        return [f"Slips: {', '.join(told)}."]
    least = f"{SLIP_MM:.0f} mm" if (slips["unit"] == "mm").all() else f"{SLIP_PERCENT:.0f}%"
    discs = "one disc" if len(slips) == 1 else f"{len(slips)} discs"
    return [f"No slip of {least} or more at the {discs} measured."]


def _missing_words(rows: pd.DataFrame) -> list[str]:
    if rows.empty:
        return []
    reasons = rows["reason"].fillna("").replace("", "no reason told").value_counts(sort=False)
    reasons = reasons.sort_index().sort_values(ascending=False, kind="stable")
    listed = ", ".join(f"{reason} ({count})" for reason, count in reasons.head(3).items())
    more = " and other reasons" if len(reasons) > 3 else ""
    values = "1 value" if len(rows) == 1 else f"{len(rows)} values"
    return [f"Not measurable: {values}: {listed}{more}."]


# Changes ----------------------------------------------------------------------------------------


def _changes(table: pd.DataFrame) -> dict[str, Any]:
    """What became of the patients with films of several days.

    Args:
        table: `measurements/changes/{source}.parquet`.

    Returns:
        patients: their number; compared: values compared between consecutive days; counts: of
        these by status; rows: {"patient", "what", "days", "before", "after", "change",
        "detectable"} of what changed, between consecutive days or the first and the last, at most
        :data:`MAX_CHANGES`; n_rows: how many there are.
    """
    consecutive = table[table["consecutive"]]
    status = consecutive["status"].value_counts()
    changed = table[table["status"] == "changed"]
    # Of a patient with many studies the first and the last say it all.
    changed = changed.sort_values(
        ["patient_id", "study_day_from", "study_day_to", "name", "site"], kind="stable"
    )
    rows = []
    for row in changed.head(MAX_CHANGES).to_dict("records"):
        unit = row["unit"]
        rows.append(
            {
                "patient": row["patient_id"],
                "what": _capital(f"{_words(row['name'])} {_site(row['site'])}"),
                "days": f"{row['study_day_from']} to {row['study_day_to']}",
                "before": _quantity(row["value_from"], unit),
                "after": _quantity(row["value_to"], unit),
                "change": _quantity(row["change"], unit, signed=True),
                "detectable": _quantity(row["smallest_detectable_change"], unit),
            }
        )
    return {
        "patients": table["patient_id"].nunique(),
        "compared": len(consecutive),
        "counts": {
            name: int(status.get(name, 0)) for name in ("changed", "within_error", "not_comparable")
        },
        "rows": rows,
        "n_rows": len(changed),
    }


# Words ------------------------------------------------------------------------------------------


def _number(value: float, decimals: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{decimals}f}".replace("-", "−")


def _signed(value: float, decimals: int = 1) -> str:
    return "–" if np.isnan(value) else f"{value:+.{decimals}f}".replace("-", "−")


def _interval(row: Mapping[str, Any], decimals: int) -> str:
    low, high = (row.get(end, np.nan) for end in ("ci_low", "ci_high"))
    if np.isnan(low) or np.isnan(high):
        return ""
    return f"{_number(low, decimals)}–{_number(high, decimals)}"


def _quantity(value: float, unit: str, signed: bool = False) -> str:
    decimals, suffix = _UNITS[unit]
    return (_signed if signed else _number)(value, decimals) + suffix


def _value(row: Mapping[str, Any]) -> str:
    return f"{_quantity(row['value'], row['unit'])} ({_sure(row)})"


def _sure(row: Mapping[str, Any]) -> str:
    doubt = "uncertain, " if row["status"] == "uncertain" else ""
    return f"{doubt}{row['confidence']:.0%}"


def _words(name: str) -> str:
    """`possible_l6` as `possible L6`."""
    text = re.sub(r"\b([tls]\d+)\b", lambda level: level[1].upper(), name.replace("_", " "))
    return text.replace("cobb", "Cobb angle").replace("genant", "Genant")


def _site(site: str) -> str:
    """`L1-S1` with the dash of a range."""
    return site.replace("-", "–")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
