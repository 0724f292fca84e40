"""Production segmentation with ids: SAM 2.1 (Ravi et al., 2024, arXiv:2408.00714), the video network of transformers.

It follows what it is shown. What there is comes from the shared detector, as boxes: of each person where their track
begins and begins again, of each other thing where it is first seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile
from openuni.experts import tracking
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.mediapipe_pose import people_in
from openuni.experts.people import TrackedPeople
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import Annotation

Box = npt.NDArray[np.float64]
Frame = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

SMALL = Asset(
    name="sam2.1-hiera-small",
    filename="sam2.1_hiera_small/model.safetensors",
    license="Apache-2.0",
    sha256="0a4067b11ce1e23d5229203f11c718a823060d15a4b23fa2372a7d4b77cbbc60",
    size=184_305_280,
    sources=(HubFile("facebook/sam2.1-hiera-small", "ee5bba1d82bb8749febdf90f45e84b687142ba03", "model.safetensors"),),
)

_SAME = 0.5
"""Overlap of a detection with the box about a mask from which they are one thing."""
_ALIKE = 0.85
"""Likeness of colours (Bhattacharyya) from which a thing of the same class that was gone is taken to be back."""
_MOST = 32
"""Things followed in a clip: each costs a pass of the decoder in every frame."""


@dataclass(slots=True)
class _Thing:
    """One thing that is not a person: its votes for a class, and the colours in its box."""

    number: int
    look: tracking.Floats
    votes: dict[str, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return max(self.votes, key=lambda name: sum(self.votes[name]))


class Sam2Video(Expert):
    """Instances of people and of COCO's other 79 classes, followed by SAM 2.1 from boxes of the shared detector.

    Person p of `rf_detr` has id p + 1; things follow in the order in which they were first seen. A person is shown to
    the network as a box where their track begins and wherever it begins again, a thing where it is first seen, also in
    the middle of the clip; from there the network follows it forward. What leaves and comes back keeps its id: the
    network finds it again by its memory; or the tracker knows the person by their clothes; or a thing of the same class
    and colours is there where nothing is followed, which is then shown to the network as the one that was gone. Where
    two masks overlap, a pixel is the one's of which the network is surer. Scores and confidence are the detector's, as
    in the light expert: they say what it is, not how well it is outlined.

    On a GPU matrices are multiplied in bfloat16, as its authors run it (`facebookresearch/sam2`, README).
    """

    name = "sam2_video"
    version = 1
    modality = "segmentation"
    license = "Apache-2.0"
    training_data = "SA-V (CC-BY-4.0), SA-1B (for research), its owner's videos; its publisher says Apache-2.0"
    requires = ("rf_detr",)
    assets = (SMALL,)
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "safetensors", "torchvision")
    installed_by = "openuni[production]"
    resources = Resources(cpus=1, gpus=0.5, memory_gib=6)
    seconds_per_frame = 8.0
    frames_per_second = 43.3  # not compiled (facebookresearch/sam2, README)

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

        from openuni.experts.weights import published

        file, config = assets.path(self.assets[0]), self._config()
        self._model: Any = published(self._network(), config, file)
        size = {"height": config.image_size, "width": config.image_size}
        self._processor: Any = Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size))

    def teardown(self) -> None:
        del self._model, self._processor

    @staticmethod
    def _network() -> Any:
        """The library's class of it."""
        from transformers import Sam2VideoModel

        return Sam2VideoModel

    @staticmethod
    def _config() -> Any:
        """The published network's: Hiera-S of SAM 2.1, images of 1024 pixels."""
        from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

        backbone = Sam2HieraDetConfig(
            blocks_per_stage=[1, 2, 11, 2], global_attention_blocks=[7, 10, 13], window_size_per_stage=[8, 4, 14, 7]
        )
        return Sam2VideoConfig(vision_config=Sam2VisionConfig(backbone_config=backbone))

    def annotate(self, clip: DecodedClip) -> Annotation[Segmentation]:
        """Instances of the clip; none, with confidence 0, in a clip in which the detector sees nothing."""
        from openuni.experts.weights import provenance

        people = people_in(clip, "rf_detr")
        video = self._open(clip.frames)
        things: list[_Thing] = []
        ids = np.zeros(clip.frames.shape[:3], np.int32)
        for t, frame in enumerate(clip.frames):
            begun = _beginning(people.boxes, t)
            for p in begun:
                video.show(t, p + 1, people.boxes[t, p].astype(np.float64))
            logits = video.look(t)
            if new := self._new_things(people, t, frame, things, logits):
                for thing, box in new:
                    video.show(t, thing.number, box)
                logits = video.look(t)
            ids[t] = _surest(logits, frame.shape[:2])
        table = [*_people_table(people), *(_row(thing) for thing in things)]
        areas = np.bincount(ids.ravel(), minlength=len(table) + 1)[1:]
        table = [row for row in table if areas[row.id - 1] > 0]
        weight = np.array([areas[row.id - 1] for row in table], np.float64)
        scores = np.array([row.score for row in table], np.float64)
        confidence = float(scores @ weight / weight.sum()) if table else 0.0
        return Annotation(Segmentation(ids, tuple(table)), confidence, provenance=provenance(1, video.dtype))

    def _open(self, frames: Frame) -> _Video:
        """The clip as the network is shown it."""
        return _Video(self._model, self._processor, frames)

    def _new_things(
        self, people: TrackedPeople, t: int, frame: Frame, things: list[_Thing], logits: dict[int, Logits]
    ) -> list[tuple[_Thing, Box]]:
        """Things that the detector sees in frame t and the network does not follow: new ones, which join `things`, and
        ones that were gone. Those that it follows get the detector's vote."""
        bounds = {number: _bounds(mask > 0) for number, mask in logits.items() if (mask > 0).any()}
        here = {number: bounds[number] for number in bounds if number > people.count}
        rows = np.flatnonzero(people.thing_frames == t)
        new: list[tuple[_Thing, Box]] = []
        for i in rows[np.argsort(-people.thing_scores[rows], kind="stable")].tolist():
            box, name = people.thing_boxes[i].astype(np.float64), people.thing_classes[i]
            look = tracking.colours(frame, _inside(box, frame.shape[:2]))
            overlaps = {number: tracking.overlap(box, other) for number, other in here.items()}
            nearest = max(overlaps, key=lambda number: overlaps[number], default=None)
            if nearest is not None and overlaps[nearest] >= _SAME:
                thing = things[nearest - people.count - 1]
                thing.look = 0.8 * thing.look + 0.2 * look
            else:
                gone = [thing for thing in things if thing.number not in here and name in thing.votes]
                thing = _alike(gone, look) or _Thing(people.count + len(things) + 1, look)
                if thing.number > people.count + len(things):
                    if len(things) >= _MOST:
                        continue
                    things.append(thing)
                new.append((thing, box))
                here[thing.number] = box
            thing.votes.setdefault(name, []).append(float(people.thing_scores[i]))
        return new


