"""What published weights are known to answer to published pictures, and whether those on this machine do.

`openuni doctor --experts` compares; its finding is kept in the asset cache by the expert's fingerprint, which holds the
hashes of its weights, and data cards tell it. An entry cites where the numbers were published.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import HubFile, Url, sources
from openuni.errors import AssetError, OpenUniError
from openuni.experts import sets
from openuni.experts.base import Expert, get
from openuni.experts.speed import Memory, Speed, measured

Frame = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]

_MOST_BYTES = 32 << 20
"""Of a picture."""
_SHOWN = 16
_FOUND = "known_answers.json"


@dataclass(frozen=True, slots=True)
class Published:
    """A published file. Without a known hash it is taken as it comes: a wrong one can only make an answer differ."""

    name: str
    source: Url | HubFile
    sha256: str | None = None

    def fetched(self) -> Path:
        """The file in the asset cache, checked. Raises AssetError where it cannot be had, or is another."""
        file = assets.folder() / "known_answers" / self.name
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with (
                    tempfile.TemporaryDirectory(prefix=".fetch-", dir=file.parent) as scratch,
                    sources.opened(self.source, Path(scratch)) as stream,
                ):
                    data = stream.read(_MOST_BYTES + 1)
                    part = Path(scratch) / self.name
                    part.write_bytes(data)
                    self._check(data, str(self.source))
                    part.replace(file)
            except sources.ERRORS as error:
                raise AssetError(f"file {self.source} could not be fetched: {error}; put it at {file}") from error
        self._check(file.read_bytes(), str(file))
        return file

    def _check(self, data: bytes, where: str) -> None:
        if len(data) > _MOST_BYTES:
            raise AssetError(f"{where} is larger than a picture or a short video")
        if self.sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise AssetError(f"{where} has SHA-256 {found}, expected {self.sha256}; delete it, and it is fetched again")


class Picture(Published):
    """A published picture."""

    def read(self) -> Frame:
        """The picture, uint8 `[H, W, 3]` RGB, over white where it can be seen through.

        By PIL, as where the answers come from. Raises AssetError where it cannot be had, or is another.
        """
        from PIL import Image

        file = self.fetched()
        try:
            with Image.open(file) as opened:
                image = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise AssetError(f"{file} is no picture; delete it, and it is fetched again") from error
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return np.array(image)


class Video(Published):
    """A published video, of which the first frames are shown."""

    def read(self) -> Frame:
        """Its first 16 frames, uint8 `[16, H, W, 3]` RGB: as many as memory networks look back."""
        import av

        file = self.fetched()
        try:
            with av.open(str(file)) as container:
                shown = list(islice(container.decode(video=0), _SHOWN))
                frames: Frame = np.stack([frame.to_ndarray(format="rgb24") for frame in shown])
        except (av.error.FFmpegError, ValueError, IndexError) as error:
            raise AssetError(f"{file} is no video; delete it, and it is fetched again") from error
        return frames


class Array(Published):
    """Published numbers, as a file of NumPy's."""

    def read(self) -> Numbers:
        """The numbers, float64, in a row. Raises AssetError where they cannot be had."""
        file = self.fetched()
        try:
            numbers: Numbers = np.load(file, allow_pickle=False).astype(np.float64).ravel()
        except (ValueError, OSError, EOFError) as error:
            raise AssetError(f"{file} is no array of numbers; delete it, and it is fetched again") from error
        return numbers


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """`ask` puts an expert's loaded network to the picture; `published` is what it must say within `tolerance`.

    The tolerance is the published one, or wider where decoders of pictures and videos make more of a difference: a
    hundredth; a tenth of logits of 15 or so behind a video.
    """

    expert: str
    picture: Picture | Video
    ask: Callable[[Any, Frame], npt.ArrayLike]
    published: tuple[float, ...] | Array
    tolerance: float
    cited: str
    """File and commit."""


