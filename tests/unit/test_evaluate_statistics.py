"""Paired comparisons: against other implementations, and by how often they find what is planted."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lumbarflow import networks
from lumbarflow.evaluate.statistics import (
    COMPARISONS,
    MEANS,
    SCORES,
    compare_networks,
    detectable_difference,
    film_scores,
    holm,
    interaction_p,
    rank_biserial,
    signed_rank_p,
    strata_means,
)
from lumbarflow.evaluate.strata import COLUMNS, STRATA
from lumbarflow.evaluate.tables import METRICS

FAMILIES = {
    **{"unet": "semantic", "mask_rcnn": "instance", "pspnet": "semantic"},
    **{"deeplabv3": "semantic", "yolact": "instance"},
}
SETTINGS = {"seed": 3, "n_boot": 200}
whole = st.integers(-3, 3).map(float)


def most(level, n):
    """What a share of `n` true events of chance `level` does not exceed but once in 10,000."""
    return stats.binom.ppf(0.9999, n, level) / n


# The signed rank test -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5, 12, 40])
def test_signed_rank_is_scipys_exact_one(n):
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(whole, st.integers(0, 4)), min_size=1, max_size=9))
def test_signed_rank_counts_all_changes_of_sign(pairs):
    """With ties, zeros and clusters: the definition, sign by sign."""
    values, labels = (np.array(column) for column in zip(*pairs, strict=True))
    kept = values != 0
    if not kept.any():
        assert signed_rank_p(values, labels) == 1
        return
    signed = stats.rankdata(np.abs(values[kept])) * np.sign(values[kept])
    names = sorted(set(labels[kept]))
    observed = abs(signed.sum())
    sums = []
    for signs in product([-1, 1], repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        sums.append(
            abs(sum(sign[label] * v for label, v in zip(labels[kept], signed, strict=True)))
        )
    expected = np.mean(np.array(sums) >= observed - 1e-9)
    assert signed_rank_p(values, labels) == pytest.approx(expected, abs=1e-12)


def test_signed_rank_of_many_is_normal():
    differences = np.random.default_rng(0).normal(0.05, 1, 1000)
    expected = stats.wilcoxon(differences, method="asymptotic").pvalue
    assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-6)


def test_signed_rank_leaves_out_what_is_missing():
    assert signed_rank_p(np.array([0.2, np.nan, 0.1, 0.4])) == signed_rank_p(np.array([2.0, 1, 4]))
    assert signed_rank_p(np.array([np.nan])) == 1
    assert signed_rank_p(np.array([1e-15, -3e-16])) == 1


def films_of_patients(rng, effect, patients=14, films=3):
    """Differences whose larger part a patient's films share."""
    shared = rng.normal(effect, 1, patients)
    differences = np.repeat(shared, films) + 0.3 * rng.normal(size=patients * films)
    return differences, np.repeat(np.arange(patients), films)


def test_absent_difference_is_found_at_the_stated_rate_only():
    rng, n = np.random.default_rng(1), 400
    drawn = [films_of_patients(rng, 0.0) for _ in range(n)]
    found = np.mean([signed_rank_p(*one) < 0.05 for one in drawn])
    assert 0.01 < found <= most(0.05, n)
    # Films taken for independent claim far too much.
    assert np.mean([signed_rank_p(differences) < 0.05 for differences, _ in drawn]) > 0.15


def test_planted_difference_is_found():
    rng = np.random.default_rng(2)
    found = [signed_rank_p(*films_of_patients(rng, 1.0)) < 0.05 for _ in range(150)]
    assert np.mean(found) > 0.8


def test_holm_keeps_the_rate_over_all_pairs():
    rng, n = np.random.default_rng(3), 150
    any_found = []
    for _ in range(n):
        scores = rng.normal(size=(5, 20))
        p = [signed_rank_p(scores[a] - scores[b]) for a in range(5) for b in range(a)]
        any_found.append(holm(np.array(p)).min() < 0.05)
    assert np.mean(any_found) <= most(0.05, n)


