"""From lengths of materials along the rays to the grey values that a console shows.

Mass attenuation coefficients are those of the NIST tables (Hubbell and Seltzer, NISTIR 5632),
tissues as of ICRU Report 44; the tube's spectrum is Kramers' law behind aluminium.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

ENERGIES_KEV = np.array([30.0, 40.0, 50.0, 60.0, 80.0, 100.0])
_DENSITY = {
    "tissue": 1.06, "bone": 1.92, "aluminium": 2.699, "titanium": 4.506, "steel": 7.9,
    "cobalt_chrome": 8.3, "tantalum": 16.65, "peek": 1.3, "cement": 1.35, "lead": 11.35,
}  # fmt: skip
_MASS_ATTENUATION = {  # cm2/g
    "tissue": (0.379, 0.2688, 0.2264, 0.2048, 0.1823, 0.1693),
    "bone": (1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855),
    "aluminium": (1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704),
    "titanium": (4.972, 2.214, 1.213, 0.7661, 0.4052, 0.2721),
    "steel": (8.176, 3.629, 1.958, 1.205, 0.5952, 0.3717),
    "cobalt_chrome": (8.3, 3.7, 2.0, 1.23, 0.605, 0.376),
    "tantalum": (22.7, 10.8, 5.97, 3.7, 7.6, 4.3),
    "peek": (0.28, 0.224, 0.2, 0.188, 0.17, 0.16),
    # Methacrylate with a tenth of zirconium dioxide.
    "cement": (2.1, 1.05, 0.66, 0.46, 0.28, 0.22),
    "lead": (30.3, 14.4, 8.04, 5.02, 2.42, 5.55),
}
METALS = ("titanium", "steel", "cobalt_chrome", "tantalum", "lead")


@dataclass(frozen=True)
class Exposure:
    """How a film was taken and processed; see :func:`draw_exposure`."""

    kvp: float
    photons: float  # a pixel of 0.15 mm behind the thinner half of the field
    scatter: float  # relative to the primary beam, behind the grid
    blur_mm: float  # focal spot and detector, standard deviation
    sharpening: float
    equalisation: float  # share of the large differences that the console takes out
    contrast: float
    brightness: float
    toe: float
    grid_lines: tuple[float, float, float]  # amplitude, period in pixels, direction in radians


def linear_attenuation(material: str) -> np.ndarray:
    """Attenuation per millimetre at ENERGIES_KEV."""
    return np.array(_MASS_ATTENUATION[material]) * _DENSITY[material] / 10


def spectrum(kvp: float) -> np.ndarray:
    """Relative detected energy at ENERGIES_KEV behind 3.5 mm of aluminium; sums to 1."""
    fluence = np.clip(kvp - ENERGIES_KEV, 0, None) / ENERGIES_KEV
    weights = fluence * np.exp(-3.5 * linear_attenuation("aluminium")) * ENERGIES_KEV
    # The table's energies lie farther apart above 60 keV; the scintillator absorbs less there.
    weights *= np.array([1.0, 1.0, 1.0, 1.5, 2.0, 2.0])
    weights *= 1 - np.exp(-((55.0 / ENERGIES_KEV) ** 2.7))
    return weights / weights.sum()


def draw_exposure(rng: np.random.Generator) -> Exposure:
    """Draw a film's technique and its vendor's processing."""
    return Exposure(
        kvp=float(rng.integers(78, 97)),
        photons=float(np.exp(rng.uniform(np.log(110), np.log(2500)))),
        scatter=float(rng.uniform(0.2, 1.8)),
        blur_mm=float(rng.uniform(0.16, 0.4)),
        sharpening=float(rng.choice((0.0, rng.uniform(0.2, 1.2)), p=(0.4, 0.6))),
        equalisation=float(rng.uniform(0.4, 0.93)),
        contrast=float(np.exp(rng.uniform(np.log(0.2), np.log(1.0)))),
        brightness=float(rng.normal(0.6, 0.06)),
        toe=float(rng.uniform(0.7, 1.6)),
        grid_lines=(
            float(rng.choice((0.0, rng.uniform(0.002, 0.012)), p=(0.75, 0.25))),
            float(rng.uniform(2.6, 9.0)),
            float(rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.02)),
        ),
    )


def expose(
    lengths: Mapping[str, np.ndarray],
    metal: Mapping[str, tuple[tuple[int, int], np.ndarray]],
    exposure: Exposure,
    shape: tuple[int, int],
    pixel_mm: float,
    lit: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The signal on the detector.

    Args:
        lengths: mm of each material along the rays, float32 images on a grid of half (or all) the
            film's resolution, the same for all.
        metal: mm of sharp-edged materials at the film's own resolution: (row, column) of the upper
            left corner and a patch.
        exposure: technique.
        shape: rows and columns of the film.
        pixel_mm: pixel spacing.
        lit: 0 to 1, rows x columns: what the collimator lets through.
        rng: draws the noise.

    Returns:
        Rows x columns float32: minus the logarithm of the detected energy relative to the open
        beam, 0 or a little below and above in air, larger behind more matter.
    """
    weights = spectrum(exposure.kvp).astype(np.float32)
    primary = _transmission(lengths, weights)
    size = shape[::-1]
    direct = cv2.resize(primary, size, interpolation=cv2.INTER_LINEAR)
    for material, ((row, column), patch) in metal.items():
        rows, columns = patch.shape
        window = np.s_[row : row + rows, column : column + columns]
        # The beam that reaches metal has already lost its soft part in the trunk.
        hard = weights * np.exp(-250 * linear_attenuation("tissue")).astype(np.float32)
        direct[window] *= _transmission({material: patch}, hard / hard.sum())
    direct *= lit
    inside = direct[::16, ::16][lit[::16, ::16] > 0.5]
    typical = float(np.median(inside)) if inside.size else 1.0
    # Scatter comes from the patient: what passes beside the patient makes none.
    veil = _wide_blur(np.minimum(direct, 2 * typical), 38.0 / pixel_mm)
    signal = direct + exposure.scatter * veil
    sigma = exposure.blur_mm / pixel_mm
    if sigma > 0.3:
        signal = cv2.GaussianBlur(signal, (0, 0), sigma)
    # Quanta, blurred a little by the scintillator.
    noise = rng.standard_normal(shape, np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.55) * np.float32(1.7)
    photons = exposure.photons * (pixel_mm / 0.15) ** 2
    signal += noise * np.sqrt(np.maximum(signal, 0) * (typical / photons))
    floor = typical * 0.004
    return -np.log(np.maximum(signal, floor))


