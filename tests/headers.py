"""Invented headers of radiographs that imitate real ones, with the truth, and the confusion table.

What equipment writes follows what makers' equipment is seen to write: AP and `L\\F` for every film
(Agfa), the protocol in the processing description (Fuji, GE), codes and orientation (Siemens),
nothing but a body part (Konica Minolta), descriptions removed (clinical trials). Descriptions come
from header_phrases.toml, of which the part `held_out` was not looked at while the word lists of the
classifier were made. Run this file to print the table.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from lumbarflow.acquire.view import choose

PHRASES = Path(__file__).with_name("header_phrases.toml")
SEEDS = {"develop": 1, "held_out": 2}

# Share of each kind of film among those that a query for the spine brings.
KINDS = {
    "lumbar_lateral": 34,
    "lumbar_functional": 8,
    "lumbar_frontal": 17,
    "lumbar_oblique": 3,
    "lumbar_bending": 2,
    "lumbar_part": 3,
    "whole_spine_lateral": 4,
    "whole_spine_frontal": 3,
    "cervical_lateral": 5,
    "cervical_frontal": 2,
    "thoracic_lateral": 4,
    "thoracic_frontal": 2,
    "sacrum_lateral": 1,
    "chest_lateral": 3,
    "chest_frontal": 3,
    "other_lateral": 3,
    "other_frontal": 3,
}
WANTED = {"lumbar_lateral", "lumbar_functional"}
# Languages, the more common ones more often.
LANGUAGES = {"english": 8, "german": 4, "hungarian": 3, "french": 2, "spanish": 2}
BODY_PARTS = {
    "lumbar": ["LSPINE", "LSPINE", "LSPINE", "SPINE", "LUMBAR", "L-SPINE", "LUMBAR SPINE", "LWS"],
    "whole": ["SPINE", "WSPINE", "SPINE", "LSPINE"],
    "cervical": ["CSPINE", "CSPINE", "SPINE", "NECK"],
    "thoracic": ["TSPINE", "TSPINE", "SPINE"],
    "sacrum": ["SSPINE", "COCCYX", "PELVIS", "LSPINE"],
    "chest": ["CHEST", "CHEST", "THORAX"],
    "other": ["EXTREMITY", "PELVIS", "ABDOMEN", "KNEE", "HIP"],
}
ANATOMY = {
    "lumbar": ("T-11503", "122496007", "Lumbar spine"),
    "cervical": ("T-11501", "122494005", "Cervical spine"),
    "thoracic": ("T-11502", "122495006", "Thoracic spine"),
    "whole": ("T-D04FF", "421060004", "Spine"),
    "sacrum": ("T-11AD0", "54735007", "Sacrum"),
    "chest": ("T-D3000", "51185008", "Chest"),
    "other": ("T-D0300", "66019005", "Extremity"),
}
VIEW_CODES = {
    "left lateral": ("R-10236", "399173006"),
    "right lateral": ("R-10232", "399198007"),
    "lateral": ("R-102CD", "399067008"),
    "antero-posterior": ("R-10206", "399348003"),
    "left oblique": ("R-10238", "399184004"),
}


@dataclass(frozen=True)
class Header:
    """An invented header; `kind` is what the film shows, `lateral_lumbar` whether it is wanted."""

    dataset: Dataset
    kind: str
    maker: str

    @property
    def lateral_lumbar(self) -> bool:
        return self.kind in WANTED


class _Film:
    """What is known of a film while its header is written."""

    def __init__(self, phrases: dict[str, dict[str, list[str]]], rng: np.random.Generator):
        self.rng = rng
        self.kind = str(rng.choice(list(KINDS), p=_shares(KINDS.values())))
        self.region = self.kind.split("_")[0]
        view = self.kind.rsplit("_", 1)[1]
        self.view = {"functional": "lateral", "part": "lateral", "bending": "frontal"}.get(
            view, view
        )
        weights = [LANGUAGES.get(name, 1) for name in phrases]
        self.language = phrases[str(rng.choice(list(phrases), p=_shares(weights)))]
        self.english = phrases["english"]

    def one(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def phrase(self, *kinds: str) -> str:
        """A description of the first kind that there is, in the film's language or in English."""
        for kind in kinds:
            for bank in (self.language, self.english):
                if bank.get(kind):
                    return self._typed(str(self.one(*bank[kind])))
        return ""

    def full(self) -> str:
        return self.phrase(self.kind, f"{self.region}_{self.view}")

    def bare(self) -> str:
        return self.phrase(f"bare_{self.view}") if self.view != "oblique" else "OBL"

    def study(self) -> str:
        name = {"whole": "study_whole_spine", "sacrum": "study_other"}.get(self.region)
        return self.phrase(name or f"study_{self.region}")

    def _typed(self, text: str) -> str:
        """The text as it may come: capitals, no accents, underscores, cut off, mistyped."""
        if self.chance(0.2):
            text = text.upper()
        if self.chance(0.15):
            text = text.translate(
                str.maketrans("äöüÄÖÜéèêáíóúűőęąśćżłčřšžå", "aouAOUeeeaiouuoeasczlcrsza")
            )
        elif self.chance(0.1):
            for letter, pair in {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"}.items():
                text = text.replace(letter, pair)
        if self.chance(0.08):
            text = text.replace(" ", "_")
        if self.chance(0.04):
            text = text[:16]
        if self.chance(0.03) and len(text) > 6:
            place = int(self.rng.integers(1, len(text) - 1))
            text = text[:place] + text[place + 1 :]
        if self.chance(0.05):
            text += str(self.one(" 1", "_2", " (2)", " *"))
        return text

    # What the equipment writes of the view, right, left out or as it comes from the factory.

    def position(self, right: float, default: float) -> str:
        draw = self.rng.random()
        if draw < right:
            return self.true_position()
        if draw < right + default:
            return "AP"
        if draw < right + default + 0.04:
            return "LL" if self.view == "frontal" else "PA"
        return ""

    def true_position(self) -> str:
        if self.view == "lateral":
            return self.one("LL", "LL", "RL", "LATERAL", "LAT")
        return self.one("AP", "AP", "PA") if self.view == "frontal" else self.one("LLO", "RLO")

    def orientation(self, right: float, default: float) -> list[str] | None:
        draw = self.rng.random()
        if draw < right:
            side = self.one("A", "P") if self.view == "lateral" else self.one("L", "R")
            return [side, "F"]
        return ["L", "F"] if draw < right + default else None

    def view_code(self, default: bool, scheme: str) -> Sequence:
        name = {"lateral": self.one("left lateral", "right lateral", "lateral")}.get(
            self.view, "left oblique" if self.view == "oblique" else "antero-posterior"
        )
        name = "antero-posterior" if default else name
        return _code(VIEW_CODES[name][scheme == "SCT"], scheme, name)

    def body_part(self) -> str:
        if self.chance(0.05):  # chosen for the other pictures of the study, or the factory's
            return self.one("SPINE", "ABDOMEN", "PELVIS", "CSPINE", "LSPINE", "CHEST")
        return self.one(*BODY_PARTS[self.region])

    def anatomy(self, scheme: str) -> Sequence:
        snomed_rt, snomed_ct, meaning = ANATOMY[self.region]
        return _code(snomed_ct if scheme == "SCT" else snomed_rt, scheme, meaning)


def _shares(weights: Iterable[float]) -> np.ndarray:
    weights = np.array(list(weights), float)
    return weights / weights.sum()


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def _agfa(film: _Film) -> dict[str, Any]:
    """AP and L\\F for nearly every film; what it shows is in the series description."""
    position = film.position(0.25, 0.7)
    found = {
        "Modality": film.one("CR", "DX"),
        "SeriesDescription": film.full(),
        "BodyPartExamined": film.body_part(),
        "ViewPosition": position,
        "PatientOrientation": film.orientation(0.05, 0.9),
    }
    if found["Modality"] == "DX":
        found["ViewCodeSequence"] = film.view_code(position == "AP", film.one("SNM3", "SRT"))
        found["AnatomicRegionSequence"] = film.anatomy("SNM3")
    return found


def _fuji(film: _Film) -> dict[str, Any]:
    """The menu of the console as processing description; the series tells the region at most."""
    return {
        "Modality": "CR",
        "AcquisitionDeviceProcessingDescription": film.full(),
        "SeriesDescription": film.one("", "", film.study(), film.bare()),
        "BodyPartExamined": film.one(film.body_part(), film.body_part(), ""),
        "ViewPosition": film.position(0.45, 0.1),
        "PatientOrientation": film.orientation(0.4, 0.4),
    }


def _siemens(film: _Film) -> dict[str, Any]:
    """An organ programme as protocol, codes and orientation that are mostly right."""
    text = film.full()
    return {
        "Modality": "DX",
        "SeriesDescription": text if film.chance(0.8) else film.bare(),
        "ProtocolName": text,
        "AcquisitionDeviceProcessingDescription": text if film.chance(0.4) else "",
        "BodyPartExamined": film.body_part(),
        "ViewPosition": film.position(0.6, 0.05),
        "PatientOrientation": film.orientation(0.8, 0.1),
        "ViewCodeSequence": film.view_code(film.chance(0.05), film.one("SRT", "SCT"))
        if film.chance(0.6)
        else None,
        "AnatomicRegionSequence": film.anatomy(film.one("SRT", "SCT")),
    }


def _philips(film: _Film) -> dict[str, Any]:
    return {
        "Modality": "DX",
        "ProtocolName": film.full(),
        "SeriesDescription": film.one(film.bare(), film.study(), ""),
        "BodyPartExamined": film.body_part(),
        "ViewPosition": film.position(0.5, 0.05),
        "PatientOrientation": film.orientation(0.6, 0.2),
    }


def _ge(film: _Film) -> dict[str, Any]:
    return {
        "Modality": "DX",
        "SeriesDescription": film.bare(),
        "AcquisitionDeviceProcessingDescription": film.full() if film.chance(0.7) else "",
        "PerformedProcedureStepDescription": film.study(),
        "BodyPartExamined": film.body_part(),
        "ViewPosition": film.position(0.7, 0.05),
        "PatientOrientation": film.orientation(0.6, 0.2),
        "ViewCodeSequence": film.view_code(False, "SRT") if film.chance(0.7) else None,
        "AnatomicRegionSequence": film.anatomy("SRT"),
    }


def _konica(film: _Film) -> dict[str, Any]:
    """Hardly anything but the body part."""
    return {
        "Modality": "CR",
        "SeriesDescription": film.one("", film.bare(), film.full()),
        "BodyPartExamined": film.one(film.body_part(), ""),
        "ViewPosition": film.position(0.35, 0.1),
        "PatientOrientation": film.orientation(0.2, 0.3),
    }


def _carestream(film: _Film) -> dict[str, Any]:
    return {
        "Modality": film.one("CR", "DX"),
        "SeriesDescription": film.full(),
        "BodyPartExamined": film.body_part(),
        "ViewPosition": film.position(0.75, 0.05),
        "PatientOrientation": film.orientation(0.3, 0.3),
    }


def _trial(film: _Film) -> dict[str, Any]:
    """Descriptions removed for a trial; codes and what equipment wrote are left."""
    return {
        "Modality": "DX",
        "BodyPartExamined": film.body_part(),
        "ViewPosition": film.position(0.7, 0.1),
        "PatientOrientation": film.orientation(0.5, 0.2),
        "ViewCodeSequence": film.view_code(False, "SCT") if film.chance(0.4) else None,
        "AnatomicRegionSequence": film.anatomy("SCT"),
    }


MAKERS = {
    _agfa: 4,
    _fuji: 3,
    _siemens: 4,
    _philips: 3,
    _ge: 3,
    _konica: 2,
    _carestream: 2,
    _trial: 1,
}


def headers(count: int, seed: int, part: str) -> Iterator[Header]:
    """Make headers.

    Args:
        count: how many.
        seed: of everything that is drawn.
        part: `develop` or `held_out`, the phrases to use.
    """
    phrases = tomllib.loads(PHRASES.read_text(encoding="utf-8"))[part]
    rng = np.random.default_rng(seed)
    for _ in range(count):
        film = _Film(phrases, rng)
        maker = list(MAKERS)[int(rng.choice(len(MAKERS), p=_shares(MAKERS.values())))]
        found = maker(film)
        if maker is not _trial and film.chance(0.8):
            found["StudyDescription"] = film.study()
        if maker is not _trial and film.chance(0.2):
            request = Dataset()
            request.RequestedProcedureDescription = film.study()
            found["RequestAttributesSequence"] = Sequence([request])
        if film.chance(0.015):  # the other picture's description was never changed
            other = {"lateral": "frontal"}.get(film.view, "lateral")
            found["SeriesDescription"] = film.phrase(f"{film.region}_{other}")
        for keyword in [name for name in found if name != "Modality"]:
            if film.chance(0.08):
                del found[keyword]
        dataset = Dataset()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in found.items():
            if value is not None:
                setattr(dataset, keyword, value)
        yield Header(dataset, film.kind, maker.__name__.strip("_"))


OUTCOMES = ("accepted", "rejected", "uncertain")


def confusion(cohort: Iterable[Header]) -> pd.DataFrame:
    """Number of films by truth (`lateral lumbar`, `other`) and by what becomes of them."""
    table = pd.DataFrame(0, index=["lateral lumbar", "other"], columns=list(OUTCOMES))
    for header in cohort:
        table.loc[_truth(header), outcome(header)] += 1
    return table


def outcome(header: Header) -> str:
    """What becomes of a film."""
    reason = choose(header.dataset).reason
    return {None: "accepted", "view_uncertain": "uncertain"}.get(reason, "rejected")


def _truth(header: Header) -> str:
    return "lateral lumbar" if header.lateral_lumbar else "other"


def scores(table: pd.DataFrame) -> dict[str, float]:
    """Precision of what is accepted; recall among all films, and among those that are decided."""
    wanted = table.loc["lateral lumbar"]
    return {
        "precision": wanted["accepted"] / table["accepted"].sum(),
        "recall": wanted["accepted"] / wanted.sum(),
        "recall of decided": wanted["accepted"] / (wanted["accepted"] + wanted["rejected"]),
        "uncertain": table["uncertain"].sum() / table.to_numpy().sum(),
    }


def main() -> None:
    """Print the table and the scores of a cohort."""
    parser = argparse.ArgumentParser(description="Confusion table of the view choice.")
    parser.add_argument("--part", choices=["develop", "held_out"], default="held_out")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, help="default: that of the part")
    parser.add_argument("--mistakes", action="store_true", help="show the headers, too")
    options = parser.parse_args()
    seed = SEEDS[options.part] if options.seed is None else options.seed
    cohort = list(headers(options.count, seed, options.part))
    table = confusion(cohort)
    print(table.to_string())
    print(", ".join(f"{name} {value:.3f}" for name, value in scores(table).items()))
    if options.mistakes:
        for header in cohort:
            right = "accepted" if header.lateral_lumbar else "rejected"
            if outcome(header) != right:
                print(f"\n{header.kind} by {header.maker}: {outcome(header)}")
                print("  " + " ".join(choose(header.dataset).evidence))
                for element in header.dataset:
                    print("  " + str(element).replace("\n", " "))


if __name__ == "__main__":
    main()
