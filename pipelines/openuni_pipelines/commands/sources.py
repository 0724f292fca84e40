"""`openuni sources`: what each source needs and has at hand; its tables from the hub, its videos from the web."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from openuni import printable, registry, sources
from openuni.errors import PlanError
from openuni.printable import count
from openuni.sources import Request, Source, hub
from openuni.sources.download import Answer, DownloadConfig, DownloadSummary, Outcome, download
from openuni.sources.published import Published, Tars, TrainingTable
from openuni.sources.rows import RowSource, Wanted, scratch_folder
from openuni_pipelines import options, terminal
from openuni_pipelines.engine.parallel import Parallel


@click.group("sources")
def sources_command() -> None:
    """Where clips come from. Local tables and videos are in data/sources/NAME (or $OPENUNI_SOURCES/NAME)."""


@sources_command.command("list")
def list_() -> None:
    """List every source, its license, and which of its files are on this machine."""
    table = Table("source", "license", "tables", "videos", "on the hub", box=None)
    for name in registry.names("sources"):
        source = sources.get(name)
        at_hand = [hub.look(name, kind) for kind in ("metadata", "videos")]
        shown = [f"{count(place.files, 'file')}, {decimal(place.bytes)}" if place.files else "-" for place in at_hand]
        table.add_row(name, printable.rich(source.license), *shown, source.hub.repository if source.hub else "-")
    Console().print(table)


@sources_command.command("fetch")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Download without asking.")
def fetch(name: str, yes: bool) -> None:
    """Download the tables of source NAME from the hub; shows size and license first. Downloads no video.

    HF_ENDPOINT names a mirror, HF_TOKEN an account. Run it again to go on after an interruption.
    """
    source = sources.get(name)
    what = hub.published(source)
    target = hub.folder(name) / "metadata"
    click.echo(f"{what.hub.repository} at {what.commit[:12]}: {count(len(what.files), 'file')}, {decimal(what.bytes)}")
    click.echo(f"license: {source.license} (its card: {what.license})")
    click.echo(f"into:    {target}")
    if not yes:
        click.confirm("download?", abort=True)
    with terminal.counting("tables") as progress:
        done = 0

        def show(_: str, size: int) -> None:
            nonlocal done
            done += size
            progress(done, what.bytes)

        hub.fetch(source, what, show)
    click.echo(f"next: openuni build --source {name} --dry-run")


@dataclass(frozen=True, kw_only=True)
class DownloadFrom:
    """What to download, and where to."""

    source: Source = field(metadata={"plugins": "sources"})
    """Source whose rows name the videos; its options choose rows as they do for a build."""
    metadata: Path | None = field(default=None, metadata={"exists": True, "shown": "data/sources/SOURCE/metadata"})
    """The source's table: a file or a folder."""
    videos: Path | None = field(default=None, metadata={"shown": "data/sources/SOURCE/videos"})
    """Folder to download the videos into."""


@sources_command.command("download", cls=options.PluggedCommand)
@options.of(DownloadFrom)
@options.of(DownloadConfig)
def download_command(place: DownloadFrom, config: DownloadConfig) -> None:
    """Download videos of the chosen rows that are not on this machine.

    Videos that are gone, private or blocked are counted; they are not failures. Run the same command again to resume:
    it asks only for videos that are still open.
    """
    source = place.source
    if not isinstance(source, RowSource):
        raise PlanError(f"source {source.name} has no rows that name videos on the web")
    folder = place.videos or hub.folder(source.name) / "videos"
    request = Request(folder, place.metadata or hub.default(source.name, "metadata"))
    click.echo(f"license: {source.license}\ninto:    {folder}", err=True)
    with scratch_folder() as scratch, terminal.waiting("choosing rows") as status:
        asked = 0

        def show(_: Wanted, answer: Answer) -> None:
            nonlocal asked
            asked += 1
            status.update(f"{count(asked, 'video')} asked for, the last one: {answer.outcome.value}")

        summary = download(source.wanted(request, scratch), folder, config, show)
    _print(summary, folder, source.name)


def _print(summary: DownloadSummary, folder: Path, source: str) -> None:
    table = Table("of the videos wanted", str(summary.wanted), box=None)
    table.columns[1].justify = "right"
    table.add_row("at hand before", f"{summary.here:,}")
    for outcome in Outcome:
        table.add_row(outcome.value, f"{summary.outcomes[outcome]:,}")
    table.add_row("no address in the table", f"{summary.unnamed:,}")
    console = Console()
    console.print(table)
    for why, times in summary.whys.most_common(10):
        console.print(f"  {times:,} × {printable.rich(why)}", soft_wrap=True)
    click.echo(f"{summary.asked:,} asked for now, {decimal(summary.bytes)} came into {folder}")
    if summary.is_open:
        click.echo(f"{summary.is_open:,} are open: run the same command again")
    else:
        click.echo(f"next: openuni build --source {source} --dry-run")


@sources_command.command("import")
@click.argument("where", metavar="WHERE")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Dataset folder to make.")
@click.option("--only", default="", help="Import only this source, train/ONLY/…, of the hub's layout.  [default: all]")
@click.option(
    "--captions",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV with columns video and prompt.  [default: no captions]",
)
@click.option(
    "--videos",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that the paths in a training table are relative to.  [default: the table's]",
)
@click.option("--license", "terms", default="unknown", show_default=True, help="License of the clips.")
@click.option("--shard-size", default=128, show_default=True, type=click.IntRange(min=1), help="Clips per shard.")
@options.of(Parallel, workers=0)
@options.follow_links
def import_command(
    parallel: Parallel,
    where: str,
    out: Path,
    only: str,
    captions: Path | None,
    videos: Path | None,
    terms: str,
    shard_size: int,
) -> None:
    """Make a dataset of clips whose views are published as videos: the hub's OpenUni, or UnityVideo's training table.

    WHERE is a dataset on the hub (OWNER/NAME), a folder of the same layout (train/SOURCE/VIEW/*_partNNN.tar.gz), or a
    CSV of video,prompt,depth,densepose,raft,segmentation,skeleton. Depth, flow and segmentation are decoded from the
    colours of their videos where that is possible; other videos are kept as they are, and reported. Run the same
    command again to resume.
    """
    from openuni_pipelines.engine.published import Progress, import_published

    source: Published
    if Path(where).is_file():
        source = TrainingTable(Path(where), videos or Path(where).parent, terms)
    else:
        source = Tars(where, only, captions, terms)
    with terminal.waiting("listing parts") as status:

        def show(news: Progress) -> None:
            status.update(f"{printable.rich(news.part)}: {news.films:,} films, {news.pictures:,} kept as pictures")

        made = import_published(
            source, printable.plain(Path(where).name), out, parallel, shard_size=shard_size, progress=show
        )
    table = Table("view", "read", "kept as pictures", box=None)
    for view, number in made.values.items():
        table.add_row(view, f"{number:,}", f"{made.pictures[view]:,}")
    console = Console()
    console.print(table)
    for why, number in made.left_out.most_common(10):
        console.print(f"  {number:,} × {printable.rich(why)}", soft_wrap=True)
    click.echo(f"{count(made.clips, 'clip')}: {out}\nnext: openuni verify {out}")
