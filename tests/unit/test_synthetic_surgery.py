"""Implants of the synthetic cohort: closed surfaces, and where they lie in the spine."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lumbarflow.synthetic import implants as shapes
from lumbarflow.synthetic.alignment import draw_build
from lumbarflow.synthetic.meshes import Frame
from lumbarflow.synthetic.projection import Beam, silhouette
from lumbarflow.synthetic.spine import make_spine
from lumbarflow.synthetic.surgery import (
    KINDS,
    TEST_ONLY,
    UNUSUAL,
    fit_rod,
    make_surgery,
    place_screw,
)

seeds = st.integers(0, 2**32)
MATERIALS = {"titanium", "cobalt_chrome", "steel", "peek", "tantalum", "cement"}
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # seeds do not get simpler
CLASSES = {"screw", "instrumentation", "cage"}


def patient(seed):
    """A patient of any age, without what disease does to the spine."""
    rng = np.random.default_rng([17, seed])
    return make_spine(rng, draw_build(rng, healthy=True), bodies_only=True)


def operate(seed, kinds=None):
    spine = patient(seed)
    return spine, make_surgery(np.random.default_rng(seed), spine, kinds)


def assert_closed(mesh):
    """Every edge belongs to two faces, which run along it in opposite directions."""
    edges = np.vstack([mesh.faces[:, [i, (i + 1) % 3]] for i in range(3)])
    edges = edges[:, 0].astype(np.int64) * len(mesh.vertices) + edges[:, 1]
    back = np.vstack([mesh.faces[:, [(i + 1) % 3, i]] for i in range(3)])
    back = back[:, 0].astype(np.int64) * len(mesh.vertices) + back[:, 1]
    assert len(np.unique(edges)) == len(edges)
    assert np.array_equal(np.sort(edges), np.sort(back))


def components(mesh):
    """Volumes (mm3) of the connected parts of a mesh."""
    a, b = mesh.faces[:, [0, 0]].ravel(), mesh.faces[:, 1:].ravel()
    count = len(mesh.vertices)
    _, label = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (count, count)))
    at = mesh.vertices[mesh.faces] - mesh.vertices.mean(axis=0)
    volume = np.einsum("ij,ij->i", at[:, 0], np.cross(at[:, 1], at[:, 2])) / 6
    return np.bincount(label[mesh.faces[:, 0]], volume)


def assert_sound(implant):
    assert implant.solids
    for material, mesh in implant.solids:
        assert material in MATERIALS
        assert np.isfinite(mesh.vertices).all()
        assert_closed(mesh)
        assert (components(mesh) > 0).all()


@given(seeds)
@settings(max_examples=20, deadline=None, phases=UNSHRUNK)
def test_every_surface_is_closed_and_turned_outwards(seed):
    _, operation = operate(seed)
    assert operation
    for implant in operation:
        assert_sound(implant)
        assert implant.class_name in CLASSES or implant.kind == "cement"
    assert sum(len(mesh.faces) for i in operation for _, mesh in i.solids) < 60_000


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_is_put_in(kind):
    for seed in range(5):
        _, operation = operate(seed, (kind,))
        chosen = [i for i in operation if i.kind == kind]
        assert chosen
        for implant in chosen:
            assert_sound(implant)


def test_nothing_else_is_put_in_where_nothing_is_asked_for():
    usual = {"pedicle_screw", "rod", "cage", "cross_link"}
    for seed in range(15):
        assert {i.kind for i in operate(seed, ())[1]} <= usual


def test_unknown_hardware_is_refused():
    with pytest.raises(ValueError, match="wand"):
        operate(0, ("wand",))


def test_an_operation_is_its_seed_and_leaves_the_spine_alone():
    spine, first = operate(7)
    _, second = operate(7)
    assert [i.kind for i in first] == [i.kind for i in second]
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(m.vertices, n.vertices) for (_, m), (_, n) in
                   zip(a.solids, b.solids, strict=True))  # fmt: skip
    again = patient(7)
    assert np.array_equal(spine.vertebrae[3].corners, again.vertebrae[3].corners)


def test_unusual_hardware_is_as_frequent_as_documented_and_none_is_for_tests_only():
    count = 160
    kinds = []
    for seed in range(count):
        spine = patient(seed % 5)
        kinds.append({i.kind for i in make_surgery(np.random.default_rng(seed), spine)})
    # Cross-links are usual on long constructs.
    unusual = sum(bool(k & (set(UNUSUAL) - {"cross_link"})) for k in kinds) / count
    assert 0.04 < unusual < 0.14
    assert not any(k & set(TEST_ONLY) for k in kinds)
    seen = Counter(kind for k in kinds for kind in k)
    assert seen["pedicle_screw"] > 0.85 * count
    assert seen["cage"] > 0.5 * count


@given(seeds, st.integers(0, 8), st.integers(0, 1))
@settings(max_examples=40, deadline=None, phases=UNSHRUNK)
def test_a_screw_that_does_not_breach_stays_in_its_pedicle(seed, index, side):
    rng = np.random.default_rng(seed)
    spine = patient(seed)
    bone = (*spine.vertebrae, *spine.sacrum)[index]
    pedicle = bone.pedicles[side]
    screw = place_screw(rng, pedicle, bone.level)
    along = np.linspace(0, screw.length, 200)[:, None]
    points = screw.ball + along * screw.axis - pedicle.entry
    depth = points @ pedicle.axis
    aside = np.linalg.norm(points - depth[:, None] * pedicle.axis, axis=1)
    at = np.abs(depth - min(16.0, 0.4 * pedicle.length)) < 2.0
    assert at.any()
    assert (aside[at] + screw.radius <= pedicle.radius).all()
    # It ends in the body, and its head does not.
    assert 0.4 * pedicle.length < depth[-1] < pedicle.length
    assert depth[0] < 0


@given(seeds)
@settings(max_examples=30, deadline=None, phases=UNSHRUNK)
def test_a_screw_that_breaches_aside_leaves_its_pedicle_or_its_direction(seed):
    rng = np.random.default_rng(seed)
    pedicle = patient(seed).vertebrae[6].pedicles[0]
    screw = place_screw(rng, pedicle, "L4", breach="aside")
    assert np.degrees(np.arccos(screw.axis @ pedicle.axis)) > 6.9
    through = place_screw(rng, pedicle, "L4", breach="through")
    assert (through.ball + through.length * through.axis - pedicle.entry) @ pedicle.axis > (
        0.9 * pedicle.length
    )


@given(seeds, st.integers(0, 7), st.integers(2, 7), st.integers(0, 1))
@settings(max_examples=40, deadline=None, phases=UNSHRUNK)
def test_rods_follow_the_heads_smoothly(seed, first, count, side):
    rng = np.random.default_rng(seed)
    spine = patient(seed)
    bones = (*spine.vertebrae, *spine.sacrum)[first : first + count]
    system = shapes.make_system(rng)
    planned = [place_screw(rng, bone.pedicles[side], bone.level) for bone in bones]
    anchors, curve, arc = fit_rod(rng, planned, system)
    at = np.linspace(0, arc[-1], 400)
    line = curve(at)
    for anchor, back in zip(anchors, planned, strict=True):
        seat = anchor.seat(system)
        assert np.linalg.norm(line - seat, axis=1).min() < 2.0
        assert anchor.outwards @ -anchor.axis >= np.cos(system.reach) - 1e-9
        # Driven along its own axis only.
        moved = anchor.ball - back.ball
        assert np.linalg.norm(moved - (moved @ back.axis) * back.axis) < 1e-9
        assert np.linalg.norm(moved) <= 9.0
    # Rods run one way, and bend no sharper than a bender does at the lumbosacral angle.
    assert (np.diff(line[:, 1]) > 0).all()
    bend = np.linalg.norm(curve(at, 2), axis=1) / np.linalg.norm(curve(at, 1), axis=1) ** 2
    assert bend.max() < 1 / 8


@given(seeds)
@settings(max_examples=40, deadline=None, phases=UNSHRUNK)
def test_cages_lie_inside_the_footprint_and_near_the_endplates_of_their_discs(seed):
    spine, operation = operate(seed, ())
    discs = {disc.level: disc for disc in spine.discs}
    for implant in operation:
        if implant.kind != "cage":
            continue
        disc = discs[implant.level]
        for _, mesh in implant.solids:
            local = disc.frame.local(mesh.vertices)
            assert (np.abs(local[:, 0]) <= disc.depth / 2).all()
            assert (np.abs(local[:, 2]) <= disc.width / 2).all()
            endplate = disc.height / 2 + local[:, 0] * np.tan(disc.wedge / 2)
            assert (np.abs(local[:, 1]) < np.maximum(endplate, 2.8) + 2.5).all()


def test_cages_of_two_blocks_lie_side_by_side():
    found = 0
    for seed in range(30):
        spine, operation = operate(seed, ())
        discs = {disc.level: disc for disc in spine.discs}
        pairs = Counter(i.level for i in operation if i.kind == "cage")
        for level in (level for level, count in pairs.items() if count == 2):
            found += 1
            across = [
                discs[level].frame.local(i.solids[0][1].vertices)[:, 2]
                for i in operation
                if i.kind == "cage" and i.level == level
            ]
            left, right = sorted(across, key=np.mean)
            assert left.mean() < -4 and right.mean() > 4
    assert found > 2


def test_screws_and_cages_carry_the_level_that_they_lie_in():
    for seed in range(25):
        spine, operation = operate(seed, ())
        bones = {b.level: b for b in (*spine.vertebrae, *spine.sacrum)}
        for implant in operation:
            if implant.kind == "pedicle_screw":
                bone = bones[implant.level]
                tip = max(
                    bone.frame.local(implant.solids[0][1].vertices), key=lambda point: point[0]
                )
                assert abs(tip[1]) < 0.75 * bone.height
            elif implant.class_name == "instrumentation":
                assert implant.level is None


@given(seeds)
@settings(max_examples=15, deadline=None, phases=UNSHRUNK)
def test_cement_lies_in_a_body_and_is_not_annotated(seed):
    spine, operation = operate(seed, ("cement",))
    cement = [i for i in operation if i.kind == "cement"]
    assert cement and all(i.class_name is None and i.level is None for i in cement)
    middle = cement[-1].solids[0][1].vertices.mean(axis=0)
    assert any(
        (np.abs(b.frame.local(middle)) < np.array([b.depth, b.height, b.width]) / 2 + 3.0).all()
        for b in (*spine.vertebrae, *spine.sacrum)
    )


@given(seeds)
@settings(max_examples=20, deadline=None, phases=UNSHRUNK)
def test_a_body_replacement_spans_the_gap_between_its_neighbours(seed):
    spine, operation = operate(seed, ("vertebral_body_replacement",))
    (strut,) = (i for i in operation if i.kind == "vertebral_body_replacement")
    levels = [b.level for b in spine.vertebrae]
    at = levels.index(strut.level)
    bones = (*spine.vertebrae, *spine.sacrum)
    vertices = strut.solids[0][1].vertices
    for neighbour, rim, sign in ((bones[at - 1], slice(2, 4), 1), (bones[at + 1], slice(2), -1)):
        endplate = neighbour.corners[rim].mean(axis=0)
        reach = ((vertices - endplate) @ neighbour.frame.axes[1] * sign).max()
        assert -1.5 < reach < 6.0
    assert not any(i.level == strut.level and i.class_name == "screw" for i in operation)
    near = {f"{levels[at - 1]}/{strut.level}", f"{strut.level}/{bones[at + 1].level}"}
    assert not any(i.level in near for i in operation)


@given(st.floats(2.0, 4.0), st.floats(30.0, 55.0), seeds)
@settings(max_examples=15, deadline=None, phases=UNSHRUNK)
def test_threads_show_in_the_silhouette(radius, length, seed):
    system = shapes.make_system(np.random.default_rng(seed))
    shaft = shapes.screw_shaft(system, radius, length)
    # A lateral film: the screw runs from left to right, 0.15 mm pixels.
    lateral = Frame(np.zeros(3), np.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]]))
    beam = Beam(
        np.array([0, 0, 1000.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]),
        np.array([0, 0, -1.0]), 1100.0, np.zeros(2), 0.15,
    )  # fmt: skip
    outline = silhouette(shaft.placed(lateral), beam)
    upper = outline[outline[:, 1] < 0] * 0.15 / 1.1
    start, stop = shapes.NECK + 5.0, length - 6.0
    columns = np.arange(start, stop, 0.1)
    edge = [upper[np.abs(upper[:, 0] - x) < 0.1, 1].min() for x in columns]
    height = -np.array(edge)
    crests = np.convolve(height, np.ones(5) / 5, "valid")
    turned = np.diff(np.sign(crests - _running_mean(crests, int(system.pitch / 0.1))))
    assert abs((turned > 0).sum() - (stop - start) / system.pitch) <= 2.5
    assert np.ptp(height) > 0.5 * system.thread * radius


def _running_mean(values, width):
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, "valid")
