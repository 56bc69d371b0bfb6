"""Who a patient is in numbers: sagittal alignment, sizes and disease, drawn from published data.

Sources:
    Sacral slope, lordosis L1-S1 and their correlation: Vialle et al., J Bone Joint Surg Am
    2005;87:260 (300 volunteers: 41.2 +/- 8.4 and 60.2 +/- 10.3 degrees, r = 0.86).
    Depths, widths and pedicles: Panjabi et al., Spine 1991;16:888 (thoracic) and 1992;17:299
    (lumbar), rounded. Body and disc heights: Zhou et al., Eur Spine J 2000;9:242, rounded and
    carried on to the levels that it does not measure.
    Disc degeneration, loss of disc height and spondylolisthesis by age: Brinjikji et al., AJNR
    2015;36:811 (table of prevalences by decade).
    Fracture shapes and grades: Genant et al., J Bone Miner Res 1993;8:1137.
    Transitional and supernumerary vertebrae, 4-30 %: Konin and Walz, AJNR 2010;31:1778.

How one table is shared among levels, and the difference between the sexes (women's bodies about
8 % smaller), are this module's simplifications.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

SACRAL_SLOPE = (41.2, 8.4)  # degrees: mean, standard deviation
LORDOSIS = (60.2, 10.3)
SLOPE_LORDOSIS_CORRELATION = 0.86
FEMALE_SIZE, MALE_SIZE = 0.96, 1.04
SIZE_SPREAD, LEVEL_SPREAD = 0.045, 0.02  # relative standard deviations: patients, levels

THORACIC = ("T8", "T9", "T10", "T11", "T12")
LUMBAR = ("L1", "L2", "L3", "L4", "L5")
FRACTURES = ("wedge", "biconcave", "crush")


@dataclass(frozen=True)
class Typical:
    """A level of the typical adult, mm and degrees; wedges are positive where higher in front."""

    height: float
    depth: float
    width: float
    wedge: float
    disc_height: float  # of the disc below
    disc_wedge: float
    pedicle: tuple[float, float]  # half-width, half-height


TYPICAL = {
    "T8": Typical(20.5, 27.5, 28.5, -4.0, 4.2, 0.0, (2.6, 5.6)),
    "T9": Typical(21.5, 28.5, 30.0, -4.0, 4.5, 0.5, (2.8, 6.2)),
    "T10": Typical(23.0, 29.5, 32.0, -4.0, 5.0, 1.0, (3.1, 6.8)),
    "T11": Typical(24.0, 30.5, 35.5, -4.0, 5.5, 1.5, (3.8, 7.6)),
    "T12": Typical(25.5, 31.5, 39.0, -4.0, 6.2, 2.0, (4.1, 7.8)),
    "L1": Typical(26.5, 32.5, 42.0, -3.0, 7.3, 5.0, (4.2, 7.8)),
    "L2": Typical(27.5, 33.5, 44.0, -1.0, 8.4, 7.0, (4.3, 7.5)),
    "L3": Typical(28.0, 34.5, 46.0, 1.0, 9.4, 9.0, (5.1, 7.3)),
    "L4": Typical(28.0, 35.0, 48.0, 3.0, 10.2, 11.0, (6.6, 7.5)),
    "L5": Typical(27.0, 35.0, 49.5, 9.0, 9.5, 14.0, (8.6, 8.5)),
}
# What the table above adds up to between the endplates of L1 and S1.
_TYPICAL_LORDOSIS = sum(TYPICAL[n].wedge + TYPICAL[n].disc_wedge for n in LUMBAR)

# Brinjikji et al. 2015: loss of disc height and spondylolisthesis, per cent at ages 20, 30 ... 80.
_AGES = np.arange(20, 90, 10)
_DISC_HEIGHT_LOSS = np.array([24, 34, 45, 56, 67, 76, 84]) / 100
_SPONDYLOLISTHESIS = np.array([3, 5, 8, 14, 23, 35, 50]) / 100


@dataclass(frozen=True)
class Level:
    """What is drawn for one vertebra and the disc below it; mm and radians."""

    name: str
    height: float
    depth: float
    width: float
    wedge: float
    disc_height: float
    disc_wedge: float
    pedicle: tuple[float, float]
    waist: float  # how far the walls bend in, relative to the half-depth
    dish: tuple[float, float]  # depth of the upper and lower endplate's hollow
    osteophytes: tuple[float, float] = (0.0, 0.0)  # length in front, at the upper and lower rim
    slip: float = 0.0  # of this vertebra on the one below, positive forwards
    fracture: str | None = None
    loss: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of height: in front, middle, behind (0-1)
    tilt: float = 0.0  # to the patient's right, about the antero-posterior axis
    rotation: float = 0.0  # about the long axis


@dataclass(frozen=True)
class Build:
    """One patient: levels from cranial to caudal, and the pelvis that they stand on."""

    sex: str
    age: int
    size: float
    sacral_slope: float  # radians
    lordosis: float  # L1-S1, radians, as drawn (before disease)
    levels: tuple[Level, ...]
    variant: str | None  # "L6", "T13", "sacralised L5" or none
    density: float  # of bone, 1 in a healthy adult
    calcification: float  # of the aorta, 0 to 1
    fat: float  # of the trunk, 0.75 to 1.5
    diseases: tuple[str, ...] = field(default=())


def prevalence(table: np.ndarray, age: float) -> float:
    """A prevalence of Brinjikji's table at an age in years, between its decades."""
    return float(np.interp(age, _AGES, table))


