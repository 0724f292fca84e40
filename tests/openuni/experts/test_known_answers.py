"""Known answers: a server with other weights and pictures is told from the published ones, and cards tell it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from openuni import experts  # noqa: E402
from openuni.assets import Url  # noqa: E402
from openuni.errors import AssetError, OpenUniError  # noqa: E402
from openuni.experts import dwpose, edgetam, known_answers, rf_detr, sam2_video, sets  # noqa: E402
from openuni.experts.speed import Memory, Speed, measured  # noqa: E402
from openuni_pipelines.cli import openuni  # noqa: E402
from tests.openuni.experts.published import serve  # noqa: E402
from tests.openuni.experts.test_rf_detr import SmallRfDetr  # noqa: E402


@pytest.fixture
def small(served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> known_answers.KnownAnswer:
    """RF-DETR of random weights in the cache, and its known answer about a picture from the same server."""
    from transformers import RfDetrForObjectDetection

    torch.manual_seed(0)
    RfDetrForObjectDetection(SmallRfDetr._config()).save_pretrained(tmp_path)
    monkeypatch.setattr(rf_detr.RfDetr, "_config", staticmethod(SmallRfDetr._config))
    pinned = serve(served, rf_detr.WEIGHTS, tmp_path / "model.safetensors")
    monkeypatch.setattr(rf_detr.RfDetr, "assets", (pinned,))
    folder, address = served
    cv2.imwrite(str(folder / "cats.png"), np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    picture = known_answers.Picture("cats.png", Url(f"{address}/cats.png"))
    (answer,) = [answer for answer in known_answers.ANSWERS if answer.expert == "rf_detr"]
    answer = replace(answer, picture=picture)
    monkeypatch.setattr(known_answers, "ANSWERS", (answer,))
    return answer


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor` compares only, and does not measure the speed."""
    monkeypatch.setattr(known_answers, "measured", lambda loaded, before: Speed("cpu", 1.0, 1.0))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(openuni, ["doctor", *arguments])


def test_random_weights_differ(small: known_answers.KnownAnswer) -> None:
    assert known_answers.verdict(rf_detr.RfDetr) == "unvalidated"
    result = run("--experts")
    assert result.exit_code == 1
    assert "rf_detr: differs from the published output (max error " in result.output
    assert "convert_rf_detr_weights_to_hf.py @ac646198f4" in result.output
    assert known_answers.verdict(rf_detr.RfDetr).startswith("differs from the published output")


def test_the_published_weights_match(small: known_answers.KnownAnswer, monkeypatch: pytest.MonkeyPatch) -> None:
    expert = rf_detr.RfDetr()
    expert.setup()
    said = np.asarray(small.ask(expert, small.picture.read()))
    answer = replace(small, published=tuple(said.tolist()))
    monkeypatch.setattr(known_answers, "ANSWERS", (answer,))
    result = run("--experts", "vitpose")  # and what it requires
    assert result.exit_code == 0, result.output
    assert "rf_detr: matches the published output (max error 0)" in result.output
    assert "vitpose: no published output known" in result.output
    assert known_answers.verdict(rf_detr.RfDetr) == "matches the published output (max error 0)"
    assert known_answers.verdict(experts.get("raft_large")) == "no published output known"
    monkeypatch.setattr(rf_detr.RfDetr, "assets", (replace(rf_detr.RfDetr.assets[0], sha256="00" * 32),))
    assert known_answers.verdict(rf_detr.RfDetr) == "unvalidated"  # other weights


