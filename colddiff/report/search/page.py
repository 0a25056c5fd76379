"""The page of a search: sentences, table and pictures in one file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence

from colddiff.report.search.figures import SearchPicture

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c1c1e;--soft:#6e6e73;--line:#dcdce0;
--base:#fdebdc;--mark:#d55e00}
@media(prefers-color-scheme:dark){:root{--paper:#17181b;--ink:#ececee;--soft:#a3a3aa;--line:#3a3b41;
--base:#47301d;--mark:#ff9d57}}
body{font:15px/1.5 "DejaVu Sans",Verdana,sans-serif;background:var(--paper);color:var(--ink);
max-width:76rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.35rem}h2{font-size:1.05rem;margin:2rem 0 .6rem}
.verdict p{margin:.3rem 0;max-width:60rem}.verdict p:first-child{font-weight:bold}
.soft,caption,figcaption{color:var(--soft);font-size:.85rem}
.table{overflow-x:auto}table{border-collapse:collapse;font-size:.82rem}
caption{text-align:left;padding-bottom:.5rem}
th,td{padding:.3em .6em;text-align:right;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:normal;vertical-align:bottom}td:nth-child(2){white-space:nowrap}
td.text,th:last-child{text-align:left}td.text{min-width:15em}
tr.base{background:var(--base)}tr.base td:first-child{box-shadow:inset 4px 0 var(--mark)}
figure{margin:1.2rem 0;min-width:0}figure img{max-width:100%;height:auto;background:#fff;
border:1px solid var(--line);border-radius:8px;padding:.5rem;box-sizing:border-box}
@media(prefers-color-scheme:dark){figure.plot img{filter:invert(.91) hue-rotate(180deg);
border-color:#c9c8c2}}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(32rem,100%),1fr));gap:0 1.2rem}
""".strip()
HEADLINE = "paths.png"


def search_page(
    title: str,
    sentences: Sequence[str],
    table: str,
    pictures: Sequence[SearchPicture],
    notes: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
) -> str:
    """HTML without any reference to the outside; equal arguments give equal bytes.

    Args:
        title: heading, such as the job's id.
        sentences: the verdict, at the top; the first in bold.
        table: an HTML table, inserted as it is.
        pictures: ``paths.png`` is put above the table, the others below it.
        notes: further sentences, below the table.
        facts: pairs shown under the heading.
    """
    name = html.escape(title)
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    told = "".join(f"<p>{html.escape(text)}</p>" for text in sentences)
    shown = " · ".join(f"{html.escape(k)} {html.escape(v)}" for k, v in (facts or {}).items())
    first = [picture for picture in pictures if picture.name == HEADLINE]
    others = [picture for picture in pictures if picture.name != HEADLINE]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{name}</title><style>{STYLE}</style></head><body>",
        f"<h1>{name}</h1>",
        *([f'<p class="soft">{shown}</p>'] if shown else []),
        f'<div class="verdict">{told}</div>',
        *map(_figure, first),
        f'<h2>Leaderboard</h2><div class="table">\n{table}</div>',
        *(f'<p class="soft">{html.escape(note)}</p>' for note in notes),
        *(['<h2>Pictures</h2><div class="grid">', *map(_figure, others), "</div>"] * bool(others)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _figure(picture: SearchPicture) -> str:
    data = base64.b64encode(picture.png).decode()
    kind = "photo" if picture.photo else "plot"
    alt = html.escape(picture.alt)
    return f'<figure class="{kind}"><img src="data:image/png;base64,{data}" alt="{alt}"></figure>'
