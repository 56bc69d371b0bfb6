"""Tables for papers, as Markdown and as LaTeX with the rules of the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..evaluate.film import FOREGROUND
from ..evaluate.scores import ALL
from ..evaluate.strata import STRATA
from ..evaluate.tables import TABLE1_ROWS
from .comparison import METRIC, SCORES, STRATUM_TITLES

#: Rows of table 2 for each class, in their order; of lengths the unit follows.
CLASS_ROWS = {
    "dice": "Dice",
    "iou": "IoU",
    "surface_dice": "Surface Dice",
    "hausdorff_95": "Hausdorff distance, 95%",
    "ap": "Average precision",
    "ap_50": "Average precision at IoU 0.5",
    "panoptic_quality": "Panoptic quality",
    "recognition_rate": "Vertebrae recognised",
}
LOWER_IS_BETTER = {"hausdorff_95"}
#: With more rows a table goes over several pages in LaTeX.
MOST_ROWS = 24
ABSENT = "–"
_UNITS = {"fraction": "%", "ratio": ""}
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$"},
    **{"–": "--", "[": "{[}", "]": "{]}"},  # a row must not begin with an option of \\
}


class Cell(NamedTuple):
    """A cell: its text, the interval around it (or ""), and whether it is the best of its row."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table, ready to print.

    Attributes:
        label: of the LaTeX table, such as `tab:masks`.
        caption: a sentence or two.
        header: titles of the columns.
        stubs: how many of them, from the left, name the row.
        groups: rows that stay together; a row is a cell a column.
        note: below the table.
    """

    label: str
    caption: str
    header: list[str]
    stubs: int
    groups: list[list[list[Cell]]]
    note: str = ""

    @property
    def rows(self) -> list[list[Cell]]:
        """All rows."""
        return [row for group in self.groups for row in group]


def latex_text(text: str) -> str:
    """Text for LaTeX: characters with a meaning there stand for themselves, blanks are single."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def markdown_text(text: str) -> str:
    """The same for Markdown, also within a table."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def markdown(table: Table) -> str:
    """The table in Markdown; the best cells are bold, intervals stand in brackets."""
    marks = ["---"] * table.stubs + ["---:"] * (len(table.header) - table.stubs)
    lines = [[markdown_text(title) for title in table.header], marks]
    lines += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    parts = [markdown_text(table.caption)]
    parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if table.note:
        parts.append(markdown_text(table.note))
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """The table in LaTeX; the best cells are bold, intervals stand below their values.

    It needs the packages booktabs and, with more than :data:`MOST_ROWS` rows, longtable.
    """
    long = len(table.rows) > MOST_ROWS
    columns = "l" * table.stubs + "c" * (len(table.header) - table.stubs)
    head = " & ".join(latex_text(title) for title in table.header) + r" \\"
    title = rf"\caption{{{latex_text(table.caption)}}}\label{{{table.label}}}"
    body = "\n\\addlinespace\n".join(
        "\n".join(_latex_row(row) for row in group) for group in table.groups
    )
    note = latex_text(table.note)
    if long:
        lines = [
            "% \\usepackage{booktabs,longtable}",
            *("\\begingroup\\footnotesize", f"\\begin{{longtable}}{{{columns}}}", f"{title}\\\\"),
            *("\\toprule", head, "\\midrule", "\\endfirsthead"),
            *("\\toprule", head, "\\midrule", "\\endhead", "\\bottomrule", "\\endfoot"),
            *(body, "\\end{longtable}", *([f"\\noindent {note}\\par"] if note else [])),
            "\\endgroup",
        ]
    else:
        lines = [
            "% \\usepackage{booktabs}",
            *("\\begin{table}", "\\centering\\footnotesize", title),
            *(f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head, "\\midrule"),
            *(body, "\\bottomrule", "\\end{tabular}"),
            *([f"\\par\\smallskip {note}"] if note else []),
            "\\end{table}",
        ]
    return "\n".join(lines) + "\n"


def table1(
    summary: pd.DataFrame, titles: Mapping[str, str], n_films: int, n_patients: int
) -> Table:
    """The paper's Table 1 with intervals, in percent: a row a metric, a column a network.

    Args:
        summary: `metrics/summary`.
        titles: display name of each network, in the order of the columns.
        n_films: test films.
        n_patients: their patients.
    """
    by = summary.set_index(["metric", "model"])
    rows = []
    for metric, title in TABLE1_ROWS.items():
        found = [_of_row(by, (metric, model), "mean", 100, n_patients) for model in titles]
        rows.append([Cell(title), *_best(found)])
    return Table(
        "tab:masks",
        f"Segmentation of the merged masks on {_count(n_films, 'test film')} of "
        f"{_count(n_patients, 'patient')}, in percent{_with_intervals(n_patients)}.",
        ["Metric", *titles.values()],
        1,
        [rows],
        _note(titles, n_patients),
    )


def table2(
    classes: pd.DataFrame,
    titles: Mapping[str, str],
    foreground: Sequence[str],
    n_patients: int,
) -> Table | None:
    """Metrics by class with intervals: a row a class and metric, a column a network.

    Args:
        classes: `metrics/class_summary`.
        titles: display name of each network, in the order of the columns.
        foreground: the classes whose union is the merged mask.
        n_patients: of the test films.

    Returns:
        None where there is no figure of these networks.
    """
    classes = classes[classes["model"].isin(list(titles)) & classes["metric"].isin(CLASS_ROWS)]
    if classes.empty:
        return None
    by = classes.set_index(["class_name", "metric", "unit", "model"]).sort_index()
    groups = []
    for name in classes["class_name"].unique():
        of_class = classes[classes["class_name"] == name]
        rows = []
        for metric, title in CLASS_ROWS.items():
            part = of_class[of_class["metric"] == metric]
            for unit in sorted(part["unit"].unique()):
                scale = 1 if metric in LOWER_IS_BETTER else 100
                found = [
                    _of_row(by, (name, metric, unit, model), "value", scale, n_patients)
                    for model in titles
                ]
                counts = part.loc[part["unit"] == unit, "n"]
                low, high = int(counts.min()), int(counts.max())
                n = f"{low}" if low == high else f"{low}–{high}"
                stub = Cell(_class_title(name, foreground) if not rows else "")
                best = _best(found, lowest=metric in LOWER_IS_BETTER)
                rows.append([stub, Cell(_metric_title(metric, title, unit)), Cell(n), *best])
        groups.append(rows)
    return Table(
        "tab:classes",
        f"Scores by class on the test films{_with_intervals(n_patients)}.",
        ["Class", "Metric", "n", *titles.values()],
        2,
        groups,
        "n: films; annotated structures for average precision; annotated and predicted structures "
        "for panoptic quality; vertebrae for those recognised. " + _note(titles, n_patients),
    )


def comparison_tables(compared: pd.DataFrame, titles: Mapping[str, str]) -> list[Table]:
    """Paired differences between networks, and between the families by stratum.

    Args:
        compared: `metrics/comparisons`.
        titles: display name of each network that is in it.

    Returns:
        The tables that there is something for; none of a single network.
    """
    names = dict(titles) | {"semantic": "Semantic", "instance": "Instance"}
    whole = compared[compared["stratum"] == "all"]
    header = ["95% interval", "Effect size", "p", "p (Holm)"]
    note = (
        "First less second, in percentage points. Effect size: matched-pairs rank-biserial "
        "correlation. p: Wilcoxon's signed rank test over films, the differences of a patient "
        "changing sign together; corrected by Holm's method."
    )
    tables = []
    if len(whole):
        groups = []
        for metric, title in SCORES.items():
            part = whole[whole["metric"] == metric]
            rows = [
                [
                    Cell("" if n else title),
                    Cell(f"{names[row['a']]} − {names[row['b']]}"),
                    *_difference(row),
                ]
                for n, row in enumerate(part.to_dict("records"))
            ]
            groups += [rows] if rows else []
        films, patients = int(whole["n_films"].max()), int(whole["n_patients"].max())
        tables.append(
            Table(
                "tab:comparisons",
                f"Differences between networks on {_count(films, 'test film')} of "
                f"{_count(patients, 'patient')}.",
                ["Score", "Contrast", "Difference", *header],
                2,
                groups,
                note,
            )
        )
    family = compared[(compared["kind"] == "family") & (compared["metric"] == METRIC)]
    groups = []
    for stratum in STRATA:
        part = family[family["stratum"] == stratum].to_dict("records")
        if len(part) > 1:
            groups.append(
                [
                    [
                        Cell("" if n else STRATUM_TITLES[stratum]),
                        Cell(row["value"]),
                        Cell(f"{row['n_films']} ({row['n_patients']})"),
                        *_difference(row),
                        Cell("" if n else p_text(row["interaction_p_holm"])),
                    ]
                    for n, row in enumerate(part)
                ]
            )
    if groups:
        tables.append(
            Table(
                "tab:strata",
                f"Semantic less instance networks by stratum, {SCORES[METRIC]}.",
                [
                    *("Stratum", "Value", "Films (patients)", "Difference"),
                    *header,
                    "p of dependence",
                ],
                2,
                groups,
                f"{note} p of dependence: permutation test of whether the difference depends on "
                "the stratum, corrected by Holm's method.",
            )
        )
    return tables


def p_text(value: float) -> str:
    """A p value with three decimals."""
    if pd.isna(value):
        return ABSENT
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _difference(row: Mapping[str, object]) -> list[Cell]:
    low, high = (_points(row[end]) for end in ("ci_low", "ci_high"))
    return [
        Cell(_points(row["difference"])),
        Cell(ABSENT if ABSENT in (low, high) else f"{low} to {high}"),
        Cell(_signed(row["rank_biserial"])),
        Cell(p_text(row["p"])),
        Cell(p_text(row["p_holm"])),
    ]


def _points(value: float) -> str:
    return _signed(100 * value)


def _signed(value: float) -> str:
    return ABSENT if pd.isna(value) else f"{value:+.2f}".replace("-", "−")


def _with_intervals(n_patients: int) -> str:
    return ", with 95% intervals" if n_patients > 1 else ""


def _note(titles: Mapping[str, str], n_patients: int) -> str:
    intervals = "Intervals: percentile bootstrap over patients."
    if n_patients < 2:
        intervals = "All test films are of one patient: there are no intervals."
    return intervals + (" Bold: the best value of a row." if len(titles) > 1 else "")


def _of_row(
    by: pd.DataFrame, key: tuple, column: str, scale: float, n_patients: int
) -> tuple[float, Cell]:
    """Value, NaN where there is none, and cell of a row; of one patient without an interval."""
    if key not in by.index:
        return np.nan, Cell(ABSENT)
    row = by.loc[key]
    value, low, high = (scale * float(row[name]) for name in (column, "ci_low", "ci_high"))
    known = n_patients > 1 and not np.isnan([low, high]).any()
    interval = f"{low:.2f}–{high:.2f}" if known else ""
    return value, Cell(f"{value:.2f}", interval)


def _best(found: Sequence[tuple[float, Cell]], lowest: bool = False) -> list[Cell]:
    """The cells, the best of several marked, and those that print alike."""
    known = [(value, cell.text) for value, cell in found if not np.isnan(value)]
    if len(found) < 2 or not known:
        return [cell for _, cell in found]
    text = (min if lowest else max)(known)[1]
    return [cell._replace(best=cell.text == text) for _, cell in found]


def _class_title(name: str, foreground: Sequence[str]) -> str:
    if name == FOREGROUND:
        return f"Merged: {', '.join(one.replace('_', ' ') for one in foreground)}"
    if name == ALL:
        return "Mean over classes"
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _metric_title(metric: str, title: str, unit: str) -> str:
    if metric == "surface_dice":
        return f"{title}, % (films in {unit})"
    return f"{title}, {_UNITS.get(unit, unit)}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    text = f"**{text}**" if cell.best else text
    return f"{text} ({markdown_text(cell.interval)})" if cell.interval else text


def _latex_row(row: Sequence[Cell]) -> str:
    texts = [latex_text(cell.text) for cell in row]
    texts = [
        f"\\textbf{{{text}}}" if cell.best else text for text, cell in zip(texts, row, strict=True)
    ]
    lines = [" & ".join(texts)]
    if any(cell.interval for cell in row):
        intervals = [f"({latex_text(cell.interval)})" if cell.interval else "" for cell in row]
        lines.append(" & ".join(intervals))
    return " \\\\*\n".join(lines) + " \\\\"