# Effects and power --------------------------------------------------------------------------------


@given(st.lists(whole, max_size=12))
def test_rank_biserial(values):
    values = np.array(values)
    kept = values[values != 0]
    ranks = stats.rankdata(np.abs(kept))
    expected = (ranks[kept > 0].sum() - ranks[kept < 0].sum()) / ranks.sum() if len(kept) else 0
    assert rank_biserial(values) == pytest.approx(expected)
    assert rank_biserial(-values) == pytest.approx(-expected)


def naive_holm(p):
    """From its definition: the least level at which the step-down procedure rejects each."""
    order = np.argsort(p, kind="stable")
    found = np.empty(len(p))
    highest = 0.0
    for step, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - step) * p[place]))
        found[place] = highest
    return found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm(p):
    p = np.array(p)
    assert holm(p) == pytest.approx(naive_holm(p))
    with_gap = holm(np.append(p, np.nan))
    assert with_gap[:-1] == pytest.approx(naive_holm(p))
    assert np.isnan(with_gap[-1])


@pytest.mark.parametrize("n", [8, 40])
def test_detectable_difference_is_found_four_times_of_five(n):
    rng = np.random.default_rng(n)
    differences = rng.normal(size=(3000, n))
    standard = np.linspace(-1, 1, n)
    effect = detectable_difference(standard) / standard.std(ddof=1)
    p = stats.wilcoxon(differences + effect, axis=1, method="asymptotic").pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.04)


def test_nothing_is_detectable_with_five_patients():
    assert np.isnan(detectable_difference(np.arange(5.0)))
    assert signed_rank_p(np.arange(1.0, 6)) > 0.05
    assert signed_rank_p(np.arange(1.0, 7)) < 0.05


# Interaction --------------------------------------------------------------------------------------


def test_interaction_is_found_at_the_stated_rates():
    """Groups of other sizes and spreads: 8 and 24 units, the smaller group thrice as spread."""
    rng, contrasts = np.random.default_rng(4), 300
    groups = np.repeat(["few", "many"], [8, 24])
    spread = np.repeat([3.0, 1.0], [8, 24])[:, None]
    absent = spread * rng.normal(size=(32, contrasts))
    p = interaction_p(absent, groups, 199, np.random.default_rng(0))
    assert p.shape == (contrasts,)
    assert np.mean(p <= 0.05) <= most(0.07, contrasts)
    planted = rng.normal(size=(32, contrasts))
    planted[groups == "few"] += 1.5
    assert np.mean(interaction_p(planted, groups, 199, np.random.default_rng(0)) <= 0.05) > 0.8


def test_interaction_of_two_groups_is_welchs_test():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(60, 1)) + np.repeat([0.0, 0.5], [20, 40])[:, None]
    groups = np.repeat(["a", "b"], [20, 40])
    expected = stats.ttest_ind(values[:20, 0], values[20:, 0], equal_var=False).pvalue
    found = interaction_p(values, groups, 4999, np.random.default_rng(0))[0]
    assert found == pytest.approx(expected, abs=0.02)


def test_interaction_needs_two_groups_of_two():
    rng = np.random.default_rng(0)
    for groups in (["a"] * 4, ["a", "a", "a", "b"], ["a", "b", "c", "d"]):
        assert np.isnan(interaction_p(np.ones((4, 2)), np.array(groups), 99, rng)).all()
    same = interaction_p(np.ones((4, 2)), np.array(list("aabb")), 99, rng)
    assert same.tolist() == [1, 1]


def test_families_are_those_of_the_paper():
    assert {name: networks.family(name) for name in FAMILIES} == FAMILIES


# The tables ---------------------------------------------------------------------------------------


