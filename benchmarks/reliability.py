"""Write `docs/reliability.md` from the harnesses' own reports.

python benchmarks/kills.py --kills 48 --seed 2 --report /tmp/kills.json
python benchmarks/kills.py --kills 10 --seed 1 --nodes 3 --report /tmp/nodes.json
python benchmarks/hostile.py --report /tmp/hostile.json
python benchmarks/kill_commands.py --kills 20 --report /tmp/commands.md
python benchmarks/reliability.py --kills /tmp/kills.json --nodes /tmp/nodes.json --hostile /tmp/hostile.json \\
  --commands /tmp/commands.md
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
MOMENTS = {
    "planning": "while the plan is made",
    "annotating": "some results into annotation",
    "writing": "a tar exists under its temporary name",
    "renamed": "a tar is renamed, its commit record not yet written",
    "committed": "some columns are committed",
    "any": "any time in the first 14 s",
}


def page(kills: dict[str, Any], nodes: dict[str, Any], hostile: dict[str, Any], commands: str) -> str:
    """The page, in Markdown."""
    return f"""# What a build survives

Written by `benchmarks/reliability.py` from the reports of the harnesses named below; do not edit by hand.

## Kills

A real `openuni build` ({", ".join(kills["experts"])}; 24 clips, 6 shards, Ray) is hit by SIGKILL when its folder reaches
a chosen state, and the same command is run again at once or up to two seconds later, while workers of the killed run may
still write. After the last run every tar and index must have the bytes of a build that nobody disturbed, every commit
record of an earlier run must be untouched, no expert may have looked again at a clip whose column was committed, no clip
may be blamed in `failures.parquet`, and `work/` must be gone.

    python benchmarks/kills.py --kills {len(kills["strikes"])} --seed {kills["seed"]} --report kills.json

{_strikes(kills)}

{_verdict(kills)}

## Several nodes

The same on three Ray nodes (`ray.cluster_utils.Cluster`, one core each, one shared folder). At every third strike a node
is removed without notice, and another one added.

    python benchmarks/kills.py --kills {len(nodes["strikes"])} --nodes 3 --seed {nodes["seed"]} --report nodes.json

{_strikes(nodes)}

{_verdict(nodes)} {nodes["nodes_removed"]} nodes were removed.

## Every other writing command

Each command runs on tiny inputs in a process group of its own, which is hit by SIGKILL at a random moment: of four kills
one comes at any time from the start, one while the folder is held, one while files are written in it, and one just as a
file (of `train`: a checkpoint) lies there under its temporary name. Right after the
kill every file under its final name must be whole; then the same command is run to its end, and the folder must hold
the bytes of an undisturbed run (of tensors their values, of reports all but the date and the commit of the code), and nothing else: no temporary
file, no lock. Commands run without Ray (`--workers 0`); pictures in a run's `samples/` are made once, so the one of the
step that was killed may be missing. A killed `import`, `collect` or `export-weights` whose folder was already whole says
so instead of making it again. `unibench compare` writes nothing.

    python benchmarks/kill_commands.py --kills 20 --report kill_commands.md

{commands}

## Hostile files

{hostile["files"]} generated files below one folder, through `openuni build --source folder`. The build ended with status
{hostile["exit_status"]} (3: complete, and clips were refused) after {hostile["seconds"]:.0f} s; its largest worker took
{hostile["peak_worker_mib"]} MiB; no path outside the dataset was made or changed; `openuni verify` passed; every file
was taken, or refused with a reason in `skipped.parquet` or `failures.parquet`.

    python benchmarks/hostile.py --seed {hostile["seed"]} --report hostile.json

{_fates(hostile)}

The reasons, numbers and paths left out:

{_reasons(hostile)}

And {hostile.get("cases", 0)} datasets, predictions, checkpoints and folders that somebody else made: links, pipes, devices
and folders in place of files, cut, flipped and swapped bytes, sparse files of 256 GiB, paths, escape sequences and markup
as keys, columns, members, captions, licenses and reasons, false counts, offsets and sizes, every checksum computed again; each
met by reading, `verify`, `stats`, `export`, `status`, `add`, `drop`, `score`, `generate`, and by a wrong `--out` of
`build`, `plan`, `import` and `export`. Each must end within 10 s ({hostile.get("slowest_seconds", 0):.1f} s was the
longest) and 1.5 GiB ({hostile.get("peak_case_mib", 0)} MiB was the most), in one sentence or right, print no control
character, run nothing, and leave every file outside as it was.
{_problems(hostile)}
## Everything else