def draw_build(
    rng: np.random.Generator,
    sex: str | None = None,
    age: int | None = None,
    *,
    healthy: bool = False,
    fracture: bool | None = None,
) -> Build:
    """Draw a patient.

    Args:
        rng: the only source of chance.
        sex: "F" or "M"; drawn where none is given.
        age: in years, 18 to 95; drawn where none is given.
        healthy: no disease, no variant, no scoliosis and no turn of single vertebrae.
        fracture: whether a body is fractured; drawn by age where none is given.
    """
    sex = sex or str(rng.choice(("F", "M")))
    age = int(age if age is not None else np.clip(rng.normal(58, 16), 18, 92))
    size = (FEMALE_SIZE if sex == "F" else MALE_SIZE) * float(
        np.clip(rng.normal(1.0, SIZE_SPREAD), 0.87, 1.13)
    )
    slope, lordosis = _draw_alignment(rng)
    share = lordosis / _TYPICAL_LORDOSIS
    levels = []
    for name in (*THORACIC, *LUMBAR):
        typical = TYPICAL[name]
        lumbar = share if name in LUMBAR else 1.0
        levels.append(
            Level(
                name=name,
                height=typical.height * size * rng.normal(1.0, LEVEL_SPREAD),
                depth=typical.depth * size * rng.normal(1.0, LEVEL_SPREAD),
                width=typical.width * size * rng.normal(1.0, LEVEL_SPREAD),
                wedge=np.radians(typical.wedge * lumbar + rng.normal(0.0, 0.8)),
                disc_height=typical.disc_height * size * rng.normal(1.0, 0.06),
                disc_wedge=np.radians(typical.disc_wedge * lumbar + rng.normal(0.0, 0.8)),
                pedicle=tuple(p * size * rng.normal(1.0, 0.06) for p in typical.pedicle),
                waist=float(rng.uniform(0.07, 0.13)),
                dish=(float(rng.uniform(0.6, 1.6)), float(rng.uniform(1.0, 2.2))),
                osteophytes=tuple(float(v) for v in rng.uniform(0.0, 0.25, 2)),
            )
        )
    levels = _settle(levels, lordosis)
    build = Build(
        sex=sex,
        age=age,
        size=size,
        sacral_slope=np.radians(slope),
        lordosis=np.radians(lordosis),
        levels=tuple(levels),
        variant=None,
        density=float(np.clip(rng.normal(1.15 - 0.005 * max(age - 30, 0), 0.12), 0.5, 1.4)),
        calcification=float(np.clip((age - 50) / 40 + rng.normal(-0.2, 0.3), 0.0, 1.0)),
        fat=float(np.clip(rng.normal(1.02, 0.16), 0.75, 1.5)),
    )
    return build if healthy else _draw_disease(rng, _draw_variant(rng, build), fracture)


