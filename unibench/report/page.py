"""One self-contained HTML page of a report: tables, distributions, worst and best samples in pictures, baselines."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from openuni import printable
from openuni.errors import AbsentModalityError, OpenUniError
from unibench import tasks
from unibench.report.pictures import in_frame
from unibench.report.published import COLUMNS, SOURCE
from unibench.report.report import Report, SampleReport, TaskReport, baselines, show, show_interval
from unibench.scoring.protocol import RULES
from unibench.tasks import Estimated, Run, Setup, Variants
from unibench.tasks.drawing import Panel

_PICTURED = 3
"""Samples shown from each end."""
_BARS = 32


def render(report: Report, predictions: Run, truth: Run | None) -> str:
    """The page as HTML text without any reference to the outside."""
    import jinja2

    template = jinja2.Template(Path(__file__).with_name("page.html").read_text("utf-8"), autoescape=True)
    names = [name for name in COLUMNS if name.split("/")[0] in report.tasks]
    rows = [{"model": row.model, "cells": row.cells(names)} for row in baselines(report)]
    protocol = {k: v for k, v in asdict(report.protocol).items() if v not in ({}, ())} | dict(RULES)
    text: str = template.render(
        report=report,
        look=Path(__file__).with_name("look.css").read_text("utf-8"),
        view=_view(report),
        tasks=[_task(name, task, report, predictions, truth) for name, task in report.tasks.items()],
        published={"source": SOURCE, "headings": [COLUMNS[name] for name in names], "rows": rows},
        protocol=[(name, ", ".join(v) if isinstance(v, tuple) else v) for name, v in protocol.items()],
    )
    return text


def _task(name: str, task: TaskReport, report: Report, predictions: Run, truth: Run | None) -> dict[str, Any]:
    samples = [s for s in report.samples if s.task == name]
    ranked = sorted((s for s in samples if task.primary in s.scores), key=lambda s: s.scores[task.primary][0])
    if task.columns[task.primary].better == "lower":
        ranked.reverse()  # worst first
    seen = [s for s in ranked if not s.penalised]  # the others have no prediction to show, and are listed below
    groups = {"Worst samples": seen[:_PICTURED], "Best samples": seen[_PICTURED:][-_PICTURED:][::-1]}
    rows = [
        {
            "name": column,
            "value": show(c.value, c.unit),
            "interval": show_interval(c),
            "better": "" if c.better == "neither" else c.better,
            "what": c.what,
            "note": c.note,
        }
        for column, c in task.columns.items()
        if c.value is not None or c.note
    ]
    variants = tasks.get(name).variants
    beside = () if variants is None else variants.names
    aligned = [row for row in rows if row["name"].split("/")[0] in beside and row["name"] != task.primary]
    return {
        "name": name,
        "counts": task.counts,
        "primary": task.primary,
        "columns": [row for row in rows if row not in aligned],
        "aligned": aligned,
        "alignments": None if variants is None else _alignments(task, variants),
        "histogram": _histogram([s.scores[task.primary][0] for s in ranked]),
        "groups": [
            {"title": title, "figures": [_figure(s, task.primary, report, predictions, truth) for s in group]}
            for title, group in groups.items()
            if group
        ],
        "lost": [s for s in samples if s.status != "scored"],
    }


def _alignments(task: TaskReport, variants: Variants) -> dict[str, Any]:
    return {
        "names": variants.names,
        "rows": [
            {"name": m, "cells": [show(task.columns[f"{name}/{m}"].value) for name in variants.names]}
            for m in variants.measures
        ],
    }


def _histogram(values: list[float]) -> dict[str, Any] | None:
    """Bars in a drawing of 640×130."""
    if len(values) < 2 or max(values) == min(values):
        return None
    counts, edges = np.histogram(values, bins=min(_BARS, max(4, len(values) // 2)))
    width = 640 / len(counts)
    bars = [
        {
            "x": round(k * width + 1, 1),
            "y": round(130 - 125 * count / counts.max(), 1),
            "width": round(width - 2, 1),
            "height": round(125 * count / counts.max(), 1),
            "label": f"{edges[k]:.4g} … {edges[k + 1]:.4g}: {printable.count(count, 'sample')}",
        }
        for k, count in enumerate(counts.tolist())
    ]
    return {"bars": bars, "low": f"{edges[0]:.4g}", "high": f"{edges[-1]:.4g}"}


def _figure(
    sample: SampleReport, primary: str, report: Report, predictions: Run, truth: Run | None
) -> Mapping[str, Any]:
    caption = f"{sample.key} · {primary} {sample.scores[primary][0]:.4g}"
    view = _view(report, sample.key)
    try:
        drawn = _panels(sample, report, predictions, truth)
        panels = [_embedded(panel) for panel in drawn]
    except OpenUniError as error:
        # What cannot be drawn costs its own place, not the page.
        return {"caption": f"{caption} · {error}", "panels": [], "view": view}
    except Exception as error:  # noqa: BLE001  whatever a prediction from outside provokes while it is drawn
        return {"caption": f"{caption} · cannot be drawn: {type(error).__name__}: {error}", "panels": [], "view": view}
    return {"caption": caption, "panels": panels, "view": view}


def _view(report: Report, key: str | None = None) -> str:
    """The command that shows all clips, or one, frame by frame: a link would need the viewer to be running."""
    command = ["openuni", "view", "--pred", report.predictions, *(["--gt", report.truth] if report.truth else [])]
    return shlex.join([*command, "--clip", key] if key else command)


def _panels(sample: SampleReport, report: Report, predictions: Run, truth: Run | None) -> list[Panel]:
    task = tasks.get(sample.task)
    drawn, frame = task.shown(predictions, truth, sample.key, Setup(max_depth=report.protocol.max_depth))
    compared = truth is not None and isinstance(task, Estimated)
    return in_frame(_rgb(truth, sample.key, frame) if truth is not None and compared else None, drawn)


def _rgb(truth: Run, key: str, frame: int) -> Any:
    try:
        frames = truth.load("video", key).frames
    except AbsentModalityError:
        return None
    return frames[min(frame, len(frames) - 1)]


def _embedded(panel: Panel) -> dict[str, str]:
    """JPEG for photographs, PNG for flat colours: whichever is smaller."""
    bgr = np.ascontiguousarray(panel.image[..., ::-1])
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    png = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    kind, data = min((("png", png), ("jpeg", jpeg)), key=lambda pair: len(pair[1]))
    return {"caption": panel.caption, "kind": kind, "data": base64.b64encode(data).decode()}
