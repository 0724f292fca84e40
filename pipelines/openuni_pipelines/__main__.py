"""`python -m openuni_pipelines …` is `openuni …`, for launchers that start modules, such as torchrun."""

from openuni_pipelines.cli import openuni

openuni()
