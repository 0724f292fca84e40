"""Predicted cost against what torch counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from openuni_model.config import PRESETS, preset  # noqa: E402
from openuni_model.cost import flops, most_streams, training_bytes  # noqa: E402
from openuni_model.dit import Streams, UnifiedDiT  # noqa: E402
from openuni_model.tasks import Stage  # noqa: E402
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
    memory = training_bytes(config, (4, 8, 8), (2, 1), ranks=1, checkpointing=checkpointing)
    assert memory.activations == pytest.approx(measured, rel=0.02)
    assert memory.state == 20 * sum(p.numel() for p in model.parameters())
    assert out.requires_grad


@pytest.mark.parametrize("name", ["small", "1.3b"])
def test_predicted_bytes_are_those_that_the_cpu_allocates_for_one_block(
    make_streams: Callable[..., Streams], name: str
) -> None:
    """What lives after a forward pass: torch's own count of allocations less releases, weights apart."""
    assert name in PRESETS
    config = preset(name, layers=1, text_width=64, text_length=32, modalities=("rgb", "depth"))
    model = UnifiedDiT(config)
    streams = make_streams(config, (2,), [0, 1], size=(2, 16, 16))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        out = model(streams)
    measured = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    predicted = training_bytes(config, (2, 16, 16), (2,), ranks=1, checkpointing=False)
    assert predicted.activations == pytest.approx(measured, rel=0.1)
    assert out.requires_grad


def test_adapters_let_a_1_3b_model_train_in_24_gb() -> None:
    """One clip of 33 frames of 256², two streams, blocks recomputed, the text encoder released, codec held."""
    size = (9, 32, 32)
    whole, adapted = (
        training_bytes(preset("1.3b"), size, (2,), ranks=1, checkpointing=True, dtype=torch.bfloat16, lora=rank)
        for rank in (0, 32)
    )
    assert whole.state > 24e9
    assert adapted.total < 0.5 * 24e9


def test_bytes_of_ranks_on_cpus_are_predicted_too() -> None:
    """Several ranks compute in a copy of another type; on a CPU it is the same type, and there is no copy."""
    config, size = preset("nano"), (4, 8, 8)
    alone, shared = (training_bytes(config, size, (2,), ranks=n, checkpointing=False) for n in (1, 2))
    assert shared.activations == alone.activations
    assert shared.state < alone.state


def test_the_bound_on_streams_is_passed_but_once() -> None:
    stage = Stage("x", ("depth", "flow", "skeleton"), p_more=0.1)
    assert most_streams(stage, 8, 1000) == 16 + 6  # P(binomial(16, .1) > 6) = 5e-4, > 5: 3e-3
    assert most_streams(Stage("x", ("depth",), p_more=0.1), 8, 1000) == 16
