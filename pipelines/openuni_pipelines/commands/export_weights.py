"""`openuni export-weights`: a trained model as a folder of safetensors, or its Wan for diffusers."""

from __future__ import annotations

import click

from openuni_pipelines import options
from openuni_pipelines.engine.weights import ExportWeightsConfig, export_weights


@click.command("export-weights")
@options.of(ExportWeightsConfig)
def export_weights_command(config: ExportWeightsConfig) -> None:
    """Write a model's weights as a folder that --checkpoint and --init read.

    It has `model.safetensors`, `config.json` and a model card. With --layout diffusers it has `transformer/`, for
    diffusers' WanPipeline, which then generates RGB as the model does without other views.
    """
    out = export_weights(config)
    click.echo(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