class _Video:
    """A clip in the network's hands: what it was shown, and what it makes of each frame."""

    def __init__(self, model: Any, processor: Any, frames: Frame) -> None:
        import torch

        from openuni.experts.weights import device, half_precision

        self.dtype = half_precision(torch.bfloat16)
        self._model = model
        self._processor = processor
        self._size = frames.shape[1:3]
        # Frames wait in main memory: 12 MB each would fill the card. All are given at once, because the network counts
        # them (it tells how long ago something was by their number).
        self._session = processor.init_video_session(
            video=torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2),
            inference_device=device(),
            processing_device="cpu",
            video_storage_device="cpu",
        )
        self._shown: list[int] = []

    def show(self, t: int, number: int, box: Box) -> None:
        """Frame t has object `number` in this box (x0, y0, x1, y1 in pixels)."""
        self._shown.append(number)
        self._processor.process_new_points_or_boxes_for_video_frame(
            self._session, frame_idx=t, obj_ids=[number], input_boxes=[[box.tolist()]]
        )
        # The library keeps those of its last call only.
        self._session.obj_with_new_inputs = list(self._shown)

    def look(self, t: int) -> dict[int, Logits]:
        """Logits `[H, W]` of every object shown so far in frame t; above 0 is the object."""
        import torch

        from openuni.experts.weights import inference

        if not self._session.obj_ids:
            return {}
        with inference(self.dtype):
            output = self._model(self._session, frame_idx=t)
        low = output.pred_masks.float()
        with torch.inference_mode():
            masks = self._processor.post_process_masks([low], [list(self._size)], binarize=False)[0]
        self._shown.clear()
        return {number: mask[0].float().cpu().numpy() for number, mask in zip(output.object_ids, masks, strict=True)}


def _beginning(boxes: npt.NDArray[np.float32], t: int) -> list[int]:
    """People whose track begins, or begins again, in frame t."""
    there = ~np.isnan(boxes[t, :, 0])
    before = ~np.isnan(boxes[t - 1, :, 0]) if t > 0 else np.zeros_like(there)
    begun: list[int] = np.flatnonzero(there & ~before).tolist()
    return begun


def _surest(logits: dict[int, Logits], shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """The object whose logit is highest at each pixel `[H, W]`, 0 where none is above 0."""
    ids = np.zeros(shape, np.int32)
    surest = np.zeros(shape, np.float32)
    for number, logit in logits.items():
        mine = logit > surest
        ids[mine] = number
        surest[mine] = logit[mine]
    return ids


def _alike(gone: Iterable[_Thing], look: tracking.Floats) -> _Thing | None:
    """The one of them whose colours are most like these, if any are alike."""
    likeness = {thing.number: float(np.sqrt(thing.look * look).sum()) for thing in gone}
    best = max(gone, key=lambda thing: likeness[thing.number], default=None)
    return best if best is not None and likeness[best.number] >= _ALIKE else None


def _people_table(people: TrackedPeople) -> list[Instance]:
    scores = [float(np.clip(np.nanmean(people.scores[:, p]) * people.belief[p], 0, 1)) for p in range(people.count)]
    return [Instance(p + 1, "person", score, p + 1) for p, score in enumerate(scores)]


def _row(thing: _Thing) -> Instance:
    return Instance(thing.number, thing.name, float(np.mean(thing.votes[thing.name])), thing.number)


def _bounds(mask: npt.NDArray[np.bool_]) -> Box:
    """x0, y0, x1, y1 about a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def _inside(box: Box, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The middle half of a box, each way: less of what is behind."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 4
    x0, y0 = np.clip(np.floor(middle - half), 0, [shape[1] - 1, shape[0] - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(middle + half), [x0 + 1, y0 + 1], [shape[1], shape[0]]).astype(int)
    inside = np.zeros(shape, np.bool_)
    inside[y0:y1, x0:x1] = True
    return inside