def _draw_alignment(rng: np.random.Generator) -> tuple[float, float]:
    """Sacral slope and lordosis L1-S1 in degrees, correlated; the rare extremes are drawn again."""
    r = SLOPE_LORDOSIS_CORRELATION
    while True:
        a, b = rng.standard_normal(2)
        b = r * a + np.sqrt(1 - r * r) * b
        if abs(a) < 3 and abs(b) < 3:
            return SACRAL_SLOPE[0] + SACRAL_SLOPE[1] * a, LORDOSIS[0] + LORDOSIS[1] * b


def _settle(levels: list[Level], lordosis: float) -> list[Level]:
    """Share out what the levels' own chance took from or added to the drawn lordosis."""
    lumbar = [level for level in levels if level.name in LUMBAR]
    rest = np.radians(lordosis) - sum(level.wedge + level.disc_wedge for level in lumbar)
    share = rest / len(lumbar)
    return [
        replace(level, disc_wedge=level.disc_wedge + share) if level.name in LUMBAR else level
        for level in levels
    ]


def _draw_variant(rng: np.random.Generator, build: Build) -> Build:
    """Rarely a sixth lumbar or a thirteenth thoracic vertebra, or an L5 grown to the sacrum."""
    variant = rng.choice(("", "L6", "T13", "sacralised L5"), p=(0.9, 0.03, 0.02, 0.05))
    if not variant:
        return build
    levels = list(build.levels)
    if variant == "L6":
        last = levels[-1]
        # Two segments share the wedge of one.
        levels[-1] = replace(
            last, wedge=last.wedge * 0.45, disc_wedge=last.disc_wedge * 0.55, height=last.height
        )
        levels.append(
            replace(
                last, name="L6", wedge=last.wedge * 0.55, disc_wedge=last.disc_wedge * 0.45,
                width=last.width * 1.02, height=last.height * 0.97,
            )
        )  # fmt: skip
    elif variant == "T13":
        at = [level.name for level in levels].index("L1")
        levels.insert(at, replace(levels[at - 1], name="T13"))
    else:
        levels[-1] = replace(
            levels[-1], disc_height=levels[-1].disc_height * 0.45, width=levels[-1].width * 1.06
        )
    return replace(build, levels=tuple(levels), variant=str(variant))


