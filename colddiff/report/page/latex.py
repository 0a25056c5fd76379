"""The tables of a report as LaTeX, as in a paper: grouped heads, and no package but booktabs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from colddiff.report.page.table import (
    ResultTable,
    method_text,
    metric_text,
    note_of,
    notes_below,
    row_texts,
)

WRITTEN = {
    **{sign: f"\\{sign}" for sign in "_%&#{}$"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def to_latex(tables: Sequence[ResultTable]) -> str:
    """The tables as LaTeX ``tabular`` environments, for ``booktabs``."""
    lines = []
    for table in tables:
        lines += [
            f"% {table.title}: {note_of(table)}",
            *(f"% {note}" for note in notes_below(table)),
            rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}",
            r"\toprule",
            *_groups(table.metrics),
            _line(["", *(_escaped(metric_text(metric)) for metric in table.metrics)]),
            r"\midrule",
        ]
        for row in table.rows:
            # Of the numbers ± alone is not LaTeX, and the bold ones are already in braces.
            cells = row_texts(row, table.metrics, r"\textbf{{{}}}")
            cells = [text.replace("±", WRITTEN["±"]) for text in cells]
            lines.append(_line([_escaped(row.label), *cells]))
        lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _groups(metrics: Sequence[str]) -> list[str]:
    """The head above the metrics: each method over its own, with a rule; none without methods."""
    cells, rules, place = [""], [], 2
    for method, group in groupby(metrics, method_text):
        count = len(list(group))
        cells.append(rf"\multicolumn{{{count}}}{{c}}{{{_escaped(method)}}}" if method else "")
        cells += [""] * (0 if method else count - 1)
        rules += [rf"\cmidrule(lr){{{place}-{place + count - 1}}}"] if method else []
        place += count
    return [_line(cells), " ".join(rules)] if rules else []


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(WRITTEN.get(sign, sign) for sign in text)