CATS = Picture(
    "coco-000000039769.jpg",
    Url("http://images.cocodataset.org/val2017/000000039769.jpg"),
    "dea9e7ef97386345f7cff32f9055da4982da5471c48d575146c796ab4563b04e",
)
PERSON = Picture(
    "tohsaka_rin.png",
    Url(
        "https://raw.githubusercontent.com/deepghs/imgutils/85ac85d090940c7d96c75f921596292de4befa9e/"
        "test/testfile/pose/tohsaka_rin.png"
    ),
)
PERSON_POSE = Array(
    "tohsaka_rin_nad_pose.npy",
    Url(
        "https://raw.githubusercontent.com/deepghs/imgutils/ef73bab610cb4dc5e4ed8c56392c531be0e5e0f6/"
        "test/testfile/pose/tohsaka_rin_nad_pose.npy"
    ),
)
ROOM = Picture("coco-000000000139.jpg", Url("http://images.cocodataset.org/val2017/000000000139.jpg"))
CAR = Picture(
    "car.png", HubFile("ybelkada/segment-anything", "78a4e09693626d9d18d61db7f7f747c63611f033", "assets/car.png")
)
BEDROOM = Video(
    "bedroom.mp4",
    Url(
        "https://raw.githubusercontent.com/facebookresearch/sam2/2b90b9f5ceec907a1c18123530e92e794ad901a4/"
        "notebooks/videos/bedroom.mp4"
    ),
    "1be76d5d19b066e8ad7c565d88a98e11a8f8d456a707508a7aa35390def70e30",
)


def _depth(expert: Any, frame: Frame) -> npt.ArrayLike:
    import torch

    with torch.inference_mode():
        predicted = expert._model(expert.prepared(frame[None]).to(expert._model.device)).predicted_depth
    corner: npt.ArrayLike = predicted[0, :3, :3].float().cpu().numpy()
    return corner


def _detections(expert: Any, frame: Frame) -> npt.ArrayLike:
    outputs = expert._outputs(frame[None])[0]
    return np.concatenate([outputs[:, :91].ravel()[:5], outputs[:, 91:].ravel()[:5]])


def _nose(expert: Any, frame: Frame) -> npt.ArrayLike:
    """Of the second person; joints in the record count from the middle of the first pixel."""
    placed = np.array([[412.8, 157.61, 53.05, 138.01], [384.43, 172.21, 15.12, 35.74]], np.float32)
    boxes = np.concatenate([placed[:, :2], placed[:, :2] + placed[:, 2:]], 1)
    joint: npt.ArrayLike = expert.joints(frame, boxes)[1, 0] - np.array([0.5, 0.5, 0], np.float32)
    return joint


def _car(expert: Any, frame: Frame) -> npt.ArrayLike:
    """How good SAM takes its three masks of the whole car to be."""
    expert._predictor.set_image(frame)
    _, scores, _ = expert._predictor.predict(box=np.array([75, 275, 1725, 850]), multimask_output=True)
    quality: npt.ArrayLike = scores
    return quality


def _car_last(expert: Any, frame: Frame) -> npt.ArrayLike:
    return np.asarray(_car(expert, frame))[-1:]


def _followed(expert: Any, frames: Frame) -> npt.ArrayLike:
    """Logits at the corner of three frames, of what is in a box in the first."""
    video = expert._open(frames)
    video.show(0, 1, np.array([300.0, 0, 500, 400]))
    first, second, third = (video.look(t)[1] for t in range(3))
    return np.concatenate([first[:3, :3].ravel(), second[:2, 0], third[:2, 0]])


def _clicked(expert: Any, frame: Frame) -> npt.ArrayLike:
    """How good SAM 2 takes its three masks of what lies at a point to be."""
    import torch

    inputs = expert._processor(
        images=frame, input_points=[[[[1000.0, 600.0]]]], input_labels=[[[1]]], return_tensors="pt"
    ).to(expert._model.device)
    with torch.inference_mode():
        answer = expert._model._single_frame_forward(
            pixel_values=inputs.pixel_values, input_points=inputs.input_points, input_labels=inputs.input_labels
        )
    quality: npt.ArrayLike = answer.iou_scores.float().cpu().numpy()
    return quality


