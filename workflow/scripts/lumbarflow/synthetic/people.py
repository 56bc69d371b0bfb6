"""Invented patients, examinations and hospitals of several countries, each in its own writing.

Names and places are unusual on purpose: they must not turn up by accident in text that identifies
nobody. Character sets are those that consoles of the region write (DICOM PS3.3 C.12.1.1.2); names
of Japan, Korea and China have an ideographic and a phonetic group (PS3.5 6.2.1).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Region:
    """Names, places and words of one language.

    Parts of names are alphabetic, or alphabetic, ideographic and phonetic joined by `=`.
    """

    share: float  # of the patients
    charsets: tuple[str, ...]  # of Specific Character Set, several with backslashes; "" for none
    families: tuple[str, ...]
    women: tuple[str, ...]
    men: tuple[str, ...]
    title: str  # of physicians, a suffix of names
    institutions: tuple[tuple[str, str], ...]  # name and address
    streets: tuple[str, ...]
    lateral: tuple[str, ...]  # descriptions of a lateral lumbar series
    frontal: tuple[str, ...]
    study: tuple[str, ...]  # descriptions of a study of both views
    postoperative: str


REGIONS: dict[str, Region] = {
    "german": Region(
        0.36,
        ("ISO_IR 100", "ISO_IR 100", "ISO_IR 192"),
        ("Müllerschön", "Großkreuz", "Jägerhuber", "Schröderling", "Öztürkmen", "Zimmerli",
         "Überschaer", "Kleinschmager", "Rübezahn", "Vogelsanger"),
        ("Friederike", "Annegret", "Ingeborg", "Zoë-Marlene", "Rosalinde", "Kunigunde"),
        ("Jürgen-Karl", "Leopoldus", "Günther", "Wolfgang", "Eberhardt", "Thaddäus"),
        "Dr.",
        (("Marienhospital Wolkenstein", "Wolkensteiner Allee 14, 99998 Wolkenstein"),
         ("Universitätsklinik Sternbrück", "Sternbrücker Weg 3, 99997 Sternbrück")),
        ("Holunderweg", "Mühlengasse", "Kastanienallee"),
        ("LWS seitlich", "LWS lat.", "LWS seitl. stehend", "Lendenwirbelsäule seitlich"),
        ("LWS a.p.", "LWS ap stehend", "Lendenwirbelsäule a.p."),
        ("LWS in 2 Ebenen", "LWS seitlich stehend", "Röntgen LWS"),
        "postop.",
    ),
    "english": Region(
        0.2,
        ("ISO_IR 100", "ISO_IR 192", ""),
        ("Hawthorne", "Whitcombe", "Abernathy", "Vanderbilt", "Rutherford", "Winterbourne",
         "Featherstonehaugh", "Ravenscroft"),
        ("Gwendolyn", "Henrietta", "Philippa", "Clementine", "Araminta"),
        ("Bartholomew", "Archibald", "Cornelius", "Peregrine", "Montgomery"),
        "Dr.",
        (("Saint Crispin Infirmary", "221 Crispin Terrace, Northmarket"),
         ("Tollgate General Infirmary", "5 Tollgate Lane, Northmarket")),
        ("Rosemary Crescent", "Tollgate Lane", "Almoner Terrace"),
        ("L-Spine Lateral", "LSPINE LAT", "Lumbar Spine Lat Standing", "Lateral"),
        ("L-Spine AP", "LSPINE AP", "Lumbar Spine AP Standing", "AP"),
        ("Lumbar spine lateral", "L-spine 2 views", "XR Lumbar Spine"),
        "postop",
    ),
    "french": Region(
        0.07,
        ("ISO_IR 100", "ISO_IR 192"),
        ("Lefèvrault", "Beauchesnay", "Châtelguyon", "Desrochemont"),
        ("Séverine", "Françoise", "Apolline", "Bérengère"),
        ("Frédéric", "Guénolé", "Enguerrand", "Barnabé"),
        "Dr",
        (("Hôpital Sainte-Radegonde", "8 quai des Tanneries, 99001 Villebrume"),),
        ("rue des Églantiers", "allée du Colombier"),
        ("Rachis lombaire profil", "LOMBAIRE PROFIL", "Rachis lombaire de profil debout"),
        ("Rachis lombaire face", "LOMBAIRE FACE"),
        ("Rachis lombaire face et profil", "Radiographie du rachis lombaire"),
        "postopératoire",
    ),
    "spanish": Region(
        0.07,
        ("ISO_IR 100", "ISO_IR 192"),
        ("Fernándezuela", "Echeñiquegoitia", "Villalobregón", "Peñarrubiales"),
        ("Maravillas", "Encarnación", "Purificación"),
        ("Guillermón", "Hermenegildo", "Wenceslao"),
        "Dra.",
        (("Hospital Virgen del Encinar", "Paseo del Encinar 12, 99045 Valdeniebla"),),
        ("Calle de los Almendros", "Travesía del Molino"),
        ("Columna lumbar lateral", "COL LUMBAR PERFIL", "Columna lumbosacra lateral"),
        ("Columna lumbar AP", "COL LUMBAR AP"),
        ("Columna lumbar AP y lateral", "Rx columna lumbosacra"),
        "postoperatorio",
    ),
    "italian": Region(
        0.05,
        ("ISO_IR 100", "ISO_IR 192"),
        ("Castiglionese", "Montefeltrino", "Quattrocchietti"),
        ("Fiordalisa", "Immacolata", "Ermenegilda"),
        ("Baldassarre", "Gianfilippo", "Eleuterio"),
        "Dott.",
        (("Ospedale San Callisto", "Viale dei Tigli 30, 99020 Roccanebbia"),),
        ("Via delle Ginestre", "Vicolo del Mulino"),
        ("Rachide lombare LL", "RACHIDE LOMBOSACRALE LL", "Colonna lombare laterale"),
        ("Rachide lombare AP", "Colonna lombare AP"),
        ("RX rachide lombosacrale", "Rachide lombare 2 proiezioni"),
        "postoperatorio",
    ),
    "nordic": Region(
        0.06,
        ("ISO_IR 100", "ISO_IR 192"),
        ("Lindqvistsson", "Østergaardsen", "Brännströmmer", "Søndergårdsvig"),
        ("Ragnfrid", "Solveigard", "Åsbjørg"),
        ("Thorbjörn", "Valdemarius", "Håkonsen"),
        "Dr.",
        (("Björkåsens sjukhus", "Björkåsvägen 7, 999 01 Björkåsen"),),
        ("Syrenstigen", "Åkerbärsgränd"),
        ("Ländrygg sida", "Lumbalkolumna sida stående"),
        ("Ländrygg frontal", "Lumbalkolumna frontal"),
        ("Ländrygg", "Lumbalkolumna"),
        "postop",
    ),
    "polish": Region(
        0.04,
        ("ISO_IR 101", "ISO_IR 192"),
        ("Wąchoczeńska", "Źdźbłowska", "Ćwierkalska"),
        ("Świętosława", "Bożydara"),
        ("Przemysłowit", "Żegociesław"),
        "dr",
        (("Szpital Świętej Kunegundy", "ul. Jarzębinowa 4, 99-901 Mgławice"),),
        ("ul. Jarzębinowa", "ul. Słonecznikowa"),
        ("Kręgosłup lędźwiowy boczne", "L-S bok", "Kręgosłup L-S boczna"),
        ("Kręgosłup lędźwiowy AP", "L-S AP"),
        ("RTG kręgosłupa lędźwiowego", "Kręgosłup L-S AP i boczne"),
        "po operacji",
    ),
    "russian": Region(
        0.04,
        ("ISO_IR 144", "ISO_IR 192"),
        ("Люксембургова", "Преображенцева", "Туманоградова"),
        ("Ярополкина", "Аполлинария"),
        ("Святозарий", "Доримедонт"),
        "д-р",
        (("Клиника Святого Пантелеймона", "Берёзовая аллея 17, Туманоград"),),
        ("Сиреневая улица", "Мельничный переулок"),
        ("Поясничный отдел боковая", "Поясничный отдел позвоночника, бок"),
        ("Поясничный отдел прямая", "Поясничный отдел позвоночника, прямая"),
        ("Рентген поясничного отдела", "Поясничный отдел, 2 проекции"),
        "после операции",
    ),
    "greek": Region(
        0.03,
        ("ISO_IR 126", "ISO_IR 192"),
        ("Διονυσοπουλοσ", "Παπαχαραλαμποσ", "Κωνσταντινιδησ"),
        ("Πολυχρονια", "Τριανταφυλλια"),
        ("Πολυχρονησ", "Θρασυβουλοσ"),
        "",
        (("Νοσοκομειο Αγιοσ Σπυριδων", "Οδοσ Ομιχλησ 21, 99904 Νεφελοπολη"),),
        ("Οδοσ Αμυγδαλιασ", "Οδοσ Μυλου"),
        ("ΟΜΣΣ πλάγια", "Οσφυϊκή μοίρα πλάγια"),
        ("ΟΜΣΣ προσθιοπίσθια", "Οσφυϊκή μοίρα προσθιοπίσθια"),
        ("Ακτινογραφία ΟΜΣΣ",),
        "μετεγχειρητικά",
    ),
    "japanese": Region(
        0.03,
        ("\\ISO 2022 IR 87", "ISO_IR 192"),
        ("Nagumo=南雲=なぐも", "Hayami=速水=はやみ", "Mizuno=水野=みずの"),
        ("Chiharu=千晴=ちはる", "Tomoe=巴絵=ともえ"),
        ("Kiyoshi=清志=きよし", "Tatsuo=辰緒=たつお"),
        "",
        (("霧ヶ丘中央病院", "霧ヶ丘三丁目十四番"),),
        ("椿通り", "水車小路"),
        ("腰椎 側面", "腰椎側面 立位"),
        ("腰椎 正面", "腰椎正面 立位"),
        ("腰椎 2方向", "腰椎X線"),
        "術後",
    ),
    "korean": Region(
        0.025,
        ("\\ISO 2022 IR 149", "ISO_IR 192"),
        ("Hwangbo=皇甫=황보", "Namgung=南宮=남궁", "Seonwoo=鮮于=선우"),
        ("Byeolha=別河=별하", "Saebyeok=賽碧=새벽"),
        ("Garamhyeok=佳藍赫=가람혁", "Haneulbit=河訥彬=하늘빛"),
        "",
        (("안개마을중앙병원", "안개마을길 27"),),
        ("동백나무길", "물레방아길"),
        ("요추 측면", "요추 측면 기립"),
        ("요추 전후면", "요추 정면"),
        ("요추 2방향",),
        "수술후",
    ),
    "chinese": Region(
        0.025,
        ("GB18030", "ISO_IR 192"),
        ("Ouyangzhao=欧阳昭", "Shangguanyun=上官云", "Murongfei=慕容霏"),
        ("Zhaoxinghua=昭星华", "Lanxinyue=兰心月"),
        ("Zhaoxingde=昭星德", "Haoranming=浩然明"),
        "",
        (("雾山中心医院", "雾山市银杏路三十六号"),),
        ("银杏路", "水磨巷"),
        ("腰椎 侧位", "腰椎侧位片"),
        ("腰椎 正位", "腰椎正位片"),
        ("腰椎正侧位",),
        "术后",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """An invented patient; every field but `sex` and `region` identifies."""

    name: str  # DICOM PN
    patient_id: str
    other_id: str
    birth_date: str  # YYYYMMDD
    address: str
    telephone: str
    sex: str  # F or M
    region: str  # of REGIONS


@dataclass(frozen=True)
class Study:
    """An examination of a patient."""

    uid: str
    date: str
    time: str
    accession_number: str
    description: str
    institution: str
    institution_address: str
    referring_physician: str
    operator: str


def make_patient(rng: np.random.Generator, region: str | None = None) -> Patient:
    """Invent an adult patient, of any region if none is named."""
    if region is None:
        shares = np.array([r.share for r in REGIONS.values()])
        region = str(rng.choice(list(REGIONS), p=shares / shares.sum()))
    here = REGIONS[region]
    sex = str(rng.choice(("F", "M")))
    given = here.women if sex == "F" else here.men
    parts = [_one(rng, here.families), _one(rng, given)]
    # Two given names in other scripts would be longer than some readers allow a name to be.
    if rng.random() < 0.15 and "ISO_IR 100" in here.charsets:
        parts.append(_one(rng, given))
    born = datetime.date(1935, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 20000)))
    town = here.institutions[0][1].split(",")[-1].strip()
    return Patient(
        name=_person_name(parts),
        patient_id=f"PID{rng.integers(10**7, 10**8)}",
        other_id=f"KV{rng.integers(10**8, 10**9)}",
        birth_date=born.strftime("%Y%m%d"),
        address=f"{_one(rng, here.streets)} {rng.integers(100, 1000)}, {town}",
        telephone=f"+990-{rng.integers(10**3, 10**4)}-{rng.integers(10**5, 10**6)}",
        sex=sex,
        region=region,
    )


def make_study(
    rng: np.random.Generator, patient: Patient, date: datetime.date, postoperative: bool
) -> Study:
    """Invent a study of a patient on a day."""
    here = REGIONS[patient.region]
    institution, address = here.institutions[rng.integers(len(here.institutions))]
    description = _one(rng, here.study)
    return Study(
        uid=make_uid(rng),
        date=date.strftime("%Y%m%d"),
        time=f"{rng.integers(7, 18):02d}{rng.integers(60):02d}{rng.integers(60):02d}",
        accession_number=f"ACC{rng.integers(10**9, 10**10)}",
        description=f"{description}, {here.postoperative}" if postoperative else description,
        institution=institution,
        institution_address=address,
        referring_physician=_physician(rng, here),
        operator=_physician(rng, here),
    )


def make_uid(rng: np.random.Generator) -> str:
    """A UID below the 2.25 root (PS3.5, B.2) from 120 random bits."""
    return f"2.25.{int.from_bytes(rng.bytes(15), 'big')}"


def identifiers(patient: Patient, study: Study) -> set[str]:
    """Every identifying string of a patient and a study, names also part by part."""
    names = (patient.name, study.referring_physician, study.operator)
    found = {
        *names, patient.patient_id, patient.other_id, patient.birth_date, patient.address,
        patient.telephone, study.accession_number, study.institution, study.institution_address,
    }  # fmt: skip
    titles = {region.title for region in REGIONS.values()}
    for name in names:
        groups = name.split("=")
        found.update(groups)
        found.update(part for group in groups for part in group.split("^"))
    return found - titles - {""}


def alphabetic(name: str) -> tuple[str, str]:
    """Family and given name of a PN's alphabetic group."""
    family, given, *_ = [*name.split("=")[0].split("^"), ""]
    return family, given


def _one(rng: np.random.Generator, texts: Iterable[str]) -> str:
    texts = tuple(texts)
    return texts[rng.integers(len(texts))]


def _physician(rng: np.random.Generator, here: Region) -> str:
    parts = [_one(rng, here.families), _one(rng, here.women + here.men)]
    return _person_name(parts, here.title)


def _person_name(parts: list[str], title: str = "") -> str:
    """A PN of parts whose groups are joined by `=`; a title goes into the alphabetic one."""
    groups = ["^".join(group) for group in zip(*(part.split("=") for part in parts), strict=True)]
    if title:
        groups[0] += "^" * (4 - len(parts)) + title  # the prefix is the fourth component
    return "=".join(groups)
