"""Small models and batches; one thread, so that sums are taken in one order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
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
        "modalities": ("rgb", "depth", "flow"), "frequencies": 32, "frames": 8, "size": 32,
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


T, H, W = 8, 36, 48


def moving_disc(number: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB frames and metric depth of a disc that moves before a wall, all drawn from `number`."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:H, :W] + 0.5
    radius, (cx, cy), (vx, vy) = rng.uniform(7, 11), rng.uniform(14, 22, 2), rng.uniform(-1, 1, 2)
    disc, wall, near = rng.integers(0, 256, 3), rng.integers(0, 256, 3), rng.uniform(1, 2)
    frames, depth = np.empty((T, H, W, 3), np.uint8), np.empty((T, H, W), np.float32)
    for t in range(T):
        inside = (x - cx - vx * t) ** 2 + (y - cy - vy * t) ** 2 < radius**2
        frames[t] = np.where(inside[..., None], disc, wall)
        depth[t] = np.where(inside, near, 6.0)
    return frames, depth


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def write_discs(root: Path) -> Path:
    """A dataset of 12 clips in 2 shards: two are for validation, one has no depth, one has only 2 frames."""
    from openuni.modalities.depth import Depth
    from openuni.modalities.flow import Flow
    from openuni.modalities.rgb import Rgb
    from openuni.sample import Annotation, Record
    from openuni.shards import writer

    columns = {"rgb": "disc-1", "depth": "disc-1", "flow": "disc-1"}
    for shard in range(2):
        keys = [f"disc-{number:02d}" for number in range(6 * shard, 6 * shard + 6)]
        for key in keys:
            number = int(key[-2:])
            frames, depth = moving_disc(number)
            frames, depth = (frames[:2], depth[:2]) if number == 7 else (frames, depth)
            record = Record(
                key,
                len(frames),
                H,
                W,
                8.0,
                caption=f"disc number {number}",
                split="val" if number in (3, 9) else "train",
            )
            flow = np.zeros((len(frames) - 1, H, W, 2), np.float32)
            annotations = {
                "rgb": Annotation(Rgb(frames, 8.0, exact=True)),
                "depth": "the sensor was off" if number == 5 else Annotation(Depth(depth, "metric")),
                "flow": Annotation(Flow(flow)),
            }
            writer.save_sample(root, shard, record, annotations, columns, "run")
        writer.commit_shard(root, shard, keys, columns, "run")
    writer.write_manifest(root, {"source": "discs"}, columns, 12, 2, "run")
    return root
