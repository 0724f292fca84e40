"""What `openuni view` shows: a dataset or runs, what stands beside them, their scores and flags."""

from __future__ import annotations

from pathlib import Path

from openuni.errors import PlanError
from openuni_pipelines.engine.viewing import scores
from openuni_pipelines.engine.viewing.clips import Clips, Differences
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.server import Viewer
from openuni_pipelines.engine.viewing.sources import open_source


def open_viewer(
    shown: list[str], gt: str | None = None, report: Path | None = None, flags: Path | None = None, port: int = 0
) -> Viewer:
    """A viewer of one dataset or run, or of two, that does not serve yet.

    `gt` is the truth beside them; `report` a report.json (by default that of the run); `flags` the file of flags (by
    default beside what is shown). Raises PlanError where the port is taken, OpenUniError where a path is not ours.
    """
    kept = Flags(flags or (Path() if "://" in shown[0] else _folder(Path(shown[0]))) / "flags.jsonl")
    clips, others = opened(shown, gt)
    reports = zip(names(shown), map(scores.read, shown, [report, None]), strict=False)
    scored = scores.of_runs({name: made for name, made in reports if made is not None})
    try:
        return Viewer(clips, kept, others, scored, port=port)
    except OSError as error:
        raise PlanError(f"port {port} cannot be used: {error.strerror}; leave out --port, or name another") from error


def opened(shown: list[str], gt: str | None) -> tuple[Clips, list[Clips]]:
    """The clips to look at, and what stands beside them."""
    truth = Clips(open_source(gt), "truth") if gt else None
    clips = Clips(open_source(shown[0], gt))
    others: list[Clips] = [] if truth is None else [truth, Differences(clips, truth)]
    for path, name in zip(shown[1:], names(shown)[1:], strict=True):
        second = Clips(open_source(path, gt), name)
        others += [second] if truth is None else [second, Differences(second, truth, f"error of {name}")]
    return clips, others


def _folder(shown: Path) -> Path:
    """Where flags go: into a dataset or a folder of predictions, beside a view, which is a file."""
    return shown if shown.is_dir() else shown.parent


def names(shown: list[str]) -> list[str]:
    """What to call each run: its folder's name; `second` where both have one name."""
    names = [path.rstrip("/").rsplit("/", 1)[-1] for path in shown]
    taken = ("truth", "error", names[0])
    return [names[0], *("second" if name in taken else name for name in names[1:])]
