"""Generation on whole clips: windows and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openuni import modalities  # noqa: E402
from openuni.modalities.rgb import Rgb  # noqa: E402
from openuni_model.codecs import PixelCodec  # noqa: E402
from openuni_model.config import ModelConfig, ModelConfigError, preset  # noqa: E402
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


class _Estimator(UnifiedDiT):
    """A stand-in that knows the truth: the depth picture of each window in that window's own range."""

    def __init__(self, config: ModelConfig, disparity: np.ndarray) -> None:
        super().__init__(config)
        self._disparity = disparity

    def forward(self, streams: Streams) -> torch.Tensor:
        out = torch.zeros_like(streams.x_PCFHW)
        for row in range(0, len(out), 2):  # the view, then RGB, whose grey tells the window's first frame
            first = int(torch.round((streams.x_PCFHW[row + 1, 0, 0, 0, 0] + 1) / 2 * 255))
            window = self._disparity[first : first + out.shape[2]]
            grey = np.sqrt((window - window.min()) / np.ptp(window)).astype(np.float32)
            out[row] = torch.from_numpy(grey)[None] * 2 - 1
        return out


def test_windows_of_depth_share_one_range_and_a_perfect_estimator_loses_nothing() -> None:
    """Disparity that moves and spreads over the clip, so that no two windows have the same range."""
    rng, time = np.random.default_rng(0), np.linspace(0, 1, 19)[:, None, None]
    disparity = (rng.random((1, 32, 32)) * (1 + 2 * time) + 3 * time).astype(np.float64)
    counting = np.arange(19, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    request = ClipRequest("k", "", ("depth",), {"rgb": Rgb(counting, 8.0)}, 19, 32, 32)
    model = _Estimator(nano().config, disparity)
    sampler = Sampler(steps=1, batch=2, guidance=Guidance(controls=(1.0,)))
    [(_, values)] = list(generate(model, PixelCodec(), embed, [request], sampler))
    got = values["depth"].values.astype(np.float64)
    scale, shift = np.polyfit(got.ravel(), disparity.ravel(), 1)
    assert got.shape == (19, 32, 32)
    np.testing.assert_allclose(scale * got + shift, disparity, atol=2e-4 * np.ptp(disparity))


class _Adds(UnifiedDiT):
    """A stand-in whose every frame is a little brighter than the last one it was given, else black at first."""

    def forward(self, streams: Streams) -> torch.Tensor:
        out = torch.empty_like(streams.x_PCFHW)
        frames = out.shape[2]
        for row, x in enumerate(streams.x_PCFHW):
            clean = int((streams.t_P[row] == 0).sum()) if streams.t_P.dim() == 2 else 0
            last = x[0, clean - 1, 0, 0] if clean else torch.tensor(-1.0)
            out[row] = (last + 0.02 * (torch.arange(frames) - clean + (clean > 0)))[None, :, None, None]
        return out


@pytest.mark.parametrize("frames", [7, 8, 19, 100])
def test_joint_clips_of_any_length_are_made_of_windows_that_go_on_from_each_other(frames: int) -> None:
    request = ClipRequest("k", "", ("rgb", "depth", "flow"), {}, frames, 32, 32)
    [(_, values)] = list(generate(_Adds(nano().config), PixelCodec(), embed, [request], Sampler(steps=1)))
    want = np.clip(0.01 * np.arange(frames) * 255, 0, 255)
    np.testing.assert_allclose(values["rgb"].frames[:, 0, 0, 0], want, atol=1)
    assert values["depth"].values.shape == (frames, 32, 32)
    assert values["flow"].forward.shape == (frames - 1, 32, 32, 2)


@pytest.mark.parametrize("given", [1, 2, 5])
def test_a_clip_goes_on_from_an_image_or_from_frames(given: int) -> None:
    start = Rgb(np.full((given, 32, 32, 3), 128, np.uint8), 8.0)
    request = ClipRequest("k", "", ("rgb", "depth"), {}, 8, 32, 32, start=start)
    [(_, values)] = list(generate(_Adds(nano().config), PixelCodec(), embed, [request], Sampler(steps=1)))
    grey = values["rgb"].frames[:, 0, 0, 0].astype(int)
    held = max(2, given // 2 * 2)  # a token of nano holds two frames
    assert (grey[:held] == 128).all()
    assert (np.diff(grey[held:]) > 0).all()


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
