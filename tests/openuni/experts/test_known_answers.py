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
from openuni.experts import edgetam, known_answers, rf_detr, sets  # noqa: E402
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
