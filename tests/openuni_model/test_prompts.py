"""Prompts of views: what can be asked of a rendered scene, and what training and generation make of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openuni import modalities  # noqa: E402
from openuni.modalities.densepose import DensePose  # noqa: E402
from openuni.modalities.rgb import Rgb  # noqa: E402
from openuni.modalities.segmentation import Instance, Segmentation  # noqa: E402
from openuni.modalities.skeleton import Skeleton  # noqa: E402
from openuni.sample import Annotation, Record  # noqa: E402
from openuni.shards import writer  # noqa: E402
from openuni_model import checkpoint  # noqa: E402
from openuni_model.codecs import PixelCodec  # noqa: E402
from openuni_model.config import preset  # noqa: E402
from openuni_model.data import Buckets, Cursor, Reader, plan_steps  # noqa: E402
from openuni_model.dit import UnifiedDiT  # noqa: E402
from openuni_model.generation import ClipRequest, Sampler, generate  # noqa: E402
from openuni_model.prompts import choose, phrasings, targets  # noqa: E402
from openuni_model.sampling import Guidance  # noqa: E402
from openuni_model.tasks import Stage, StageError  # noqa: E402
from openuni_model.trainer import Schedule, Trainer  # noqa: E402

STAGE = Stage("test", ("segmentation",), prompts=True)
CONFIG = preset("nano", modalities=("rgb", "segmentation"), width=32, ffn=64, layers=2, heads=2, text_width=16,
                text_length=4)  # fmt: skip


def scene(shift: int = 0) -> Segmentation:
    """A box on the left, a larger box on the right, a ball at the top between them."""
    ids = np.zeros((8, 32, 32), np.int32)
    ids[:, 14:20, 2:8] = 3
    ids[:, 14:26, 20:30] = 7
    ids[:, 2:8, 11 + shift : 16 + shift] = 9
    return Segmentation(ids, (Instance(3, "box"), Instance(7, "box"), Instance(9, "ball")))


def embed(text: str) -> torch.Tensor:
    return torch.randn(4, 16, generator=torch.Generator().manual_seed(sum(map(ord, text))))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    root, columns = tmp_path / "scenes", {"rgb": "drawn-1", "segmentation": "drawn-1"}
    keys = [f"scene-{number}" for number in range(6)]
    for number, key in enumerate(keys):
        value = scene(number % 3)
        frames = np.repeat((value.ids * 20).astype(np.uint8)[..., None], 3, axis=3)
        annotations = {"rgb": Annotation(Rgb(frames, 8.0, exact=True)), "segmentation": Annotation(value)}
        writer.save_sample(root, 0, Record(key, 8, 32, 32, 8.0, caption="shapes"), annotations, columns, "run")
    writer.commit_shard(root, 0, keys, columns, "run")
    writer.write_manifest(root, {"source": "scenes"}, columns, 6, 1, "run")
    return root


def reader(scenes: Path, stage: Stage = STAGE, cache: Path | None = None) -> Reader:
    return Reader(str(scenes), stage, Buckets(CONFIG), 0, PixelCodec(), cache)


def trainer(scenes: Path, out: Path, stage: Stage = STAGE) -> Trainer:
    torch.manual_seed(0)
    schedule = Schedule(out, steps=4, global_batch_size=3, lr=1e-3, warmup=2, checkpoint_every=2)
    return Trainer(schedule, UnifiedDiT(CONFIG), reader(scenes, stage), embed)


def test_targets_name_the_right_instances() -> None:
    found = {target.words: target.ids for target in targets(scene())}
    assert found["the two boxes"] == (3, 7)
    assert found["the box on the left"] == (3,)
    assert found["the box on the right"] == (7,)
    assert found["the object at the top"] == (9,)
    assert found["the largest object"] == (7,)
    assert found["the ball"] == (9,)


def crowd() -> tuple[Skeleton, DensePose]:
    """Three people: a small one on the left, a large one at the right, and one who is there in a single frame."""
    boxes = np.full((4, 3, 4), np.nan, np.float32)
    boxes[:, 0], boxes[:, 1], boxes[2, 2] = (2, 10, 8, 20), (40, 4, 60, 40), (20, 20, 22, 24)
    keypoints = np.concatenate([np.full((4, 3, 17, 2), np.nan), np.zeros((4, 3, 17, 1))], axis=-1).astype(np.float32)
    keypoints[:, 0], keypoints[:, 1] = (5, 15, 0.5), (50, 20, 0.5)
    areas = boxes[..., 2] - boxes[..., 0]
    values = np.zeros((4, 48, 64, 4), np.uint8)
    values[:, 10:20, 2:8], values[:, 4:40, 40:60] = (1, 5, 6, 1), (2, 7, 8, 2)
    return Skeleton(keypoints, boxes, np.array([4, 6, 9], np.int32), 48, 64, areas=areas), DensePose(values)


def test_people_are_asked_for_by_side_and_size_in_skeletons_and_densepose() -> None:
    for value, (left, right) in zip(crowd(), ((4, 6), (1, 2)), strict=True):
        found = {target.words: target.ids for target in targets(value)}
        assert found == {
            "the two people": (left, right),
            "the person on the left": (left,),
            "the person on the right": (right,),
            "the person at the top": (left,),
            "the person at the bottom": (right,),
            "the largest person": (right,),
        }
    skeleton, densepose = crowd()
    [right] = [target for target in targets(skeleton) if target.words == "the person on the right"]
    shown = right.select(skeleton)
    modalities.get("skeleton").check(shown)
    assert shown.track_ids.tolist() == [6]
    assert np.array_equal(shown.keypoints[:, 0], skeleton.keypoints[:, 1])
    assert shown.areas is not None
    assert shown.areas.shape == (4, 1)
    [left] = [target for target in targets(densepose) if target.words == "the person on the left"]
    shown_body = left.select(densepose)
    modalities.get("densepose").check(shown_body)
    assert np.unique(shown_body.values[..., 3]).tolist() == [0, 1]
    drawn = {choose(np.random.default_rng(seed), "skeleton", skeleton, STAGE).text for seed in range(200)}
    assert "a skeleton map of the person on the left" in drawn
    assert "the skeletons of all people" in drawn


def test_what_is_in_doubt_or_too_small_is_not_asked_for() -> None:
    ids = np.zeros((2, 40, 40), np.int32)
    ids[:, 10:20, 10:20], ids[:, 22:32, 11:21], ids[:, 0, 0] = 1, 2, 3
    value = Segmentation(ids, (Instance(1, "person"), Instance(2, "person"), Instance(3, "dog")))
    words = [target.words for target in targets(value)]
    assert "the two people" in words
    assert "the two objects" in words
    assert not [text for text in words if "left" in text or "right" in text or "largest" in text or "dog" in text]


def test_held_kinds_and_classes_are_never_asked_for() -> None:
    assert not [t for t in targets(scene(), ("side", "box")) if t.kind == "side" or "box" in t.words]


def test_a_target_shows_its_instances_alone_and_leaves_the_value_as_it_was() -> None:
    value = scene()
    [right] = [target for target in targets(value) if target.words == "the box on the right"]
    shown = right.select(value)
    assert np.array_equal(shown.ids, np.where(value.ids == 7, 7, 0))
    assert [row.id for row in shown.instances] == [7]
    assert set(np.unique(value.ids)) == {0, 3, 7, 9}


def test_a_dropped_prompt_is_empty_and_shows_everything() -> None:
    prompt = choose(np.random.default_rng(0), "segmentation", scene(), replace(STAGE, drop_prompt=1.0))
    assert (prompt.text, prompt.target) == ("", None)
    always = replace(STAGE, drop_prompt=0.0, p_target=0.0)
    asked = {choose(np.random.default_rng(n), "depth", None, always).text for n in range(60)}
    assert asked == set(phrasings("depth"))
    with pytest.raises(StageError, match="probabilities"):
        replace(STAGE, p_target=1.5)


def test_text_and_picture_agree_and_hang_on_seed_and_position_alone(scenes: Path, tmp_path: Path) -> None:
    def examples(of: Reader) -> Iterator[tuple[str, object]]:
        plans = plan_steps(of.data, of.stage, of.fit, clips_of=lambda _: 3, seed=0, cursor=Cursor())
        for _ in range(8):
            for entry in next(plans).entries:
                example = of.load(entry)
                if "segmentation" in example.item.latents:
                    yield example.item.prompts["segmentation"], example.item.latents["segmentation"]

    first, again = list(examples(reader(scenes))), list(examples(reader(scenes, cache=tmp_path / "cache")))
    cached = list(examples(reader(scenes, cache=tmp_path / "cache")))
    assert [text for text, _ in first] == [text for text, _ in again] == [text for text, _ in cached]
    assert all(
        torch.equal(a, b) and torch.equal(a, c) for (_, a), (_, b), (_, c) in zip(first, again, cached, strict=True)
    )
    left = [z for text, z in first if "the box on the left" in text]
    assert left
    assert all((z[:, :, :, 8:] == -1).all() and (z[:, :, 14:20, 2:8] > -1).any() for z in left)


def test_prompts_change_neither_draws_nor_noise(scenes: Path) -> None:
    on, off = reader(scenes), reader(scenes, replace(STAGE, prompts=False))
    plan = next(plan_steps(on.data, STAGE, on.fit, clips_of=lambda _: 6, seed=0, cursor=Cursor()))
    for entry in plan.entries:
        a, b = on.load(entry), off.load(entry)
        assert a.draw == b.draw
        assert b.item.prompts == {}
        assert a.rng.random() == b.rng.random()


def test_training_with_prompts_resumes_bit_for_bit(scenes: Path, tmp_path: Path) -> None:
    whole = [report.loss for report in trainer(scenes, tmp_path / "whole").run()]
    again = trainer(scenes, tmp_path / "again")
    again.restore(tmp_path / "whole" / "checkpoints" / "00000002")
    assert [report.loss for report in again.run()] == whole[2:]
    other = [report.loss for report in trainer(scenes, tmp_path / "off", replace(STAGE, prompts=False)).run()]
    assert other != whole
    with pytest.raises(checkpoint.CheckpointError, match=r"stage\.prompts"):
        trainer(scenes, tmp_path / "x", replace(STAGE, prompts=False)).restore(
            tmp_path / "whole" / "checkpoints" / "00000002"
        )


def test_a_modality_prompt_changes_what_is_generated(scenes: Path, tmp_path: Path) -> None:
    run = trainer(scenes, tmp_path)
    list(run.run())
    rgb = Rgb(np.zeros((8, 32, 32, 3), np.uint8), 8.0)
    request = ClipRequest("k", "", ("segmentation",), {"rgb": rgb}, 8, 32, 32)
    sampler = Sampler(steps=2, guidance=Guidance(controls=(1.0,)))

    def ids(prompts: dict[str, str]) -> np.ndarray:
        [(_, made)] = generate(run.model, PixelCodec(), embed, [replace(request, prompts=prompts)], sampler)
        return made["segmentation"].ids

    own = phrasings("segmentation")[0]
    assert np.array_equal(ids({}), ids({"segmentation": own}))
    assert not np.array_equal(ids({}), ids({"segmentation": "segment the box on the left"}))