_OPENPOSE = (0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""OpenPose's 18 joints among COCO's 17; the neck, which COCO has not, stands second."""


def _whole_body(expert: Any, frame: Frame) -> npt.ArrayLike:
    """Joints of the whole picture's one person, OpenPose's 18 before the others; in the record they count from the
    middle of the first pixel, and the neck's score is 1 where both shoulders' are above .3."""
    height, width = frame.shape[:2]
    joints: Numbers = expert.joints([frame], np.array([[0, 0, width, height]], np.float32))[0].astype(np.float64)
    joints[:, :2] -= 0.5
    shoulders = joints[5:7]
    recorded = np.concatenate([joints[list(_OPENPOSE)], joints[17:]])
    recorded[1] = [*shoulders[:, :2].mean(0), float((shoulders[:, 2] > 0.3).all())]
    return recorded


_TRANSFORMERS = "huggingface/transformers"
_DEPTH_ANYTHING = f"{_TRANSFORMERS} src/transformers/models/depth_anything/convert_depth_anything_to_hf.py @23925e1607"
ANSWERS = (
    KnownAnswer(
        "depth_anything_v2_small",
        CATS,
        _depth,
        (2.6751, 2.6211, 2.6571, 2.5820, 2.6138, 2.6271, 2.6160, 2.6141, 2.6306),
        0.01,
        _DEPTH_ANYTHING,
    ),
    KnownAnswer(
        "depth_anything_v2_base",
        CATS,
        _depth,
        (4.3576, 4.3723, 4.3908, 4.3231, 4.3146, 4.3611, 4.3016, 4.3170, 4.3121),
        0.01,
        _DEPTH_ANYTHING,
    ),
    KnownAnswer(
        "depth_anything_v2_large",
        CATS,
        _depth,
        (162.2751, 161.8504, 162.8788, 160.3138, 160.8050, 161.9835, 159.3812, 159.9884, 160.0768),
        0.5,  # of disparities that are sixty times as large
        _DEPTH_ANYTHING,
    ),
    KnownAnswer(
        "rf_detr",
        CATS,
        _detections,
        (-6.58581, -8.07883, -12.52392, -7.78248, -10.47323, 0.16824, 0.19932, 0.21110, 0.09385, 0.77087),
        0.01,
        f"{_TRANSFORMERS} src/transformers/models/rf_detr/convert_rf_detr_weights_to_hf.py @ac646198f4",
    ),
    KnownAnswer(
        "vitpose",
        ROOM,
        _nose,
        (398.1597, 181.6902, 0.9051),
        0.05,
        f"{_TRANSFORMERS} src/transformers/models/vitpose/convert_vitpose_to_hf.py @a1567e0222",
    ),
    KnownAnswer(
        "sam_vit_b",
        CAR,
        _car,
        (0.5996, 0.7661, 0.7937),
        0.01,
        f"{_TRANSFORMERS} tests/models/sam/test_modeling_sam.py @032b32abfb",
    ),
    KnownAnswer(
        "sam_vit_h",
        CAR,
        _car_last,
        (0.8686015606,),
        0.01,
        f"{_TRANSFORMERS} src/transformers/models/sam/convert_sam_to_hf.py @09cb93d889",
    ),
    KnownAnswer(
        "dwpose",
        PERSON,
        _whole_body,
        PERSON_POSE,
        1.0,  # pixels; a bin of the network's answer is more than one of this picture
        "deepghs/imgutils test/pose/test_dwpose.py @0503875155",
    ),
    KnownAnswer(
        "sam2_video",
        CAR,
        _clicked,
        (0.9664, 0.1494, 0.0456),
        0.01,
        f"{_TRANSFORMERS} src/transformers/models/sam2_video/convert_sam2_video_to_hf.py @09cb93d889",
    ),
    KnownAnswer(
        "edgetam",
        BEDROOM,
        _followed,
        # Corner of the first frame, by rows; of the second and the third the first column's top two.
        (
            *(-17.3245, -17.3245, -16.9231, -16.8773, -16.8773, -16.6082, -15.8731, -15.8731, -15.9011),
            *(-16.2826, -15.9087, -15.8716, -15.3992),
        ),
        0.1,
        f"{_TRANSFORMERS} tests/models/edgetam_video/test_modeling_edgetam_video.py @06c7bee2eb",
    ),
)
"""None are published for RAFT and DensePose (errors on data sets only), Video Depth Anything, YOLO11 pose and SAM
vit_l."""

NONE_KNOWN = "no published output known"
UNVALIDATED = "unvalidated"


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one expert: `said` is the sentence for people, `pace` another on its speed and memory."""

    expert: str
    verdict: Literal["matches", "differs", "unknown", "failed"]
    said: str
    cited: str = ""
    speed: Speed | None = None
    pace: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was found here of an expert's weights."""

    said: str = ""
    speed: Speed | None = None


def examine(names: Sequence[str] = (), *, trust: bool = False) -> Iterator[Finding]:
    """Compare the networks of these experts and sets, by default of all whose weights are here, with what is published;
    measure those that a card would run; keep what is found.

    Model files that are programs are left alone without `trust`. Raises OpenUniError on an unknown name.
    """
    from openuni import registry

    chosen = [expert for name in names for expert in sets.expand([name])]
    if not names:
        chosen = [name for name in registry.names("experts") if _is_fetched(get(name))]
    for name in dict.fromkeys(needed.name for each in chosen for needed in sets.with_required(each)):
        finding = _examined(get(name), [answer for answer in ANSWERS if answer.expert == name], trust)
        if finding.verdict in ("matches", "differs") or finding.speed is not None:
            _keep(get(name).fingerprint(), finding)
        yield finding


def verdict(expert: type[Expert]) -> str:
    """What is known here of whether the expert's network answers as published, for a data card."""
    if all(answer.expert != expert.name for answer in ANSWERS):
        return NONE_KNOWN
    return _found().get(expert.fingerprint(), Kept()).said or UNVALIDATED


def speed(expert: type[Expert]) -> Speed | None:
    """What was measured here of the expert with its weights, if it was."""
    return _found().get(expert.fingerprint(), Kept()).speed


def _is_fetched(expert: type[Expert]) -> bool:
    return bool(expert.assets) and all(assets.is_cached(asset) for asset in expert.assets)


def _examined(expert: type[Expert], known: Sequence[KnownAnswer], trust: bool) -> Finding:
    """Of an expert that has neither a known answer nor a use for a card nothing is loaded."""
    none_known = Finding(expert.name, "unknown", NONE_KNOWN)
    if not known and not expert.resources.gpus:
        return none_known
    if expert.runs_code and not trust:
        return replace(none_known, pace=f"not measured: {expert.runs_code}; give --trust")
    if not known and not _is_fetched(expert):
        return replace(none_known, pace="not measured: its weights are not here")
    loaded = expert()
    try:
        before = Memory()
        loaded.setup()
    except (OpenUniError, ImportError) as error:
        return Finding(expert.name, "failed", str(error))
    try:
        finding = _compared(loaded, known) if known else none_known
        return _timed(finding, loaded, before) if expert.resources.gpus else finding
    finally:
        loaded.teardown()


def _timed(finding: Finding, loaded: Expert, before: Memory) -> Finding:
    try:
        found = measured(loaded, before)
    except (OpenUniError, RuntimeError) as error:  # of the card's memory, and what else libraries raise
        reason = str(error).partition("\n")[0]
        return replace(finding, pace=f"not measured: {reason}")
    return replace(finding, speed=found, pace=str(found))


def _compared(loaded: Expert, known: Sequence[KnownAnswer]) -> Finding:
    import torch

    from openuni.experts.weights import precision

    try:
        with precision(torch.float32):
            errors = [_error(answer, loaded) for answer in known]
    except AssetError as error:  # a picture that cannot be had
        return Finding(loaded.name, "failed", str(error))
    worst = max(errors)
    cited = "; ".join(answer.cited for answer in known)
    if all(error <= answer.tolerance for error, answer in zip(errors, known, strict=True)):
        return Finding(loaded.name, "matches", f"matches the published output (max error {worst:.2g})", cited)
    return Finding(loaded.name, "differs", f"differs from the published output (max error {worst:.2g})", cited)


def _error(answer: KnownAnswer, loaded: Expert) -> float:
    """The largest difference from what is published; infinite where the answer has another size or is not finite."""
    known = answer.published.read() if isinstance(answer.published, Array) else np.array(answer.published)
    said: Numbers = np.asarray(answer.ask(loaded, answer.picture.read()), np.float64).ravel()
    if said.shape != known.shape or not np.isfinite(said).all():
        return float("inf")
    return float(np.abs(said - known).max())


def _found() -> dict[str, Kept]:
    """What was found before, by fingerprint; nothing where the file is not ours."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(dict[str, Kept]).validate_json((assets.folder() / _FOUND).read_bytes())
    except (OSError, ValidationError):
        return {}


def _keep(fingerprint: str, finding: Finding) -> None:
    """Beside what was found before of that which was not found anew."""
    found = _found()
    before = found.get(fingerprint, Kept())
    said = finding.said if finding.verdict in ("matches", "differs") else before.said
    found[fingerprint] = Kept(said, finding.speed or before.speed)
    folder = assets.folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".found-", dir=folder) as scratch:
        part = Path(scratch) / _FOUND
        part.write_text(json.dumps({name: asdict(one) for name, one in found.items()}, indent=2, sort_keys=True))
        part.replace(folder / _FOUND)
