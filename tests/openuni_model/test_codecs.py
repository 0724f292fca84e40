"""Codecs against the real autoencoder class, with small random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from openuni_model.codecs import PixelCodec, WanCodec, open_codec  # noqa: E402
from openuni_model.config import ModelConfigError  # noqa: E402


def pictures(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((frames, height, width, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def vae() -> object:
    torch.manual_seed(0)
    return diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def test_pixels_come_back() -> None:
    codec, clip = PixelCodec(), pictures(4, 8, 12)
    assert codec.encode(clip).shape == (3, *codec.latent_size(4, 8, 12))
    np.testing.assert_allclose(codec.decode(codec.encode(clip)), clip, atol=1e-6)
    assert codec.error(clip) < 1e-6


@torch.no_grad()
def test_wan_latents_are_those_of_the_wan_pipeline(vae: object) -> None:
    """The pipeline of diffusers decodes `latents · std + mean`; ours are the inverse of that on the way in."""
    codec, clip = WanCodec(vae), pictures(5, 32, 48)
    latents = codec.encode(clip)
    assert latents.shape == (16, *codec.latent_size(5, 32, 48)) == (16, 2, 4, 6)
    mean = torch.tensor(vae.config.latents_mean).view(1, 16, 1, 1, 1)  # type: ignore[attr-defined]
    std = torch.tensor(vae.config.latents_std).view(1, 16, 1, 1, 1)  # type: ignore[attr-defined]
    video = torch.from_numpy(clip).permute(3, 0, 1, 2)[None] * 2 - 1
    mode = vae.encode(video).latent_dist.mode()  # type: ignore[attr-defined]
    torch.testing.assert_close(latents[None] * std + mean, mode, atol=1e-5, rtol=1e-5)
    want = diffusers.video_processor.VideoProcessor(vae_scale_factor=8).postprocess_video(
        vae.decode(mode).sample, output_type="np"  # type: ignore[attr-defined]
    )[0]  # fmt: skip
    got = codec.decode(latents)
    assert got.shape == clip.shape
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert codec.error(clip) == pytest.approx(float(np.sqrt(((got - clip) ** 2).mean())))


@torch.no_grad()
def test_large_pictures_go_tile_by_tile_as_the_library_does_and_small_ones_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    vae.save_pretrained(tmp_path / "vae")
    large, small = pictures(1, 264, 328), pictures(1, 64, 64)
    plain, tiled = open_codec("wan2.1", tmp_path), open_codec("wan2.1", tmp_path, tiled=True)
    assert (plain.tiled, tiled.tiled) == (False, True)
    assert torch.equal(tiled.encode(small), plain.encode(small))
    vae.enable_tiling()
    latents = tiled.encode(large)
    torch.testing.assert_close(latents, WanCodec(vae).encode(large), atol=1e-5, rtol=1e-5)
    assert latents.shape == plain.encode(large).shape
    # Away from the seams, whose tiles overlap by 64 pixels, a tile sees what the whole does.
    whole, parts = plain.decode(latents), tiled.decode(latents)
    assert parts.shape == large.shape
    assert not np.array_equal(whole, parts)
    assert np.abs(whole - parts).mean() < 0.05


def test_clips_that_do_not_fit_are_refused(vae: object) -> None:
    codec = WanCodec(vae)
    for size in ((4, 32, 32), (5, 30, 32), (5, 32, 20)):
        with pytest.raises(ModelConfigError, match="4k \\+ 1 frames"):
            codec.latent_size(*size)


def test_a_wan_folder_is_opened_and_another_one_is_refused(vae: object, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path / "vae")  # type: ignore[attr-defined]
    clip = pictures(5, 16, 16)
    assert torch.equal(open_codec("wan2.1", tmp_path).encode(clip), WanCodec(vae).encode(clip))
    with pytest.raises(ModelConfigError, match=r"16 latent channels; wan2\.2 has 48"):
        open_codec("wan2.2", tmp_path)
    with pytest.raises(ModelConfigError, match="--wan"):
        open_codec("wan2.1", tmp_path / "nowhere")
