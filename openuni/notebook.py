"""A sample in a notebook: all its columns by one slider, in a frame of its own; needs no server and no Jupyter."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass

import cv2
import numpy as np

from openuni import contact_sheet
from openuni.sample import Sample

_WIDTH = 256
"""Of a pane, pixels."""
_MOST_FRAMES = 32
"""A longer clip is shown by that many, evenly spread: every picture lies in the notebook's file."""

_PAGE = """<!doctype html><meta charset="utf-8"><style>
:root { color-scheme: light dark } body { font: 13px system-ui, sans-serif; margin: 4px }
#panes { display: flex; flex-wrap: wrap; gap: 6px } figure { margin: 0 } img { display: block; width: %(width)dpx }
input { width: min(100%%, 520px) }
</style><b>%(key)s</b> %(caption)s<br>
<input type="range" min="0" max="%(last)d" value="0" aria-label="Frame"> <output></output><div id="panes"></div>
%(absent)s
<script>
const films = %(films)s, numbers = %(numbers)s, slider = document.querySelector("input");
const images = Object.entries(films).map(([name, film]) => {
  const figure = document.createElement("figure"), image = document.createElement("img");
  figure.append(name, image); image.alt = name; document.getElementById("panes").append(figure);
  return [film, image];
});
slider.oninput = () => {
  for (const [film, image] of images) image.src = "data:image/jpeg;base64," + film[slider.value];
  document.querySelector("output").textContent = "frame " + numbers[slider.value] + " of %(frames)d";
};
slider.oninput();
</script>"""


@dataclass(frozen=True, slots=True)
class View:
    """What a notebook shows of a sample, by its `_repr_html_`."""

    html: str

    def _repr_html_(self) -> str:
        # Text of a dataset is not ours: the frame may run its own script, and reach nothing of the notebook's.
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(self.html)}" '
            'style="width:100%;height:460px;border:0"></iframe>'
        )


def view(sample: Sample) -> View:
    """All columns of a sample side by side, small, with a slider over at most 32 of its frames.

    Raises CorruptDataError where a column is damaged.

    Example:
        >>> import openuni
        >>> shown = openuni.view(openuni.open("data/demo")["bunny"])
        >>> shown._repr_html_()[:31]
        '<iframe sandbox="allow-scripts"'
    """
    frames = sample.record.frames
    numbers = np.unique(np.linspace(0, frames - 1, min(frames, _MOST_FRAMES)).round().astype(int)).tolist()
    films = {name: _film(sample, name, numbers) for name in sample.statuses if name in sample}
    absent = {
        name: status.reason or "no reason recorded" for name, status in sample.statuses.items() if name not in sample
    }
    page = _PAGE % {
        "frames": frames,
        "absent": "<br>".join(html.escape(f"{name} is absent: {reason}") for name, reason in absent.items()),
        "width": _WIDTH,
        "key": html.escape(sample.key),
        "caption": html.escape(sample.caption),
        "last": len(numbers) - 1,
        "films": json.dumps(films),
        "numbers": json.dumps(numbers),
    }
    return View(page)


def _film(sample: Sample, name: str, numbers: list[int]) -> list[str]:
    film = contact_sheet.film(sample, name)
    scale = min(1.0, _WIDTH / film.shape[2])
    size = (max(1, round(film.shape[2] * scale)), max(1, round(film.shape[1] * scale)))
    pictures = [cv2.resize(film[number], size, interpolation=cv2.INTER_AREA)[..., ::-1] for number in numbers]
    return [base64.b64encode(cv2.imencode(".jpg", picture)[1].tobytes()).decode() for picture in pictures]