def cohort(models=tuple(FAMILIES), films=48, gap=0.03, seed=0):
    """Scores of films: instance networks lead by `gap` where degeneration is severe, and lag
    where it is none; implants make no difference."""
    rng = np.random.default_rng(seed)
    ids = [f"film{n}" for n in range(films)]
    strata = pd.DataFrame({"image_id": ids, "patient_id": [f"p{n // 2}" for n in range(films)]})
    grades = rng.choice(STRATA["degeneration"], films)
    strata["degeneration"] = grades
    strata["implants"] = rng.choice(STRATA["implants"], films)
    strata["fracture"] = None
    strata["overlap"] = "without"
    film = rng.normal(0.8, 0.05, films)
    lead = np.select([grades == "severe", grades == "none"], [gap, -gap])
    rows = []
    for model in models:
        own = film + lead * (FAMILIES[model] == "instance") + rng.normal(0, 0.015, films)
        part = pd.DataFrame({"model": model, "image_id": ids})
        for metric in SCORES:
            part[metric] = own
        rows.append(part)
    return pd.concat(rows, ignore_index=True), strata.astype(COLUMNS)


def compared(scores, strata, families=FAMILIES, **changes):
    table = compare_networks(scores, strata, families, **(SETTINGS | changes))
    assert dict(table.dtypes.astype(str)) == COMPARISONS
    return table


@pytest.fixture(scope="module")
def table():
    return compared(*cohort())


def test_the_papers_observation_is_found_where_it_is_planted(table):
    """Instance networks win on severe, semantic ones on absent degeneration."""
    family = table[(table["kind"] == "family") & (table["metric"] == "mean_iou")]
    family = family.set_index(["stratum", "value"])
    assert family.loc[("degeneration", "severe"), "ci_high"] < 0
    assert family.loc[("degeneration", "none"), "ci_low"] > 0
    assert (family.loc["degeneration", "p_holm"].drop("mild") < 0.05).all()
    assert (family.loc["degeneration", "interaction_p_holm"] < 0.05).all()
    assert (family.loc["implants", "interaction_p_holm"] > 0.05).all()
    # All films have one value: there is nothing to depend on.
    assert family.loc[("overlap", "without"), "n_films"] == 48
    assert np.isnan(family.loc[("overlap", "without"), "interaction_p"])
    assert "fracture" not in family.index
    assert family["interaction_p"].xs("all", level="stratum").isna().all()


def test_differences_are_those_of_the_films(table):
    scores, strata = cohort()
    wide = scores.pivot(index="image_id", columns="model", values="dice")
    difference = wide["unet"] - wide["yolact"]
    row = table[
        (table["metric"] == "dice") & (table["a"] == "unet") & (table["b"] == "yolact")
    ].set_index(["stratum", "value"])
    whole = row.loc[("all", "all")]
    assert whole["difference"] == pytest.approx(difference.mean())
    assert whole["mean_a"] - whole["mean_b"] == pytest.approx(whole["difference"])
    assert whole["ci_low"] < whole["difference"] < whole["ci_high"]
    assert (whole["n_films"], whole["n_patients"]) == (48, 24)
    severe = strata.set_index("image_id")["degeneration"] == "severe"
    part = row.loc[("degeneration", "severe")]
    assert part["difference"] == pytest.approx(difference[severe.reindex(difference.index)].mean())
    patients = strata.set_index("image_id")["patient_id"].reindex(difference.index)
    expected = signed_rank_p(difference.to_numpy(), patients.to_numpy(object))
    assert whole["p"] == pytest.approx(expected)
    assert whole["rank_biserial"] == pytest.approx(rank_biserial(difference.to_numpy()))


def test_corrections_are_over_the_contrasts_of_a_kind(table):
    pairs = table[
        (table["kind"] == "pair") & (table["metric"] == "dice") & (table["stratum"] == "all")
    ]
    assert len(pairs) == 10
    assert pairs["p_holm"].to_numpy() == pytest.approx(holm(pairs["p"].to_numpy()))
    family = table[(table["kind"] == "family") & (table["metric"] == "dice")]
    tests = family[family["stratum"] != "all"].drop_duplicates("stratum")
    assert tests["interaction_p_holm"].to_numpy() == pytest.approx(
        holm(tests["interaction_p"].to_numpy()), nan_ok=True
    )