def _draw_disease(rng: np.random.Generator, build: Build, fracture: bool | None) -> Build:
    levels = {level.name: level for level in build.levels}
    diseases = []
    lumbar = [name for name in levels if name.startswith("L")]

    if rng.random() < prevalence(_DISC_HEIGHT_LOSS, build.age):
        diseases.append("disc height loss")
        weights = np.linspace(0.4, 1.6, len(lumbar))
        count = int(rng.integers(1, 4))
        for name in rng.choice(lumbar, count, replace=False, p=weights / weights.sum()):
            level = levels[name]
            left = float(rng.uniform(0.3, 0.8))
            # Narrow discs stand more parallel; their neighbours do not make up for it here.
            levels[name] = replace(
                level, disc_height=level.disc_height * left, disc_wedge=level.disc_wedge * left**0.5
            )
            _grow_osteophytes(rng, levels, name, 6.0 * (1 - left) + 1.0)
    if build.age > 45 and rng.random() < 0.012 * (build.age - 45):
        diseases.append("osteophytes")
        for name in rng.choice([*lumbar, "T12"], int(rng.integers(1, 4)), replace=False):
            _grow_osteophytes(rng, levels, str(name), rng.uniform(2.0, 7.0))
    if rng.random() < prevalence(_SPONDYLOLISTHESIS, build.age):
        diseases.append("spondylolisthesis")
        name = str(rng.choice(("L3", "L4", "L5"), p=(0.15, 0.5, 0.35)))
        # Meyerding grades I (up to a quarter of the depth), II and, at L5, III.
        grade = rng.choice((1, 2, 3), p=(0.8, 0.16, 0.04) if name == "L5" else (0.88, 0.12, 0.0))
        part = rng.uniform(0.08, 0.24) if grade == 1 else 0.25 * grade - rng.uniform(0.03, 0.22)
        backwards = grade == 1 and rng.random() < 0.2
        slip = levels[name].depth * (-0.5 * part if backwards else part)
        levels[name] = replace(
            levels[name], slip=float(slip), disc_height=levels[name].disc_height * 0.75
        )
    if fracture is None:
        fracture = rng.random() < 0.004 * max(build.age - 45, 5)
    if fracture:
        diseases.append("fracture")
        for _ in range(int(rng.choice((1, 2), p=(0.75, 0.25)))):
            name = str(rng.choice(("T11", "T12", "L1", "L2", "L3", "L4"),
                                  p=(0.1, 0.25, 0.3, 0.15, 0.1, 0.1)))  # fmt: skip
            levels[name] = _fracture(rng, levels[name])
    if rng.random() < 0.12:
        diseases.append("scoliosis")
        _bend_sideways(rng, levels, float(rng.uniform(10, 28)))
    return replace(
        build, levels=tuple(_apart(lv) for lv in levels.values()), diseases=tuple(diseases)
    )


def _apart(level: Level) -> Level:
    """A level whose endplates do not meet behind (or in front): bone does not run into bone."""
    most = 2 * np.arctan(max(level.disc_height - 1.0, 0.2) / (1.08 * level.depth))
    return replace(level, disc_wedge=float(np.clip(level.disc_wedge, -most, most)))


def _grow_osteophytes(
    rng: np.random.Generator, levels: dict[str, Level], name: str, length: float
) -> None:
    """Spurs on both sides of the disc below `name`, about `length` mm."""
    names = list(levels)
    level = levels[name]
    grown = float(length * rng.uniform(0.6, 1.3))
    levels[name] = replace(level, osteophytes=(level.osteophytes[0], grown))
    if name != names[-1]:
        below = names[names.index(name) + 1]
        grown = float(length * rng.uniform(0.6, 1.3))
        levels[below] = replace(levels[below], osteophytes=(grown, levels[below].osteophytes[1]))


def _fracture(rng: np.random.Generator, level: Level) -> Level:
    """Genant's shapes at grades 1 to 3: 20 to 25, 25 to 40 and 40 to 60 % of the height lost."""
    kind = str(rng.choice(FRACTURES, p=(0.6, 0.25, 0.15)))
    low, high = ((0.2, 0.25), (0.25, 0.4), (0.4, 0.6))[rng.choice(3, p=(0.35, 0.4, 0.25))]
    lost = float(rng.uniform(low, high))
    loss = {
        "wedge": (lost, lost * 0.55, lost * rng.uniform(0.0, 0.15)),
        "biconcave": (lost * 0.15, lost, lost * 0.12),
        "crush": (lost, lost, lost * rng.uniform(0.75, 0.95)),
    }[kind]
    return replace(level, fracture=kind, loss=loss)


def _bend_sideways(rng: np.random.Generator, levels: dict[str, Level], cobb: float) -> None:
    """A lateral curve of `cobb` degrees with the rotation that goes with it."""
    side = rng.choice((-1, 1))
    names = list(levels)
    apex = names.index(str(rng.choice(("L1", "L2", "L3"))))
    for i, name in enumerate(names):
        away = (i - apex) / 3.0
        tilt = side * np.radians(cobb / 2) * np.sin(np.clip(away, -1.6, 1.6))
        rotation = side * np.radians(cobb * 0.45) * np.exp(-(away**2))
        levels[name] = replace(levels[name], tilt=float(tilt), rotation=float(rotation))
