"""Closed surfaces and their shadows: lengths, outlines, and no pixel counted twice or never."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lumbarflow.synthetic.meshes import Frame, Mesh, box, ellipsoid, join, lathe, loft, tube
from lumbarflow.synthetic.projection import Beam, path_length, silhouette

SHAPE = (220, 200)


def beam(pixel_mm=0.5, distance=1150.0, depth=950.0, centre=(100.0, 110.0)):
    return Beam(
        np.array([0.0, 0.0, -depth]),
        np.array([1.0, 0.0, 0.0]),
        np.array([0.0, 1.0, 0.0]),
        np.array([0.0, 0.0, 1.0]),
        distance,
        np.array(centre),
        pixel_mm,
    )


def turned(mesh, seed):
    rotation = Rotation.random(random_state=seed).as_matrix()
    return Mesh(mesh.vertices @ rotation.T, mesh.faces)


SOLIDS = {
    "box": box((-8, -12, -5), (9, 14, 6)),
    "ellipsoid": ellipsoid((12, 20, 9), 24),
    "tube": tube([(0, -20, 0), (3, 0, 4), (0, 22, -3)], [(3, 5), (4, 4), (2, 3)], 14),
    "lathe": lathe([(-15, 3), (-2, 5), (0, 2), (15, 4)], 18),
    "loft": loft(
        [[(x, y * (1 + x / 40), z) for y, z in ((-6, -6), (6, -6), (7, 5), (-5, 8))]
         for x in (0, 9, 20)]
    ),
}  # fmt: skip


def edges(mesh):
    """Directed edges of all faces, as one whole number each."""
    a = mesh.faces.astype(np.int64)
    both = np.concatenate([a[:, [0, 1]], a[:, [1, 2]], a[:, [2, 0]]])
    return both[:, 0] * 2**32 + both[:, 1], both[:, 1] * 2**32 + both[:, 0]


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_closed_and_turned_outwards(name):
    there, back = edges(SOLIDS[name])
    assert len(set(there)) == len(there) and set(there) == set(back)
    assert SOLIDS[name].volume() > 0


@pytest.mark.parametrize("name", SOLIDS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_lengths_add_up_to_the_volume_and_nothing_leaks(name, seed):
    solid = turned(SOLIDS[name], seed)
    view = beam()
    lengths = path_length(solid, view, SHAPE)
    # A pixel covers less of the patient the nearer to the source: half-way is a fair mean here.
    area = (0.5 / view.magnification(solid.vertices.mean(axis=0))) ** 2
    assert lengths.sum() * area == pytest.approx(solid.volume(), rel=0.05)
    hull = silhouette(solid, view)
    rows, columns = np.nonzero(lengths)
    assert columns.min() >= hull[:, 0].min() - 1 and columns.max() <= hull[:, 0].max() + 1
    assert rows.min() >= hull[:, 1].min() - 1 and rows.max() <= hull[:, 1].max() + 1
    span = np.linalg.norm(np.ptp(solid.vertices, axis=0))
    assert 0 <= lengths.max() <= span + 1e-3


@given(st.floats(-40, 40), st.floats(-40, 40), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_ball_has_the_chords_of_a_ball(x, y, seed):
    ball = turned(ellipsoid((15, 15, 15), 96), seed)
    ball = Mesh(ball.vertices + np.array([x, y, 0]), ball.faces)
    view = beam()
    lengths = path_length(ball, view, SHAPE)
    columns, rows = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    on_detector = np.stack([(columns - 100) * 0.5, (rows - 110) * 0.5,
                            np.full(SHAPE, 1150.0)], -1)  # fmt: skip
    direction = on_detector / np.linalg.norm(on_detector, axis=-1, keepdims=True)
    centre = np.array([x, y, 950.0])
    nearest = np.linalg.norm(centre - (direction @ centre)[..., None] * direction, axis=-1)
    chord = 2 * np.sqrt(np.clip(15**2 - nearest**2, 0, None))
    inner = nearest < 13.5
    assert np.abs(lengths - chord)[inner].max() < 0.25
    assert not lengths[nearest > 15.01].any()


def test_weights_make_a_shell_with_a_lighter_core():
    outer, inner = ellipsoid((15, 18, 12), 32), ellipsoid((13, 16, 10), 32)
    both = join([outer, inner])
    weights = np.repeat([1.0, 0.2 - 1.0], [len(outer.faces), len(inner.faces)])
    amount = path_length(both, beam(), SHAPE, weights)
    expected = path_length(outer, beam(), SHAPE) - 0.8 * path_length(inner, beam(), SHAPE)
    assert np.allclose(amount, expected, atol=1e-4)


def test_what_lies_off_the_film_or_is_nothing_casts_no_shadow():
    away = Mesh(SOLIDS["box"].vertices + np.array([500, 0, 0]), SOLIDS["box"].faces)
    assert not path_length(away, beam(), SHAPE).any()
    assert not path_length(join([]), beam(), SHAPE).any()


def test_part_of_a_shadow_is_the_same_as_that_part_of_the_whole():
    solid = turned(SOLIDS["loft"], 3)
    whole = path_length(solid, beam(), SHAPE)
    part = path_length(solid, beam(centre=(100.0 - 80, 110.0 - 95)), (60, 70))
    assert np.allclose(part, whole[95:155, 80:150], atol=1e-5)


def test_a_reduced_beam_sees_the_same_in_larger_pixels():
    solid = turned(SOLIDS["ellipsoid"], 1)
    fine = path_length(solid, beam(), SHAPE)
    coarse = path_length(solid, beam().reduced(4), (55, 50))
    blocks = fine.reshape(55, 4, 50, 4).mean(axis=(1, 3))
    whole = fine.reshape(55, 4, 50, 4).min(axis=(1, 3)) > 6  # away from the rim
    assert np.abs(coarse - blocks)[whole].max() < 0.6  # means of curved depths
    assert coarse.sum() * 16 == pytest.approx(fine.sum(), rel=0.02)


def test_silhouette_of_a_ball_is_a_circle_magnified():
    view = beam()
    outline = silhouette(ellipsoid((15, 15, 15), 96), view)
    radius = np.linalg.norm(outline - (100, 110), axis=1)
    # The rays that touch a ball do so a little before its middle.
    expected = 15 / np.sqrt(950**2 - 15**2) * 1150 / 0.5
    assert np.abs(radius - expected).max() < 0.35


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_frame_brings_points_there_and_back(seed):
    rng = np.random.default_rng(seed)
    frame = Frame(rng.normal(0, 50, 3), Rotation.random(random_state=seed).as_matrix())
    points = rng.normal(0, 30, (7, 3))
    assert np.allclose(frame.local(frame.place(points)), points)
    solid = SOLIDS["tube"].placed(frame)
    assert solid.volume() == pytest.approx(
        SOLIDS["tube"].volume() * np.sign(np.linalg.det(frame.axes)), rel=1e-9
    )
