"""Planning from a table: time and memory against the same selection in bare DuckDB.

    python benchmarks/plan.py [--rows 1000000] [--times 5] [--keep FOLDER]

Writes a synthetic Koala-36M CSV (captions of 60 to 150 words with quotes, commas and newlines; about 700 bytes a row)
and plans it with `openuni.shards.plan.write_rows`, every video at hand; then lets bare DuckDB read, filter, sort and
copy the same rows to Parquet under the same memory limit. Prints for each number of rows processor and wall seconds,
their ratio, and resident memory at the peak. Each measurement is a process of its own. On a shared machine compare
processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
WORDS = (
    "a man", "the woman", "two people, both old,", "a small dog", "walks slowly", "says \"hello\"", "past the",
    "near a", "bright red car", "old house", "quiet street", "in soft light", "while the camera pans left",
)  # fmt: skip
CLIPS_A_VIDEO = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=5, help="measure at so many times the rows as well")
    parser.add_argument("--keep", type=Path, help="folder for the tables; kept, and used again")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)  # what the child processes are told
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    table = Table("rows", "MB", "", "cpu s", "wall s", "peak MiB", "clips")
    ratios = []
    with tempfile.TemporaryDirectory(prefix="openuni-benchmark-") as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for rows in sorted({arguments.rows, arguments.rows * arguments.times}):
            source, videos = tables(folder, rows)
            taken = {}
            for how in ("bare DuckDB", "openuni plan"):
                command = [sys.executable, __file__, "--measure", how, str(source), str(videos)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                taken[how] = json.loads(said)
                size = f"{source.stat().st_size / 1e6:,.0f}"
                of = taken[how]
                table.add_row(f"{rows:,}", size, how, f"{of['cpu']:.1f}", f"{of['wall']:.1f}", f"{of['peak']:,.0f}",
                              f"{of['clips']:,}")  # fmt: skip
            ours, bare = taken["openuni plan"], taken["bare DuckDB"]
            ratios.append(
                f"{rows:,} rows: cpu × {ours['cpu'] / bare['cpu']:.2f}, wall × {ours['wall'] / bare['wall']:.2f}"
            )
    Console().print(table)
    print("\n".join(ratios), f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", sep="")


def tables(folder: Path, rows: int) -> tuple[Path, Path]:
    """The CSV of so many rows, and a folder with an empty file for each of its source videos."""
    source, videos = folder / f"Koala_{rows}.csv", folder / f"videos_{rows}"
    if source.exists():
        return source, videos
    rng = random.Random(0)
    halves = []
    for number in range(4000):
        said = " ".join(rng.choices(WORDS, k=rng.randrange(12, 30)))
        said = said.replace(" while", ".\nAll the while", 1) if number % 6 == 0 else said
        halves.append(said.replace('"', '""'))
    with source.open("w", encoding="utf-8-sig") as file:
        file.write("videoID,url,timestamp,caption,clarity_score,aesthetic_score,motion_score,")
        file.write("video_training_suitability_score\n")
        for number in range(rows):
            clip = number % CLIPS_A_VIDEO
            if clip == 0:
                video = "".join(rng.choices(LETTERS, k=11))
                (videos / video[:2]).mkdir(parents=True, exist_ok=True)
                (videos / video[:2] / f"{video}.mp4").touch()
            start = clip * 10 + rng.random()
            end = start + 2 + 8 * rng.random()
            span = f"\"['0:{start // 60:02.0f}:{start % 60:09.6f}', '0:{end // 60:02.0f}:{end % 60:09.6f}']\""
            scores = (
                f"{rng.random():.4f},{rng.gauss(4.5, 0.7):.2f},{rng.expovariate(0.1):.2f},{rng.gauss(3.5, 0.8):.2f}"
            )
            address = f"https://www.youtube.com/watch?v={video}"
            # Hardly any caption comes twice, as in Koala-36M: few ones would be no more than numbers in a Parquet file.
            caption = f'"{rng.choice(halves)} {rng.choice(halves)}"'
            file.write(f"{video}_{clip},{address},{span},{caption},{scores}\n")
    return source, videos


def measure(how: str, source: str, videos: str) -> None:
    """Plan in this process, and print what it took."""
    with tempfile.TemporaryDirectory(prefix="openuni-benchmark-", dir=Path(source).parent) as scratch:
        begin, before = time.perf_counter(), sum(os.times()[:2])
        clips = (bare if how == "bare DuckDB" else ours)(Path(source), Path(videos), Path(scratch))
        wall, cpu = time.perf_counter() - begin, sum(os.times()[:2]) - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak, "clips": clips}))


def ours(source: Path, videos: Path, scratch: Path) -> int:
    from openuni.shards import plan
    from openuni.sources import Request
    from openuni.sources.koala36m import Koala36M
    from openuni.sources.selection import Choice

    choice = Choice(at_least=("aesthetic_score=4",), min_caption=100)
    request = Request(videos=videos, metadata=source)
    return plan.write_rows(scratch / "plan.parquet", Koala36M(choice=choice), request, 128, "benchmark").clips


def bare(source: Path, videos: Path, scratch: Path) -> int:
    import duckdb

    from openuni.sources import Request, selection
    from openuni.sources.koala36m import Koala36M

    database = duckdb.connect()
    threads = min(os.cpu_count() or 1, selection.MOST_THREADS)
    database.execute(f"SET memory_limit = '{selection.MEMORY}'; SET threads = {threads}")
    database.execute(f"SET temp_directory = '{scratch}'; SET enable_progress_bar = false")
    # The same reader: with its own guesses DuckDB gives up on some of these files.
    rows = Koala36M().rows(Request(videos=videos, metadata=source), scratch)
    done = database.execute(
        f"COPY (SELECT * FROM {rows.sql} WHERE aesthetic_score >= 4 AND length(caption) >= 100 "
        f"ORDER BY videoID) TO '{scratch / 'bare.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
    ).fetchone()
    assert done is not None
    return int(done[0])


if __name__ == "__main__":
    main()
