"""Train a nano model on depth and flow for a few steps, then let it estimate both on the clips it saw."""

import sys
from pathlib import Path

import openuni_model
from openuni_pipelines import GenerateConfig, generate


def main(data: str, run: Path) -> None:
    stage = run.with_suffix(".toml")
    stage.write_text('modalities = ["depth", "flow"]\n')
    config = openuni_model.TrainConfig(
        stage=str(stage), data=data, out=run, steps=4, global_batch_size=2, frames=8, size=32, validate_every=0
    )
    openuni_model.train(config)
    generate(
        GenerateConfig(checkpoint=run, task="est", modality=("depth", "flow"), bench=data, out=run / "made", steps=2)
    )
    print(*sorted(path.relative_to(run) for path in (run / "made").rglob("*") if path.is_file()), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