def test_order_of_rows_does_not_matter(table):
    scores, strata = cohort()
    again = compared(scores.sample(frac=1, random_state=0), strata.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("films", [1, 2, 3])
def test_few_films_are_compared_without_claims(films):
    scores, strata = cohort(films=films)
    table = compared(scores, strata)
    assert (table["p"] > 0.05).all()
    assert table["detectable"].isna().all()
    alone = table[table["n_patients"] == 1]
    assert len(alone)
    assert alone["ci_low"].isna().all()


def test_one_network_has_nothing_to_be_compared_with():
    scores, strata = cohort(["unet"])
    assert compared(scores, strata, {"unet": "semantic"}).empty
    assert len(strata_means(scores, strata, **SETTINGS))


def test_one_family_is_compared_by_pairs_only():
    scores, strata = cohort(["unet", "pspnet"])
    table = compared(scores, strata, {"unet": "semantic", "pspnet": "semantic"})
    assert set(table["kind"]) == {"pair"}


def test_missing_scores_are_left_out():
    scores, strata = cohort()
    lost = (scores["model"] == "unet") & (scores["image_id"] == "film3")
    scores.loc[lost, "recognition_rate"] = np.nan
    table = compared(scores, strata)
    rows = table[(table["metric"] == "recognition_rate") & (table["stratum"] == "all")]
    rows = rows.set_index(["a", "b"])["n_films"]
    assert rows[("unet", "yolact")] == rows[("semantic", "instance")] == 47
    assert rows[("pspnet", "yolact")] == 48


def test_means_of_strata():
    scores, strata = cohort()
    means = strata_means(scores, strata, **SETTINGS)
    assert dict(means.dtypes.astype(str)) == MEANS
    key = ["model", "metric", "stratum", "value"]
    assert not means.duplicated(key).any()
    found = means.set_index(key).loc[("unet", "dice", "implants", "with")]
    ids = strata.loc[strata["implants"] == "with", "image_id"]
    values = scores[(scores["model"] == "unet") & scores["image_id"].isin(ids)]["dice"]
    assert found["mean"] == pytest.approx(values.mean())
    assert found["n_films"] == len(ids)
    assert found["ci_low"] < found["mean"] < found["ci_high"]


def per_image(models=("unet", "yolact"), films=("x", "y"), value=0.5):
    rows = [{"model": model, "image_id": film} for model in models for film in films]
    table = pd.DataFrame(rows)
    table[list(METRICS)] = value
    return table


def vertebrae(model, film, pairs):
    rows = [
        {"model": model, "image_id": film, "level": level, "predicted_level": given, "iou": 0.8}
        | {"matched_instance_id": "p0", "level_probability": 0.9}
        for level, given in pairs
    ]
    return pd.DataFrame(rows).astype({"level": "string", "predicted_level": "string"})


def test_recognition_rate_is_of_the_vertebrae_with_a_level():
    instances = pd.concat(
        [
            vertebrae("unet", "x", [("L4", "L4"), ("L5", "S1")]),
            vertebrae("unet", "y", [(None, "L4")]),
        ]
    )
    scores = film_scores(per_image(), instances).set_index(["model", "image_id"])
    assert list(scores) == list(SCORES)
    assert scores.loc[("unet", "x"), "recognition_rate"] == 0.5
    assert np.isnan(scores.loc[("unet", "y"), "recognition_rate"])
    assert np.isnan(scores.loc[("yolact", "x"), "recognition_rate"])


def test_scores_are_means_over_seeds():
    replicates = pd.concat(
        [
            per_image().assign(replicate="seed1", kind="seed"),
            per_image(value=0.7).assign(replicate="seed2", kind="seed"),
            per_image(value=0.9).assign(replicate="seed3", kind="seed"),
            per_image(value=0.1).assign(replicate="fold1", kind="fold"),
        ]
    )
    instances = vertebrae("unet", "x", [("L4", "L4")])
    scores = film_scores(per_image(), instances, replicates)
    assert scores["dice"].to_numpy() == pytest.approx([0.7] * 4)
