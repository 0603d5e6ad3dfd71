"""Reports: one HTML file that opens without network."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from pc_train.runs import write_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2330; background: #f7f8fa;
       margin: 0 auto; max-width: 62rem; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p.lead { color: #56607a; margin-top: 0; } img { max-width: 100%; }
figure { background: #fff; border: 1px solid #e2e6ee; border-radius: 8px; margin: 0 0 1rem;
         padding: .8rem; } figcaption { color: #56607a; font-size: .88rem; padding-top: .4rem; }
table { border-collapse: collapse; background: #fff; } th { text-align: left; }
th, td { border-bottom: 1px solid #e2e6ee; padding: .3rem .9rem .3rem .4rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #fff; border: 1px solid #e2e6ee; border-radius: 8px; overflow-x: auto;
      padding: .8rem; font-size: .82rem; }
"""


class Report:
    """A page that grows from top to bottom.

    Args:
        title: Heading of the page.
        lead: One sentence below it.
    """

    def __init__(self, title: str, lead: str) -> None:
        self._title = title
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
        self._parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a picture."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        data = base64.b64encode(buffer.getvalue()).decode()
        text = html.escape(caption)
        self._parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def text(self, content: str) -> None:
        """Add preformatted text."""
        self._parts.append(f"<pre>{html.escape(content)}</pre>")

    def write(self, path: Path) -> None:
        """Write the page."""
        write_text(
            path,
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>'
            f"{html.escape(self._title)}</title><style>{_STYLE}</style></head><body>"
            f"{''.join(self._parts)}</body></html>\n",
        )


def percent(value: float) -> str:
    """Write a share as percent with one decimal; a dash where there is none."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def iou_rows(ious: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Rows of a table: class, then the IoU of each model in percent."""
    names = next(iter(ious.values()))
    return [
        [name.replace("_", " "), *(percent(iou[name]) for iou in ious.values())] for name in names
    ]


def _cell(value: object) -> str:
    text = html.escape(str(value))
    numeric = text[:1].isdigit() or text == "-"
    return f'<td class="number">{text}</td>' if numeric else f"<td>{text}</td>"
