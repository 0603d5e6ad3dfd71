"""Reports: one HTML file that opens without network."""

import base64
import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure

from pc_train.reports.viewer import Cloud, cloud_figure, viewer_script
from pc_train.runs import CONFIG, write_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #56607a; --page: #f7f8fa; --card: #fff;
        --line: #e2e6ee; --accent: #1f6f8b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9f0; --soft: #a3adc2; --page: #12151c;
        --card: #1b2029; --line: #323a4a; --accent: #6fc3df; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
       margin: 0 auto; max-width: 62rem; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p.lead { color: var(--soft); margin-top: 0; } a { color: var(--accent); }
img { max-width: 100%; background: #fff; border-radius: 4px; }
figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
         margin: 0 0 1rem; padding: .8rem; }
figcaption { color: var(--soft); font-size: .88rem; padding-top: .4rem; }
div.row { display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
div.wide { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; background: var(--card); } th { text-align: left; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .9rem .3rem .4rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow-x: auto;
      padding: .8rem; font-size: .82rem; }
details { margin-bottom: 1rem; } summary { cursor: pointer; color: var(--accent); }
"""
_CLOUD_STYLE = """
.cloud .bar, .cloud .legend { display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: center;
  font-size: .88rem; padding-bottom: .5rem; }
.cloud label { display: flex; gap: .4rem; align-items: center; } .cloud input { width: 6rem; }
.cloud .stage { position: relative; height: 33rem; max-height: 85vh; border-radius: 4px;
  background: #14171f; overflow: hidden; }
.cloud canvas { width: 100%; height: 100%; display: block; touch-action: none; cursor: grab; }
.cloud canvas:focus-visible { outline: 2px solid #6fc3df; outline-offset: -2px; }
.cloud output { position: absolute; left: .6rem; bottom: .4rem; color: #e6e9f0; font-size: .82rem;
  text-shadow: 0 0 4px #000; pointer-events: none; }
.cloud .legend { gap: .25rem .4rem; padding: .5rem 0 0; max-height: 9rem; overflow-y: auto; }
.cloud .legend button { display: flex; gap: .4rem; align-items: center; font: inherit;
  color: inherit; background: none; border: 1px solid var(--line); border-radius: 1rem;
  padding: 0 .6rem; cursor: pointer; }
.cloud .legend button[aria-pressed=false] { opacity: .45; text-decoration: line-through; }
.cloud .mark { width: .8rem; height: .8rem; border-radius: 50%; outline: 1px solid #0004; }
.cloud .scale { width: 10rem; height: .8rem; border-radius: .2rem; }
"""


_MARKS = re.compile(
    r'<h2>(?P<heading>.*?)</h2>|<img alt="[^"]*" src="data:image/png;base64,(?P<data>[\w+/=]+)">'
)


class Report:
    """A page that grows from top to bottom.

    Args:
        title: Heading of the page.
        lead: One sentence below it.
        reload_s: Seconds after which a browser reads the file again; 0 for never.
    """

    def __init__(self, title: str, lead: str, *, reload_s: int = 0) -> None:
        self._title, self._reload_s = title, reload_s
        self._has_clouds = False
        self._parts = [f'<h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>']

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table; numbers are aligned to the right."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        self._parts.append(f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>')

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a picture."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        self._parts.append(_figure(base64.b64encode(buffer.getvalue()).decode(), caption))

    def pictures(self, pictures: Mapping[str, str]) -> None:
        """Add pictures side by side, as `read_pictures` gives them, by caption."""
        figures = "".join(_figure(data, caption) for caption, data in pictures.items())
        self._parts.append(f'<div class="row">{figures}</div>')

    def cloud(self, cloud: Cloud, caption: str) -> None:
        """Add a point cloud to turn and to colour."""
        self._parts.append(cloud_figure(cloud, caption))
        self._has_clouds = True

    def text(self, content: str) -> None:
        """Add preformatted text."""
        self._parts.append(f"<pre>{html.escape(content)}</pre>")

    def configuration(self, run: Path) -> None:
        """Add a section with the settings of a run, if its folder holds them."""
        if (run / CONFIG).is_file():
            self.heading("Configuration")
            self.text((run / CONFIG).read_text(encoding="utf-8"))

    @contextmanager
    def folded(self, summary: str, *, unfold: bool = False) -> Iterator[None]:
        """Let what the block adds be folded into one line by a click; it begins so, or unfolded."""
        state = " open" if unfold else ""
        self._parts.append(f"<details{state}><summary>{html.escape(summary)}</summary>")
        yield
        self._parts.append("</details>")

    def write(self, path: Path) -> None:
        """Write the page; its policy forbids it every request and any script but the viewer's."""
        style, script, allowed = _STYLE, "", "'none'"
        if self._has_clouds:
            code, digest = viewer_script()
            style, script, allowed = style + _CLOUD_STYLE, f"<script>{code}</script>", f"'{digest}'"
        policy = (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
        )
        again = f'<meta http-equiv="refresh" content="{self._reload_s}">' if self._reload_s else ""
        write_text(
            path,
            f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self._title)}</title><style>{style}</style></head><body>"
            f"{''.join(self._parts)}{script}</body></html>\n",
        )


def read_pictures(page: Path) -> dict[str, str]:
    """Take the first picture of each section out of a report: PNG in base64, by heading."""
    if not page.is_file():
        return {}
    found: dict[str, str] = {}
    heading = ""
    for mark in _MARKS.finditer(page.read_text(encoding="utf-8")):
        if mark["heading"] is not None:
            heading = html.unescape(mark["heading"])
        else:
            found.setdefault(heading, mark["data"])
    return found


def percent(value: float) -> str:
    """Write a share as percent with one decimal; a dash where there is none."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def iou_rows(ious: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Rows of a table: class, then the IoU of each model in percent."""
    names = next(iter(ious.values()))
    return [
        [name.replace("_", " "), *(percent(iou[name]) for iou in ious.values())] for name in names
    ]


def _figure(data: str, caption: str) -> str:
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _cell(value: object) -> str:
    text = html.escape(str(value))
    numeric = text.lstrip("+-")[:1].isdigit() or text == "-"
    return f'<td class="number">{text}</td>' if numeric else f"<td>{text}</td>"
