"""Predicted cost against what torch counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from openuni_model.cost import flops, training_bytes  # noqa: E402
from openuni_model.dit import Streams  # noqa: E402
from tests.openuni_model.conftest import random_model, tiny_config  # noqa: E402


def test_flops_are_those_that_torch_counts(make_streams: Callable[..., Streams]) -> None:
    config = tiny_config(width=96, heads=4, ffn=200)
    model = random_model(config)
    streams = make_streams(config, (2, 2, 1), [0, 1, 0, 2, 0], size=(4, 8, 8))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(streams)
    assert flops(config, 4 * 4 * 4, streams.counts) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_predicted_activation_bytes_are_those_that_autograd_keeps(
    make_streams: Callable[..., Streams], checkpointing: bool
) -> None:
    config = tiny_config(layers=4)
    model = random_model(config)
    model.checkpoint_blocks = checkpointing
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(make_streams(config, (2, 1), [0, 1, 0], size=(4, 8, 8)))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    measured = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)
    state, predicted = training_bytes(config, (4, 8, 8), (2, 1), ranks=1, checkpointing=checkpointing)
    assert predicted == pytest.approx(measured, rel=0.02)
    assert state == 20 * sum(p.numel() for p in model.parameters())
    assert out.requires_grad
