"""`unibench score` of generated video with every measuring model in place, and with none, as a user sees it.

The weights are random. RAFT and AMT have their real size, the others are small ones of the same kind, so that two
videos are scored in seconds. The catalogue is told of these files' hashes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("open_clip")

from openuni import assets  # noqa: E402
from openuni.video import encode_video  # noqa: E402
from openuni_pipelines.commands.compare import compare_command  # noqa: E402
from openuni_pipelines.commands.score import score_command  # noqa: E402
from tests.unibench.networks.made import archived, saved, waves  # noqa: E402
from unibench import networks  # noqa: E402
from unibench.networks import amt, clip, dino, musiq, raft, viclip  # noqa: E402
from unibench.scoring import score  # noqa: E402

LEARNED = [column for learned in networks.LEARNED.values() for column in learned.columns]


def small_tower(out: int) -> Any:
    return clip.VisionTransformer(224, 56, 64, 2, 2, 4.0, output_dim=out, act_layer=clip.QuickGELU)


def small_viclip(kind: Any = viclip.ViClip) -> Any:
    return kind(width=64, depth=2, heads=2, out=32, patch=56, side=224)


def small_dino(kind: Any = dino.Dino) -> Any:
    return kind(width=64, depth=2, heads=2)


def small_musiq(kind: Any = musiq.Musiq) -> Any:
    return kind(width=48, hidden=64, heads=2, depth=2)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty asset cache."""
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "home"))
    score._tools.cache_clear()
    return tmp_path / "home" / "assets"


def as_it_is(asset: assets.Asset) -> assets.Asset:
    """The asset with size and hash of the file in the cache."""
    data = assets.place(asset).read_bytes()
    return dataclasses.replace(asset, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


@pytest.fixture
def weights(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache with a file for every measuring model."""
    torch.manual_seed(0)
    monkeypatch.setattr(clip, "vit_b32", lambda: small_tower(512))
    monkeypatch.setattr(clip, "vit_l14", lambda: small_tower(768))
    monkeypatch.setattr(viclip, "ViClip", small_viclip)
    monkeypatch.setattr(dino, "Dino", small_dino)
    monkeypatch.setattr(musiq, "Musiq", small_musiq)
    flow = raft.raft_large(weights=None).state_dict()
    monkeypatch.setattr(raft, "translated", dict)  # the translation of names has a test of its own
    saved(dino.Dino().state_dict(), assets.place(assets.get("dino-vitb16")))
    archived(clip.vit_b32(), assets.place(assets.get("clip-vit-b32")))
    archived(clip.vit_l14(), assets.place(assets.get("clip-vit-l14")))
    saved(torch.nn.Linear(768, 1).state_dict(), assets.place(assets.get("laion-aesthetic")))
    saved(musiq.Musiq().state_dict(), assets.place(assets.get("musiq-spaq")))
    saved(flow, assets.place(assets.get("raft-things")))
    saved({"state_dict": amt.Amt().state_dict()}, assets.place(assets.get("amt-s")))
    saved({"model": small_viclip().state_dict()}, assets.place(assets.get("viclip-l14")))
    for name, learned in networks.LEARNED.items():
        made = dataclasses.replace(learned, weights=tuple(as_it_is(asset) for asset in learned.weights))
        monkeypatch.setitem(networks.LEARNED, name, made)  # type: ignore[arg-type]
    return home


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "wan"
    folder.mkdir(parents=True)
    for number in range(2):
        video = encode_video(waves(4, 128, 144)[number:], 8.0)
        (folder / f"a boat on the sea-{number}.mp4").write_bytes(video)
    return folder


def scored(videos: Path, out: Path) -> tuple[dict[str, Any], Result]:
    arguments = ["--pred", str(videos), "--out", str(out), "--tasks", "video"]
    result = CliRunner().invoke(score_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads((out / "report.json").read_text()), result


def test_with_weights_every_dimension_is_measured_and_marked_unvalidated(
    weights: Path, videos: Path, tmp_path: Path
) -> None:
    report, result = scored(videos, tmp_path / "out")
    columns = report["tasks"]["video"]["columns"]
    for name in (*LEARNED, "quality_score"):
        assert columns[name]["note"].startswith("unvalidated"), name
        if name not in ("temporal_flickering", "quality_score"):
            assert isinstance(columns[name]["value"], float), name
    assert "unvalidated: by MUSIQ (SPAQ)" in " ".join(result.output.split())
    # A moving video is not static, so flickering (and what rests on it) has nothing to be measured on, or all have.
    assert (columns["temporal_flickering"]["value"] is None) == (columns["quality_score"]["value"] is None)
    assert 0 <= columns["subject_consistency"]["value"] <= 1
    assert 0.5 < columns["motion_smoothness"]["value"] < 1
    assert -1 <= columns["overall_consistency"]["value"] <= 1
    # VBench's columns are the paper's, so the run stands above the published rows; what is unvalidated says so above.
    assert "wan (this run)" in (tmp_path / "out" / "report.html").read_text()
    pinned = report["protocol"]["measures"]
    assert set(pinned) == set(networks.LEARNED)
    assert pinned["imaging"] == networks.LEARNED["imaging"].weights[0].sha256
    again, _ = scored(videos, tmp_path / "again")
    assert again["tasks"] == report["tasks"]


def test_without_weights_dimensions_are_null_with_the_word_that_brings_them(
    home: Path, videos: Path, tmp_path: Path
) -> None:
    report, _ = scored(videos, tmp_path / "out")
    columns = report["tasks"]["video"]["columns"]
    for learned in networks.LEARNED.values():
        for name in learned.columns:
            assert columns[name]["value"] is None
            assert columns[name]["note"].startswith("unvalidated: no weights of")
            assert (
                f"`openuni assets fetch {' '.join(asset.name for asset in learned.weights)}` brings"
                in columns[name]["note"]
            )
    assert "CC-BY-NC-4.0" in columns["motion_smoothness"]["note"]
    assert columns["quality_score"]["value"] is None
    assert columns["flickering_unfiltered"]["value"] is not None
    assert report["protocol"]["measures"] == {}


def test_a_file_that_is_not_the_pinned_one_measures_nothing(weights: Path, videos: Path, tmp_path: Path) -> None:
    place = assets.place(assets.get("musiq-spaq"))
    place.write_bytes(bytes(len(place.read_bytes())))
    report, _ = scored(videos, tmp_path / "out")
    column = report["tasks"]["video"]["columns"]["imaging_quality"]
    assert column["value"] is None
    assert "is not the pinned file" in column["note"]
    assert "imaging" not in report["protocol"]["measures"]


def test_runs_measured_with_and_without_weights_do_not_compare(
    weights: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(videos, tmp_path / "with")
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "nothing"))
    scored(videos, tmp_path / "without")
    result = CliRunner().invoke(compare_command, [str(tmp_path / "with"), str(tmp_path / "without")])
    assert result.exit_code != 0
    assert "measures" in str(result.exception)
