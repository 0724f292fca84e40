"""Write the tables of `docs/reliability.md` from the harnesses' own reports; what no report is given of stays.

python benchmarks/kills.py --kills 48 --seed 2 --report /tmp/kills.json
python benchmarks/kills.py --kills 10 --seed 1 --nodes 3 --report /tmp/nodes.json
python benchmarks/hostile.py --families videos --report /tmp/videos.json
python benchmarks/hostile.py --families datasets,measured,predictions,checkpoints,folders --report /tmp/cases.json
python benchmarks/kill_commands.py --kills 20 --report /tmp/commands.json
python benchmarks/reliability.py --kills /tmp/kills.json --nodes /tmp/nodes.json --videos /tmp/videos.json \\
  --cases /tmp/cases.json --commands /tmp/commands.json

`--commands` and `--cases` may be given again: what several runs did is added up.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
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
Reports = Sequence[dict[str, Any]]


def replaced(page: str, block: str, text: str) -> str:
    """The page with what lies between the two marks of a block replaced. Raises ValueError where it has none.

    Example:
        >>> replaced("a\\n<!-- kills -->\\nold\\n<!-- /kills -->\\nb", "kills", "new").splitlines()
        ['a', '<!-- kills -->', '', 'new', '', '<!-- /kills -->', 'b']
    """
    begin, end = f"<!-- {block} -->", f"<!-- /{block} -->"
    made, count = re.subn(f"{begin}.*{end}", lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{PAGE} has no block {begin}")
    return made


def kills(reports: Reports) -> str:
    (report,) = reports
    nodes = " --nodes 3" if report.get("nodes_removed") else ""
    removed = f" {report['nodes_removed']} nodes were removed." if nodes else ""
    found = f"{len(report['problems'])} problems" if report["problems"] else "no difference and no blame"
    return (
        f"    python benchmarks/kills.py --kills {len(report['strikes'])}{nodes} --seed {report['seed']}\n\n"
        f"{_strikes(report)}\n\n"
        f"{len(report['strikes'])} kills over {report['runs']} runs and {report['data_sets']} datasets, "
        f"{report['samples']} samples examined, {report['late_results']} results written by workers of runs that were "
        f"already killed: {found}.{removed}{_problems(report)}"
    )


def commands(reports: Reports) -> str:
    """Kills by command, of all runs together."""
    rows: dict[str, Counter[str]] = {}
    faults: list[str] = []
    for report in reports:
        for row in report["rows"]:
            counted = rows.setdefault(row["command"], Counter())
            counted.update(row["moments"])
            counted.update({name: row[name] for name in ("under_way", "identical")})
            for name in ("half_written", "left_behind", "problems"):
                counted[name] += len(row[name])
                faults += [f"{row['command']}, seed {report['seed']}, {name}: {fault}" for fault in row[name]]
    seeds = ", ".join(dict.fromkeys(str(report["seed"]) for report in reports))
    lines = [
        "| command | kills | before it wrote | while it wrote | after | a file under way | identical | half written "
        "| left behind |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for command, row in rows.items():
        total = row["before"] + row["while"] + row["after"]
        names = ("before", "while", "after", "under_way", "identical", "half_written", "left_behind")
        lines.append(f"| `{command}` | {total} | " + " | ".join(str(row[name] or "–") for name in names) + " |")
    return f"Seeds {seeds}.\n\n" + "\n".join(lines) + "\n" + "".join(f"\n- PROBLEM: {fault}" for fault in faults)


def videos(reports: Reports) -> str:
    (report,) = reports
    return (
        f"{report['files']} generated files below one folder, through `openuni build --source folder`. The build ended "
        f"with status\n{report['exit_status']} (3: complete, and clips were refused) after {report['seconds']:.0f} s; "
        f"its largest worker took\n{report['peak_worker_mib']} MiB; no path outside the dataset was made or changed; "
        "`openuni verify` passed; every file\nwas taken, or refused with a reason in `skipped.parquet` or "
        f"`failures.parquet`.\n\n{_fates(report)}\n\nThe reasons, numbers and paths left out:\n\n{_reasons(report)}"
        f"{_problems(report)}"
    )


def cases(reports: Reports) -> str:
    """Cases of all runs together."""
    seeds = ", ".join(dict.fromkeys(str(report["seed"]) for report in reports))
    faults = [fault for report in reports for fault in report["problems"]]
    return (
        f"{sum(report['cases'] for report in reports):,} cases (seed {seeds}) in "
        f"{sum(report['cases_seconds'] for report in reports):,.0f} s; the longest took "
        f"{max(report['slowest_seconds'] for report in reports):.1f} s,\n"
        f"the most memory was {max(report['peak_case_mib'] for report in reports)} MiB; "
        f"problems: {len(faults) or 'none'}.\n{_problems({'problems': faults})}"
    )


BLOCKS: dict[str, Callable[[Reports], str]] = {
    "kills": kills, "nodes": kills, "commands": commands, "videos": videos, "cases": cases,
}  # fmt: skip


def _strikes(report: dict[str, Any]) -> str:
    counts = Counter((strike["kind"], strike["moment"]) for strike in report["strikes"])
    kinds = sorted({kind for kind, _ in counts})
    lines = ["| moment | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for moment, meaning in MOMENTS.items():
        cells = [str(counts[kind, moment] or "–") for kind in kinds]
        lines.append(f"| {meaning} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    for name in BLOCKS:
        parser.add_argument(f"--{name}", type=Path, action="append", help=f"report for the block {name}")
    options = vars(parser.parse_args())
    page = PAGE.read_text()
    for name, write in BLOCKS.items():
        if options[name]:
            page = replaced(page, name, write([json.loads(path.read_text()) for path in options[name]]))
    PAGE.write_text(page)
    print(PAGE)


if __name__ == "__main__":
    main()