def process(signal: np.ndarray, exposure: Exposure, pixel_mm: float, lit: np.ndarray) -> np.ndarray:
    """What a console makes of the signal: equalised, sharpened, on an S-shaped curve.

    Returns:
        Rows x columns float32 of 0 to 1, bone bright, black outside the collimated field.
    """
    small = signal[::8, ::8]
    inside = small[lit[::8, ::8] > 0.5]
    if not inside.size:
        return np.zeros_like(signal)
    air, thick = (float(v) for v in np.percentile(inside, (1, 99)))
    value = np.clip(signal, air - 1.0, thick + 1.5)
    trunk = inside[inside > air + 0.45 * (thick - air)]
    middle = float(np.median(trunk)) if trunk.size else float(np.median(inside))
    # Large differences within the trunk are pressed together; towards air they are left.
    floor = middle - 0.42 * (middle - air)
    low = _wide_blur(np.maximum(value, floor), 12.0 / pixel_mm)
    value -= exposure.equalisation * (low - middle)
    if exposure.sharpening:
        value += exposure.sharpening * (value - cv2.GaussianBlur(value, (0, 0), 1.2 / pixel_mm))
    value = (value - middle) * exposure.contrast
    value = exposure.brightness + 0.5 * np.tanh(exposure.toe * value) / np.float32(
        np.tanh(exposure.toe)
    )
    amplitude, period, direction = exposure.grid_lines
    if amplitude:
        rows, columns = signal.shape
        phase = (
            np.arange(rows, dtype=np.float32)[:, None] * np.float32(np.sin(direction))
            + np.arange(columns, dtype=np.float32) * np.float32(np.cos(direction))
        ) * np.float32(2 * np.pi / period)
        value += np.float32(amplitude) * np.sin(phase)
    return np.clip(value * lit, 0, 1)


def _transmission(lengths: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Share of the detected energy that gets through (float32)."""
    total = None
    for i, weight in enumerate(weights):
        if weight < 1e-4:
            continue
        exponent = None
        for material, length in lengths.items():
            part = length * np.float32(-linear_attenuation(material)[i])
            exponent = part if exponent is None else exponent + part
        through = np.exp(exponent) * weight
        total = through if total is None else total + through
    return total


def _wide_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of many pixels, computed on a reduced copy."""
    factor = max(1, int(sigma / 4))
    size = [max(2, -(-n // factor)) for n in image.shape[::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_CUBIC)
