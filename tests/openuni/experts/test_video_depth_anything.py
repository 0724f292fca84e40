"""Video Depth Anything: the port against numbers that the published code gave, and windows joined without a seam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openuni.errors import AssetError  # noqa: E402
from openuni.experts import video_depth_anything as vda  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.experts.video_depth_network import Size, VideoDepthAnything  # noqa: E402
from openuni.modalities.depth import DepthModality  # noqa: E402

PUBLISHED = [
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.12834367156028748], [0.0, 1.0745842456817627, 1.5095168352127075]],
    [[0.0, 0.0, 0.0], [0.1897493451833725, 0.0, 0.0], [0.0, 0.0, 0.7081221342086792]],
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.06693476438522339], [0.44010335206985474, 0.7658973932266235, 0.7259658575057983]],
]
"""What the published code (commit 4f5ae23) made of these weights and this input, at some pixels of four frames."""


def seeded(network: torch.nn.Module, random: np.random.Generator) -> dict[str, torch.Tensor]:
    """Weights for every name, in the order of the alphabet; norms are near 1, and the output varies."""
    state: dict[str, torch.Tensor] = {}
    for name, values in sorted(network.state_dict().items()):
        if name.endswith(".pe"):
            state[name] = values
            continue
        drawn = torch.from_numpy(random.standard_normal(tuple(values.shape))).float()
        scale = values.dim() == 1 and ("norm" in name or "gamma" in name) and name.endswith(("weight", "gamma"))
        spread = 0.1 if values.dim() == 1 else 1 / np.sqrt(values[0].numel())
        state[name] = 1 + 0.1 * drawn if scale else drawn * spread
    return state


def test_with_equal_weights_it_gives_what_the_published_code_gives() -> None:
    random = np.random.default_rng(0)
    network = VideoDepthAnything().eval()
    network.load_state_dict(seeded(network, random))
    images = torch.from_numpy(random.standard_normal((4, 3, 56, 70))).float()
    with torch.inference_mode():
        depth = network(images)
    assert depth.shape == (4, 56, 70)
    np.testing.assert_allclose(depth[:, 10::22, 15::25].numpy(), PUBLISHED, atol=1e-5)


def test_names_and_shapes_are_the_published_ones() -> None:
    """As the published code has them, which loads `video_depth_anything_vits.pth` strictly; the size is the file's."""
    rows = Path(__file__).with_name("video_depth_anything_vits.txt").read_text().split("\n")[:-1]
    with torch.device("meta"):
        state = VideoDepthAnything().state_dict()
    assert [f"{name} {'x'.join(map(str, values.shape))}" for name, values in sorted(state.items())] == rows
    held = 4 * sum(values.numel() for values in state.values())
    assert 0 < vda.SMALL.size - held < 512 * len(state)


class Tiny(vda.VideoDepthAnythingSmall):
    """The same expert around a network of four narrow blocks, which a test can afford."""

    @staticmethod
    def _network() -> VideoDepthAnything:
        return VideoDepthAnything(Size(16, 4, 2, (0, 1, 2, 3), 32, (8, 16, 32, 32)))


def test_the_expert_looks_at_windows_and_refuses_foreign_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Tiny._network()
    torch.save(seeded(network, np.random.default_rng(0)), tmp_path / "vda.pth")
    monkeypatch.setattr(vda.assets, "path", lambda asset: tmp_path / "vda.pth")
    monkeypatch.setattr(vda, "SIDE", 56)
    frames = np.random.default_rng(1).integers(0, 255, (35, 40, 50, 3), dtype=np.uint8)
    expert = Tiny()
    expert.setup()
    annotation = expert.annotate(DecodedClip("clip", frames, 16.0, {}))
    DepthModality().check(annotation.value)
    assert annotation.value.values.shape == (35, 40, 50)
    assert annotation.provenance["batch"] == 1
    again = expert.annotate(DecodedClip("clip", frames, 16.0, {}))
    np.testing.assert_array_equal(annotation.value.values, again.value.values)
    torch.save({"nothing": torch.zeros(1)}, tmp_path / "vda.pth")
    with pytest.raises(AssetError, match=r"vda\.pth does not fit VideoDepthAnything"):
        Tiny().setup()


def test_windows_of_other_scale_and_shift_are_joined_without_a_seam() -> None:
    """The truth, seen through windows each with a scale and a shift of its own, comes back in those of the first."""
    random = np.random.default_rng(0)
    truth = 1 + random.random((60, 6, 8)).astype(np.float32)
    seen = [(0.5 + n) * truth[window] + 0.3 * n for n, window in enumerate(vda.windows(60))]
    assert len(seen) == 3
    np.testing.assert_allclose(vda.joined([part.astype(np.float32) for part in seen])[:60], 0.5 * truth, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(480, 832, (518, 896)), (720, 1280, (518, 924)), (400, 1000, (364, 910))]
)
def test_frames_get_the_published_size(height: int, width: int, expected: tuple[int, int]) -> None:
    images = vda.prepared(np.zeros((1, height, width, 3), np.uint8))
    assert images.shape == (1, 3, *expected)
    np.testing.assert_allclose(images[0, :, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)
