"""A job script for a batch system: one task a part, nothing between them but the dataset's folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from openuni import assets
from openuni_pipelines.engine.build import BuildConfig

_SCRIPT = """\
#!/bin/bash
# Once, where the network is:      openuni plan {options}
{fetch}# Then:                            sbatch THIS_FILE
# How far it is, and who is lost:  openuni status {root}
# A lost part again, say the 7th:  sbatch --array=7 THIS_FILE
# Exit status 3: the part is through, and failures.parquet names what failed in it.
#SBATCH --job-name=openuni
#SBATCH --array=1-{parts}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}G
{extra}#SBATCH --time={hours}:00:00
#SBATCH --output=openuni-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail

# Model files come from this folder, which all nodes see; no task asks the network for them.
export OPENUNI_HOME={home}
export OPENUNI_OFFLINE=1

# Scratch on the node's own disk, a folder a task. Ray's sockets need a short path of their own.
export TMPDIR="${{SLURM_TMPDIR:-/tmp}}/openuni-$SLURM_JOB_ID"
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID"
mkdir -p "$TMPDIR" "$RAY_TMPDIR"
trap 'rm -rf "$TMPDIR" "$RAY_TMPDIR"' EXIT

# Ray keeps messages of paths in shared memory, 128 MiB; where a container has less, they go to the disk.
if [ "$(df --output=avail -k /dev/shm | tail -n 1)" -lt 262144 ]; then
  export RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE=1
fi
export OMP_NUM_THREADS=1

# The number of parts is written out: a task that is run alone is still one of {parts}.
openuni build {options}{workers} \\
  --part "$SLURM_ARRAY_TASK_ID/{parts}" &
build=$!
# Slurm's signal goes to this shell alone; the build ends in order, and the part goes on when it is run again.
trap 'kill -TERM "$build"' TERM
status=0
wait "$build" || status=$?
while kill -0 "$build" 2>/dev/null; do status=0; wait "$build" || status=$?; done
exit "$status"
"""


@dataclass(frozen=True, slots=True)
class SlurmConfig:
    """What each task of the job array gets."""

    parts: int = field(metadata={"min": 1, "max": 100_000})
    """Parts that the plan is divided into: tasks of the array."""
    cpus: int = field(default=16, metadata={"min": 1})
    """Cores a task."""
    gpus: int = field(default=0, metadata={"min": 0})
    """GPUs a task."""
    memory: int = field(default=64, metadata={"min": 1})
    """GiB of memory a task."""
    hours: int = field(default=24, metadata={"min": 1})
    """Longest time of a task; a part that needs more goes on when it is run again."""
    partition: str = ""
    """Slurm's partition."""


def slurm(config: SlurmConfig, build: BuildConfig, words: Sequence[str]) -> str:
    """The job-array file for `openuni build WORDS`, which `build` is the meaning of."""
    extra = [f"#SBATCH --partition={config.partition}\n"] if config.partition else []
    extra += [f"#SBATCH --gpus-per-task={config.gpus}\n"] if config.gpus else []
    needed = sorted({asset.name for expert in build.recipe.experts for asset in expert.assets})
    return _SCRIPT.format(
        parts=config.parts,
        cpus=config.cpus,
        memory=config.memory,
        hours=config.hours,
        extra="".join(extra),
        fetch=f"#                                  openuni assets fetch {' '.join(needed)}\n" if needed else "",
        home=shlex.quote(str(assets.folder().parent)),
        options=shlex.join(words),
        root=shlex.quote(build.place),
        workers="" if build.execution.workers is not None else ' --workers "$SLURM_CPUS_PER_TASK"',
    )
