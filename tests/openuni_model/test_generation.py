"""Generation on whole clips: windows and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openuni import modalities  # noqa: E402
from openuni.modalities.rgb import Rgb  # noqa: E402
from openuni_model.codecs import PixelCodec  # noqa: E402
from openuni_model.config import ModelConfigError, preset  # noqa: E402
from openuni_model.dit import Streams, UnifiedDiT  # noqa: E402
from openuni_model.generation import ClipRequest, Sampler, generate  # noqa: E402
from openuni_model.sampling import Guidance  # noqa: E402

VIEWS = ("rgb", "depth", "flow", "segmentation", "skeleton", "densepose")


def nano() -> UnifiedDiT:
    torch.manual_seed(0)
    return UnifiedDiT(preset("nano", modalities=VIEWS, layers=1, width=32, heads=2, ffn=32)).eval()


def embed(text: str) -> torch.Tensor:
    return torch.zeros(64, 384)


class _CopyRgb(UnifiedDiT):
    """A stand-in network whose clean prediction for a view is the RGB stream beside it."""

    def forward(self, streams: Streams) -> torch.Tensor:
        return streams.x_PCFHW.roll(-1, dims=0)


def test_windows_share_a_frame_and_give_every_frame_back() -> None:
    """The network copies RGB into the depth picture, so what comes back is the clip itself, in windows of 8."""
    model = _CopyRgb(nano().config)
    grey = np.random.default_rng(0).integers(0, 256, (19, 32, 32, 1), dtype=np.uint8).repeat(3, axis=3)
    request = ClipRequest("k", "", ("depth",), {"rgb": Rgb(grey, 8.0)}, 19, 32, 32)
    [(_, values)] = list(
        generate(model, PixelCodec(), embed, [request], Sampler(steps=1, batch=2, guidance=Guidance(controls=(1.0,))))
    )
    want = modalities.get("depth").from_picture(grey.astype(np.float32) / 255)
    np.testing.assert_allclose(values["depth"].values, want.values, atol=1e-5)


def test_an_image_and_an_unknown_view_are_refused() -> None:
    rgb = Rgb(np.zeros((1, 32, 32, 3), np.uint8), 8.0)
    with pytest.raises(ModelConfigError, match="is it an image"):
        list(
            generate(
                nano(), PixelCodec(), embed, [ClipRequest("k", "", ("depth",), {"rgb": rgb}, 1, 32, 32)], Sampler()
            )
        )
    with pytest.raises(ModelConfigError, match="knows no 'thermal'"):
        list(generate(nano(), PixelCodec(), embed, [ClipRequest("k", "", ("thermal",), {}, 8, 32, 32)], Sampler()))