def test_what_is_missing_is_said(
    small: known_answers.KnownAnswer, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(small, picture=replace(small.picture, name="gone.png", source=Url(f"{served[1]}/gone.png")))
    other = replace(small.picture, sha256="00" * 32)
    monkeypatch.setattr(known_answers, "ANSWERS", (gone,))
    result = run("--experts", "rf_detr")
    assert result.exit_code == 1
    assert "gone.png could not be fetched: HTTP Error 404" in result.output
    assert known_answers.verdict(rf_detr.RfDetr) == "unvalidated"
    with pytest.raises(AssetError, match=r"has SHA-256 .*, expected 0000"):
        other.read()
    assert not list((Path(served[0]).parent / "home" / "assets" / "known_answers").glob("*"))
    assert run("rf_detr").exit_code == 2
    assert "no expert rf_dtr" in run("--experts", "rf_dtr").output


@pytest.mark.usefixtures("unmeasured")
def test_a_network_that_follows_is_shown_a_video(
    served: tuple[Path, str],
    make_clips: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("timm")
    from tests.openuni.experts.test_sam2_video import SmallEdgeTam

    config = SmallEdgeTam._config()
    torch.manual_seed(0)
    SmallEdgeTam._network()(config).save_pretrained(tmp_path)
    monkeypatch.setattr(edgetam.EdgeTam, "_config", staticmethod(lambda: config))
    pinned = serve(served, edgetam.WEIGHTS, tmp_path / "model.safetensors")
    monkeypatch.setattr(edgetam.EdgeTam, "assets", (pinned,))
    folder, address = served
    shutil.copy(make_clips(tmp_path / "made", ["square"], frames=20, size=64) / "square.mp4", folder / "square.mp4")
    video = known_answers.Video("square.mp4", Url(f"{address}/square.mp4"))
    assert video.read().shape[0] == 16
    (answer,) = [answer for answer in known_answers.ANSWERS if answer.expert == "edgetam"]
    answer = replace(answer, picture=video)
    monkeypatch.setattr(known_answers, "ANSWERS", (answer,))
    assert "edgetam: differs from the published output" in run("--experts", "edgetam").output
    expert = edgetam.EdgeTam()
    expert.setup()
    said = np.asarray(answer.ask(expert, video.read()))
    assert said.shape == (len(answer.published),)
    monkeypatch.setattr(known_answers, "ANSWERS", (replace(answer, published=tuple(said.tolist())),))
    assert "edgetam: matches the published output (max error 0)" in run("--experts", "edgetam").output
    (folder / "text.mp4").write_bytes(b"no video")
    with pytest.raises(AssetError, match=r"text\.mp4 is no video"):
        known_answers.Video("text.mp4", Url(f"{address}/text.mp4")).read()


@pytest.mark.usefixtures("unmeasured")
def test_sam_2_is_asked_as_the_record_asks_it(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.openuni.experts.test_sam2_video import SmallSam2

    torch.manual_seed(0)
    SmallSam2._network()(SmallSam2._config()).save_pretrained(tmp_path)
    monkeypatch.setattr(sam2_video.Sam2Video, "_config", staticmethod(SmallSam2._config))
    pinned = serve(served, sam2_video.SMALL, tmp_path / "model.safetensors")
    monkeypatch.setattr(sam2_video.Sam2Video, "assets", (pinned,))
    folder, address = served
    shown = np.random.default_rng(0).integers(0, 255, (700, 1100, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "car.png"), shown[..., ::-1])
    (answer,) = [answer for answer in known_answers.ANSWERS if answer.expert == "sam2_video"]
    answer = replace(answer, picture=known_answers.Picture("car.png", Url(f"{address}/car.png")))
    np.testing.assert_array_equal(answer.picture.read(), shown)
    monkeypatch.setattr(known_answers, "ANSWERS", (answer,))
    assert "sam2_video: differs from the published output" in run("--experts", "sam2_video").output
    expert = sam2_video.Sam2Video()
    expert.setup()
    clicked, elsewhere = (np.asarray(answer.ask(expert, image)) for image in (shown, shown[::-1].copy()))
    assert clicked.shape == (1, 1, 3)
    assert np.abs(clicked - elsewhere).max() > 1e-6


@pytest.mark.usefixtures("unmeasured")
def test_dwpose_is_compared_with_a_published_array(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the record, and the neck, as `imgutils/pose/dwpose.py` makes them."""
    from tests.openuni.experts.test_dwpose import peaks

    random = np.random.default_rng(0)
    bins = np.stack([random.integers(0, 576, 133), random.integers(0, 768, 133)], 1)
    x, y = np.zeros((1, 133, 576), np.float32), np.zeros((1, 133, 768), np.float32)
    scores = random.uniform(0.35, 1, 133).astype(np.float32)
    x[0, np.arange(133), bins[:, 0]], y[0, np.arange(133), bins[:, 1]] = scores, scores
    peaks(tmp_path / "dw.onnx", x, y)
    monkeypatch.setattr(dwpose.DwPose, "assets", (serve(served, dwpose.WEIGHTS, tmp_path / "dw.onnx"),))
    folder, address = served
    height, width = 400, 300  # a crop of 500 rows on 384
    cv2.imwrite(str(folder / "rin.png"), np.full((height, width, 4), (9, 9, 9, 0), np.uint8))
    found = bins / 2 * 500 / 384 + (width / 2, height / 2) - np.array([375, 500]) / 2
    with_neck = np.insert(np.column_stack([found, scores]), 17, [*found[[5, 6]].mean(0), 1], axis=0)
    taken = [17, 6, 8, 10, 7, 9, 12, 14, 16, 13, 15, 2, 1, 4, 3]
    with_neck[[1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17]] = with_neck[taken]
    np.save(folder / "pose.npy", with_neck)
    (answer,) = [answer for answer in known_answers.ANSWERS if answer.expert == "dwpose"]
    published = known_answers.Array("pose.npy", Url(f"{address}/pose.npy"))
    answer = replace(answer, picture=known_answers.Picture("rin.png", Url(f"{address}/rin.png")), published=published)
    assert (answer.picture.read() == 255).all()  # transparent, over white
    monkeypatch.setattr(known_answers, "ANSWERS", (answer,))
    result = run("--experts", "dwpose")
    assert "dwpose: matches the published output (max error " in result.output, result.output
    assert known_answers._error(answer, ready(dwpose.DwPose)) < 1e-4
    np.save(folder / "other.npy", with_neck + np.array([0, 3, 0]))
    other = replace(answer, published=known_answers.Array("other.npy", Url(f"{address}/other.npy")))
    monkeypatch.setattr(known_answers, "ANSWERS", (other,))
    assert "dwpose: differs from the published output (max error 3)" in run("--experts", "dwpose").output
    np.save(folder / "code.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(AssetError, match=r"code\.npy is no array of numbers"):
        known_answers.Array("code.npy", Url(f"{address}/code.npy")).read()


def ready(kind: type[experts.Expert]) -> experts.Expert:
    expert = kind()
    expert.setup()
    return expert


def test_speed_and_memory_are_measured_kept_with_the_weights_and_counted_with(
    small: known_answers.KnownAnswer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openuni_pipelines.engine import planning

    assert planning.card_use(rf_detr.RfDetr, 221 * 3600, 832 * 480) == planning.CardUse("rf_detr", 221, False, 1.0, 2)
    assert "frames a second on cpu, 832×480; " in run("--experts", "rf_detr").output
    found = known_answers.speed(rf_detr.RfDetr)
    assert found is not None
    assert found.frames_per_second > 0
    assert 0.1 < found.peak_gib < 64
    assert planning.card_use(rf_detr.RfDetr, 1, 1).measured is False  # a CPU's speed is not a card's
    monkeypatch.setattr(known_answers, "measured", lambda loaded, before: Speed("NVIDIA A100", 50.0, 3.1))
    assert "  50 frames a second on NVIDIA A100, 832×480; 3.1 GiB of the card's memory" in run("--experts").output
    assert planning.card_use(rf_detr.RfDetr, 50 * 3600, 832 * 480) == planning.CardUse("rf_detr", 50, True, 1.0, 1)
    gone = replace(small, picture=known_answers.Picture("gone.png", Url("file:///nowhere/gone.png")))
    monkeypatch.setattr(known_answers, "ANSWERS", (gone,))
    assert "could not be fetched" in (said := run("--experts")).output
    assert "50 frames a second" in said.output
    assert known_answers.verdict(rf_detr.RfDetr).startswith("differs")  # what was found before stays


def test_a_program_is_measured_only_with_trust(
    small: known_answers.KnownAnswer, served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.openuni.experts.test_densepose_torchscript import Program

    torch.jit.script(Program([[8.0, 8.0, 56.0, 60.0]])).save(str(tmp_path / "program"))
    expert = experts.get("densepose_torchscript")
    monkeypatch.setattr(expert, "assets", (serve(served, expert.assets[0], tmp_path / "program"),))
    with monkeypatch.context() as unloaded:
        unloaded.setattr(torch.jit, "load", None)
        assert "a program that is run; give --trust" in run("--experts", "densepose_torchscript").output
    assert "no published output known\n  " in (said := run("--experts", "densepose_torchscript", "--trust").output)
    assert said.count("frames a second on cpu") == 2  # and the detector that it builds on
    assert known_answers.verdict(expert) == "no published output known"


def test_what_cannot_be_measured_is_said(small: known_answers.KnownAnswer, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = experts.get("sam_vit_h")()
    with pytest.raises(OpenUniError, match="about 350 s a frame on a CPU"):
        measured(slow, Memory())

    def full(self: object, clip: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory\nand much more")

    monkeypatch.setattr(rf_detr.RfDetr, "annotate", full)
    assert "not measured: CUDA out of memory\n" in run("--experts", "rf_detr").output
    before = Memory()
    held = np.ones(100 << 20, np.uint8)
    assert before.peak_gib() > held.nbytes / 2**30


def test_every_entry_cites_a_commit_and_names_an_expert_of_a_set_or_beside() -> None:
    for answer in known_answers.ANSWERS:
        assert "@" in answer.cited
        assert experts.get(answer.expert).assets
    asked = {answer.expert for answer in known_answers.ANSWERS}
    assert {"depth_anything_v2_small", "sam_vit_h", "vitpose"} <= asked & set(sets.SETS["production"])


def test_a_card_tells_it(small: known_answers.KnownAnswer) -> None:
    from openuni_pipelines.engine import card

    fingerprint = rf_detr.RfDetr.fingerprint()
    assert card._validated(fingerprint, {}) == "unvalidated"
    run("--experts", "rf_detr")
    assert card._validated(fingerprint, {}).startswith("differs")
    assert card._validated("rf_detr-1-00000000", {}) == "unvalidated"
    assert card._validated("rgb-1-00000000", {}) == "–"