| what | where it is tried |
|---|---|
| an expert raises, returns nonsense, segfaults, aborts, exits, allocates without end, hangs; a decoder that segfaults on a clip, and while planning; a pipe in place of a video; `--retry-failed`; `--require` | `pytest tests/openuni_pipelines/engine/test_poison.py` |
| SIGINT and SIGTERM to the driver, and to its whole process group: one sentence, exit status 130 or 143, lock released, no process left, and the next run ends in the same bytes | `pytest tests/openuni_pipelines/engine/test_stop.py` |
| three nodes, each with an asset cache of its own: model files fetched once a node although two workers ask at once, each model loaded once a worker | `pytest tests/openuni_pipelines/engine/test_nodes.py` |
| a disk that fills up while planning, annotating and committing (tmpfs of 40, 300 and 600 KiB), a quota, `--min-free` | `pytest tests/openuni_pipelines/engine/test_disk.py` |
| a disk that fills up, or is read-only, while a checkpoint, a journal of scores, weights or a model file is written | `pytest tests/public_reports/test_the_disk_is_full.py tests/openuni/test_assets.py` |
| no locale, `LC_ALL=C` and ASCII alone; names of 255 bytes, twins by case, names that begin with `-` | `pytest tests/public_reports/test_names_and_locales.py` |
| 200 random flipped bits in tars, indices, commit records, manifest and plan, each found and put down to its clip; cut files; `verify --repair`; `add`, `drop` | `pytest tests/openuni_pipelines/engine/test_changes.py` |
| flipped bits and cut files in `work/`, found before their shard is committed and made again | `pytest tests/openuni_pipelines/engine/test_changes.py tests/openuni_pipelines/engine/test_shard.py tests/openuni/shards/test_results.py` |
| two runs on one dataset; locks of dead, zombie, remote and reborn holders; nothing of a lock left behind | `pytest tests/openuni/shards/test_lock.py` |
| temporary files of a killed run: swept as soon as nobody writes to them | `pytest tests/openuni/shards/test_results.py` |
| `status` of a running, a killed and a finished build | `pytest tests/openuni_pipelines/commands/test_status.py` |

## What is not promised

- A run that is suspended for more than a minute on another machine than the newcomer's is taken for dead; its workers
  stop before their next commit, because the lock is checked before every rename, but between that check and the rename
  lie microseconds in which the newcomer could have committed the same file. Both write the same bytes.
- `--workers 0` survives no crash of an expert and has no time limit.
- A GPU worker's memory is bounded by Ray's monitor only.
"""  # noqa: E501  tables


def _strikes(report: dict[str, Any]) -> str:
    counts = Counter((strike["kind"], strike["moment"]) for strike in report["strikes"])
    kinds = sorted({kind for kind, _ in counts})
    lines = ["| moment | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for moment, meaning in MOMENTS.items():
        cells = [str(counts[kind, moment] or "–") for kind in kinds]
        lines.append(f"| {meaning} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _verdict(report: dict[str, Any]) -> str:
    found = f"{len(report['problems'])} problems" if report["problems"] else "no difference and no blame"
    return (
        f"{len(report['strikes'])} kills over {report['runs']} runs and {report['data_sets']} datasets, "
        f"{report['samples']} samples examined, {report['late_results']} results written by workers of runs that were "
        f"already killed: {found}." + _problems(report)
    )


def _fates(report: dict[str, Any]) -> str:
    lines = ["| kind | files | taken | refused |", "|---|---|---|---|"]
    for kind, fates in report["fates"].items():
        taken, refused = fates.get("taken", 0), fates.get("refused", 0)
        lines.append(f"| {kind} | {taken + refused} | {taken} | {refused} |")
    return "\n".join(lines)


def _reasons(report: dict[str, Any]) -> str:
    return "\n".join(f"- {count} × {reason}" for reason, count in report["reasons"].items()) + "\n"


def _problems(report: dict[str, Any]) -> str:
    return "".join(f"\n- PROBLEM: {problem}" for problem in report["problems"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kills", "nodes", "hostile"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"report of the {name} harness")
    parser.add_argument("--commands", type=Path, required=True, help="table of kill_commands.py")
    options = parser.parse_args()
    reports = (json.loads(path.read_text()) for path in (options.kills, options.nodes, options.hostile))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(*reports, options.commands.read_text().strip()))
    print(PAGE)


if __name__ == "__main__":
    main()
