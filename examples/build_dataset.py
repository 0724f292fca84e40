"""Build a dataset with optical flow from a folder of videos, and say how far it is."""

import sys
from pathlib import Path

import numpy as np

import openuni
from openuni_pipelines import BuildConfig, Execution, build


def main(videos: Path, out: Path) -> None:
    config = BuildConfig(
        source="folder", videos=videos, out=out, experts=("dis",), size=64, execution=Execution(workers=0)
    )
    summary = build(config, progress=lambda now: print(f"{now.shards_done} of {now.shards} shards", end="\r"))
    print(f"\n{summary.samples} clips in {summary.seconds:.1f} s; absent or failed: {dict(summary.skipped)}")
    for sample in openuni.open(out):
        print(sample, f"flow up to {np.nanmax(abs(sample.flow.forward)):.1f} px")  # unknown is NaN


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
