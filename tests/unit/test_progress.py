"""Progress lines and days between studies."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.acquire.days import study_days
from lumbarflow.acquire.progress import Progress, in_words

LOG = logging.getLogger("test_progress")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def test_lines_come_now_and_then_and_at_the_end(lines):
    clock = Clock()
    progress = Progress(100, LOG, clock=clock)
    for _ in range(100):
        clock.now += 0.5
        progress.done()
    assert lines() == [
        "20 of 100 films (2.0 films/s, about 40 s left)",
        "40 of 100 films (2.0 films/s, about 30 s left)",
        "60 of 100 films (2.0 films/s, about 20 s left)",
        "80 of 100 films (2.0 films/s, about 10 s left)",
        "100 of 100 films (2.0 films/s)",
    ]


def test_failures_slow_work_and_other_units(lines):
    clock = Clock()
    progress = Progress(10, LOG, unit="studies", every=60, clock=clock)
    for _ in range(2):
        clock.now += 60
        progress.failed()
    progress.total += 8
    clock.now += 60
    progress.done(2)
    clock.now += 60
    progress.done(14)
    assert lines() == [
        "1 of 10 studies (1.0 studies/min, about 9 min left, 1 failed)",
        "2 of 10 studies (1.0 studies/min, about 8 min left, 2 failed)",
        "4 of 18 studies (1.3 studies/min, about 10 min left, 2 failed)",
        "18 of 18 studies (4.5 studies/min, 2 failed)",
    ]


def test_counts_of_many_threads_add_up(lines):
    progress = Progress(3000, LOG, every=1e9)
    with ThreadPoolExecutor(8) as pool:
        for number in range(2000):
            pool.submit(progress.failed if number % 2 else lambda: progress.done(2))
    (line,) = lines()
    assert line.startswith("3000 of 3000 films") and line.endswith("1000 failed)")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "a few seconds"), (9.9, "a few seconds"), (10, "about 10 s"), (54, "about 50 s"),
     (56, "about 1 min"), (170, "about 3 min"), (59.4 * 60, "about 59 min"),
     (59.6 * 60, "about 1 h"), (130 * 60, "about 2 h 10 min"), (119 * 60, "about 2 h"),
     (100 * 3600, "about 4 days")],
)  # fmt: skip
def test_lengths_of_time_in_words(seconds, words):
    assert in_words(seconds) == words


@settings(deadline=None)
@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_longer_times_never_sound_shorter(one, other):
    def least(seconds):
        words = in_words(seconds).split()
        units = {"s": 1, "min": 60, "h": 3600, "days": 86400}
        return sum(
            int(number) * units[unit] for number, unit in pairwise(words) if number.isdigit()
        )

    short, long = sorted((one, other))
    assert least(short) <= least(long)


# Days between studies --------------------------------------------------------------------------

FIRST = date(2000, 1, 1)
patients = st.sampled_from(["A", "B", "C"])


def dicom(day: int) -> str:
    return (FIRST + timedelta(day)).strftime("%Y%m%d")


@settings(deadline=None)
@given(st.lists(st.tuples(patients, st.integers(0, 9000)), max_size=12), st.randoms())
def test_days_count_from_the_patients_first_study(studies, random):
    met = [(patient, f"1.{i}", dicom(day)) for i, (patient, day) in enumerate(studies)]
    shuffled = met * 2
    random.shuffle(shuffled)
    days = study_days(shuffled)
    assert days == study_days(met)
    for number, (patient, day) in enumerate(studies):
        first = min(other for name, other in studies if name == patient)
        assert days[f"1.{number}"] == day - first


@pytest.mark.parametrize("value", ["", None, "2019", "20191301", "not a date"])
def test_unknown_dates_patients_and_studies(value):
    days = study_days(
        [("A", "1", value), ("A", "2", "20190102"), ("", "3", "20180101"), ("A", "", "20170101")]
    )
    assert days == {"1": None, "2": 0, "3": None}
    again = study_days([("", "1", value), ("A", "1", "20190102"), ("A", "2", " 2019.01.01 ")])
    assert again == {"1": 1, "2": 0}
