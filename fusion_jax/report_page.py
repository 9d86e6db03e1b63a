"""HTML pieces of our pages: plain text goes in, escaped; one file without any outside address comes out."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# The content policy makes the browser refuse every outside address; plotly compiles some code as it runs.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; font-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""

_CSS = """
:root { color-scheme: light; --ink: #1d2733; --soft: #5b6877; --line: #dde3ea; --accent: #0b66a8; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: #f4f6f8; color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 12px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 0 0 8px; }
h3 { font-size: 1.05rem; margin: 28px 0 4px; }
p { margin: 6px 0 12px; max-width: 46rem; }
.lead, .note, figcaption { color: var(--soft); }
nav { margin: 14px 0 4px; display: flex; flex-wrap: wrap; gap: 4px 18px; }
a { color: var(--accent); }
section { background: white; border: 1px solid var(--line); border-radius: 12px; padding: 22px 24px;
  margin: 20px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(180px, 44%), 1fr)); gap: 14px;
  margin: 18px 0; }
.card { background: white; border: 1px solid var(--line); border-radius: 12px; padding: 14px 18px; }
.card b { display: block; font-size: 1.75rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 10px 0 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: .88rem; }
td.number, th.number { text-align: right; white-space: nowrap; padding-right: 20px; }
td.best { font-weight: 700; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 6px 0 12px;
  font-size: .93rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 16px 0 22px; } figcaption { font-size: .93rem; max-width: 46rem; margin-top: 6px; }
figure img { display: block; width: 100%; height: auto; }
.controls { display: flex; flex-wrap: wrap; gap: 8px 10px; align-items: center; margin: 10px 0; }
select, button { font: inherit; padding: 5px 12px; border: 1px solid #b9c4cf; border-radius: 8px;
  background: white; color: var(--ink); max-width: 100%; }
select { max-width: calc(100% - 100px); }
button:hover, select:hover { border-color: var(--accent); }
.viewer-body { display: grid; grid-template-columns: 220px 1fr; gap: 18px; align-items: center; }
.viewer-body img { width: 100%; image-rendering: pixelated; border-radius: 8px; display: block; }
.large .viewer-body { grid-template-columns: 340px 1fr; } .large .viewer-body img { image-rendering: auto; }
.plot { height: 540px; min-width: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 0 36px; }
pre { background: #f4f6f8; border-radius: 8px; padding: 14px; overflow-x: auto; font-size: .84rem;
  line-height: 1.45; }
summary { cursor: pointer; color: var(--accent); }
@media (max-width: 720px) {
  main { padding: 12px 10px 40px; } section { padding: 16px 14px; }
  figure .scroll img { width: max(100%, 680px); } table { min-width: 600px; }
  .viewer-body, .large .viewer-body { grid-template-columns: 1fr; }
  .viewer-body img { width: 180px; margin: 0 auto; } .large .viewer-body img { width: min(100%, 340px); }
  .pair table { min-width: 0; } .pair td, .pair th { padding-right: 8px; }
  .plot { height: 420px; } dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; }
}
@media print { section, .card { break-inside: avoid; border: none; } .controls { display: none; } }
"""

_SCRIPT = """
for (const viewer of document.querySelectorAll("[data-viewer]")) {
  const plot = viewer.querySelector(".plotly-graph-div"), picker = viewer.querySelector("select");
  const parts = [...viewer.querySelectorAll("[data-sample]")], perSample = Number(viewer.dataset.traces);
  picker.addEventListener("change", () => {
    const shown = plot.data.map((_, i) => Math.floor(i / perSample) === picker.selectedIndex);
    Plotly.restyle(plot, {visible: shown});
    for (const part of parts) part.hidden = Number(part.dataset.sample) !== picker.selectedIndex;
  });
  for (const button of viewer.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const step = {previous: -1, next: 1}[button.dataset.go];
      if (step) {
        const count = picker.options.length;
        picker.selectedIndex = (picker.selectedIndex + step + count) % count;
        picker.dispatchEvent(new Event("change"));
      } else {
        Plotly.relayout(plot, {"scene.camera": JSON.parse(button.dataset.camera)});
      }
    });
  }
}
"""


class Section(NamedTuple):
    """A part of the page: plain title and anchor, HTML parts, and the PNG files that it shows, by name."""

    title: str
    anchor: str
    parts: list[str]
    pngs: dict[str, bytes]


def page(title: str, top: str, sections: Sequence[Section]) -> str:
    """The whole document: HTML `top`, then each section as a card that the contents line can lead to."""
    cards = (
        f'<section id="{html.escape(s.anchor)}"><h2>{html.escape(s.title)}</h2>{"".join(s.parts)}</section>'
        for s in sections
    )
    body = "\n".join([top, *cards])
    return _PAGE.format(title=html.escape(title), css=_CSS, body=body, script=_SCRIPT)


def header(name: str, summary: str, kind: str = "fusion-jax report") -> str:
    """The page's head: what it reports on, a few plain sentences, and above both what kind of page it is."""
    small, text = paragraph(kind, "lead"), paragraph(summary, "lead")
    return f"<header>{small}<h1>{html.escape(name)}</h1>{text}</header>"


