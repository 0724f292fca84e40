"""Small models and batches; one thread, so that sums are taken in one order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")

from openuni_model.config import ModelConfig  # noqa: E402
from openuni_model.dit import Streams, UnifiedDiT  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_config(**changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "width": 48, "ffn": 80, "layers": 2, "heads": 4, "channels": 4, "patch": (1, 2, 2), "prediction": "v",
        "shift": 3.0, "codec": "wan2.1", "text": "umt5", "text_width": 24, "text_length": 7,
        "modalities": ("rgb", "depth", "flow"), "frequencies": 32,
    }  # fmt: skip
    return ModelConfig(**{**values, **changes})  # type: ignore[arg-type]


def random_model(config: ModelConfig, seed: int = 0, scale: float = 0.2) -> UnifiedDiT:
    """A model none of whose parameters is at its zero start."""
    torch.manual_seed(seed)
    model = UnifiedDiT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale)
    return model


@pytest.fixture
def make_streams() -> Callable[..., Streams]:
    def make(
        config: ModelConfig,
        counts: tuple[int, ...],
        modality: list[int],
        *,
        role: list[int] | None = None,
        size: tuple[int, int, int] = (2, 4, 6),
        seed: int = 1,
    ) -> Streams:
        generator = torch.Generator().manual_seed(seed)
        P = len(modality)
        roles = torch.tensor(role if role is not None else [0] * P)
        return Streams(
            x_PCFHW=torch.randn(P, config.channels, *size, generator=generator),
            t_P=torch.rand(P, generator=generator) * (roles == 0),
            modality_P=torch.tensor(modality),
            role_P=roles,
            text_PLT=torch.randn(P, config.text_length, config.text_width, generator=generator),
            counts=counts,
        )

    return make