def subtitle(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{html.escape(text)}</h3>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; `kind` is a class of the style sheet."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def contents(sections: Sequence[Section]) -> str:
    """A line of links to the sections."""
    links = (f'<a href="#{html.escape(s.anchor)}">{html.escape(s.title)}</a>' for s in sections)
    return f"<nav>{''.join(links)}</nav>"


def cards(entries: Sequence[tuple[str, str]]) -> str:
    """Big numbers with a line under each: (value, what it is)."""
    each = (f'<div class="card"><b>{html.escape(v)}</b><span>{html.escape(w)}</span></div>' for v, w in entries)
    return f'<div class="cards">{"".join(each)}</div>'


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = (), best: Sequence = ()
) -> str:
    """A table of plain texts.

    Args:
      numeric: columns set flush right.
      best: (row, column) pairs to stress.
    """

    def cell(tag: str, row: int, column: int, text: str) -> str:
        kinds = ["number"] * (column in numeric) + ["best"] * ((row, column) in best)
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", -1, c, text) for c, text in enumerate(header))
    body = ("".join(cell("td", r, c, text) for c, text in enumerate(row)) for r, row in enumerate(rows))
    lines = "".join(f"<tr>{line}</tr>" for line in body)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def definitions(entries: Sequence[tuple[str, str]]) -> str:
    """A list of names with their plain text."""
    return f"<dl>{''.join(f'<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>' for k, v in entries)}</dl>"


def picture(png: bytes, caption: str) -> str:
    """An embedded picture and the sentences that say what it shows."""
    text = html.escape(caption)
    return (
        f'<figure><div class="scroll"><img src="{_data_url(png)}" alt="{text}"></div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def folded(summary: str, text: str) -> str:
    """Preformatted plain text behind a click."""
    return f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>"


def plot(figure: Mapping[str, Any], div_id: str, *, with_code: bool) -> str:
    """A plotly figure, given as a dict, to turn by hand; `with_code` brings plotly's code along, once a page."""
    import plotly.io

    return plotly.io.to_html(
        figure,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
        full_html=False,
        include_plotlyjs=with_code,
        validate=False,
        div_id=div_id,
    )


def viewer(
    plot: str,
    labels: Sequence[str],
    crops: Sequence[bytes],
    cameras: Sequence[tuple[str, str]],
    traces: int,
    details: Sequence[str] = (),
    *,
    large: bool = False,
) -> str:
    """A plotly plot with a picker of samples, each with its crop beside it, and buttons for views.

    Args:
      plot: plotly's HTML; its data are `traces` traces for each sample.
      labels: plain text, one a sample.
      crops: PNG or JPEG files, one a sample.
      cameras: name and plotly camera as JSON, one a button.
      details: HTML to show under the plot with a sample, one a sample or none at all.
      large: the crops are many pixels across, so they get more room, and their pixels are not to be seen.
    """
    options = "".join(f"<option>{html.escape(label)}</option>" for label in labels)
    images = "".join(
        f'<img src="{_data_url(crop)}" alt="{html.escape(label)}" {_of_sample(i)}>'
        for i, (crop, label) in enumerate(zip(crops, labels, strict=True))
    )
    below = "".join(f"<div {_of_sample(i)}>{part}</div>" for i, part in enumerate(details))
    views = "".join(
        f'<button type="button" data-camera="{html.escape(camera)}">{html.escape(name)}</button>'
        for name, camera in cameras
    )
    kind = ' class="large"' if large else ""
    return (
        f'<div data-viewer data-traces="{traces}"{kind}><div class="controls">'
        '<button type="button" data-go="previous" aria-label="previous sample">‹</button>'
        f'<select aria-label="sample" autocomplete="off">{options}</select>'
        '<button type="button" data-go="next" aria-label="next sample">›</button>'
        f'{views}</div><div class="viewer-body"><div>{images}</div><div class="plot">{plot}</div></div>{below}</div>'
    )


def _of_sample(index: int) -> str:
    """Attributes of what is shown with one sample alone; at first with the first."""
    return f'data-sample="{index}"' + " hidden" * (index > 0)


def _data_url(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
