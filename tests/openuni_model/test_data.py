"""The order of training, what is read, and that the cache changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import openuni  # noqa: E402
from openuni.sample import Record  # noqa: E402
from openuni_model.codecs import PixelCodec  # noqa: E402
from openuni_model.config import preset  # noqa: E402
from openuni_model.data import (  # noqa: E402
    Bucket,
    Buckets,
    Cursor,
    DataError,
    Plan,
    Reader,
    centre_box,
    load_steps,
    picture,
    plan_steps,
    survey,
)
from openuni_model.tasks import Stage  # noqa: E402
from tests.openuni_model.conftest import T, moving_disc  # noqa: E402

STAGE = Stage("test", ("depth", "flow"), p_more=0.3, p_alone=0.0, prompts=False)
NANO = preset("nano", modalities=("rgb", "depth", "flow"))
FIT = Buckets(NANO)


def test_the_survey_counts_what_is_trained_and_why_the_rest_is_not(discs: Path) -> None:
    found = survey(openuni.open(str(discs)), STAGE, FIT)
    assert found.clips == 10
    assert found.buckets == {Bucket(8, 24, 40): 9, Bucket(2, 24, 40): 1}
    assert found.views == {"depth": 9, "flow": 10}
    assert found.dropped == {"split val": 2}
    assert survey(openuni.open(str(discs)), STAGE, Buckets(replace(NANO, frames=16))).dropped == {
        "split val": 2, "fewer than 4 frames": 1}  # fmt: skip


def test_a_stage_that_the_data_cannot_serve_is_refused(discs: Path) -> None:
    data = openuni.open(str(discs))
    with pytest.raises(DataError, match=r"no clip of stage s has skeleton.*--modalities"):
        survey(data, Stage("s", ("depth", "skeleton")), FIT)
    with pytest.raises(DataError, match="10 subset general, 2 split val"):
        survey(data, Stage("s", ("depth",), ("two_person",)), FIT)


def positions(discs: Path, cursor: Cursor, steps: int, clips: int = 3) -> list[tuple[int, ...]]:
    plans = plan_steps(openuni.open(str(discs)), STAGE, FIT, clips_of=lambda _: clips, seed=4, cursor=cursor)
    return [tuple(entry.position for entry in plan.entries) for plan in islice(plans, steps)]


def test_every_clip_is_taken_once_an_epoch_and_a_step_has_one_size(discs: Path) -> None:
    plans = plan_steps(openuni.open(str(discs)), STAGE, FIT, clips_of=lambda _: 3, seed=4, cursor=Cursor())
    steps = list(islice(plans, 40))
    assert all(len({entry.bucket for entry in step.entries}) == 1 for step in steps)
    epochs: dict[int, Counter[str]] = {}
    for step in steps:
        for entry in step.entries:
            epochs.setdefault(entry.position // 12, Counter())[entry.key] += 1
    assert all(count == 1 for epoch in epochs.values() for count in epoch.values())
    # What the first epochs lack still waits for its bucket to fill.
    waiting = {position // 12 for position in steps[-1].after.waiting}
    for epoch in range(8):
        assert len(epochs[epoch]) == 10 or epoch in waiting
    order = [tuple(e.key for e in s.entries) for s in steps]
    assert len(set(order)) > 30


def test_a_step_may_take_more_of_smaller_clips(discs: Path) -> None:
    """Steps bounded by tokens hold each clip of an epoch once too, and go on from every cursor."""

    def clips_of(bucket: Bucket) -> int:
        return FIT.most_tokens // FIT.tokens(bucket)

    def steps(cursor: Cursor, count: int) -> list[Plan]:
        plans = plan_steps(openuni.open(str(discs)), STAGE, FIT, clips_of=clips_of, seed=4, cursor=cursor)
        return list(islice(plans, count))

    everything = steps(Cursor(), 60)
    sizes = {(step.entries[0].bucket.frames, len(step.entries)) for step in everything}
    assert sizes == {(8, 1), (2, 4)}
    assert all(len(step.entries) * FIT.tokens(step.entries[0].bucket) <= FIT.most_tokens for step in everything)
    positions = [entry.position for step in everything for entry in step.entries]
    assert len(set(positions)) == len(positions)
    for done in range(0, 50, 7):
        assert steps(everything[done].after, 4) == everything[done + 1 : done + 5]


def test_the_order_continues_exactly_from_every_cursor(discs: Path) -> None:
    plans = list(
        islice(plan_steps(openuni.open(str(discs)), STAGE, FIT, clips_of=lambda _: 3, seed=4, cursor=Cursor()), 12)
    )
    everything = positions(discs, Cursor(), 12)
    for done in range(11):
        assert positions(discs, plans[done].after, 11 - done) == everything[done + 1 :]


def reader(discs: Path, cache: Path | None = None) -> Reader:
    return Reader(str(discs), STAGE, FIT, 4, PixelCodec(), cache)


def test_pictures_are_cropped_at_the_centre_and_resized(discs: Path) -> None:
    sample = openuni.open(str(discs))["disc-00"]
    got = picture(sample, "rgb", Bucket(4, 36, 36), 1, NANO)
    want = moving_disc(0)[0][4:8, :, 6:42] / 255
    np.testing.assert_allclose(got, want, atol=1e-6)
    depth = picture(sample, "depth", Bucket(8, 18, 24), 0, NANO)
    assert depth.shape == (8, 18, 24, 3)
    box = centre_box(100, 200, Bucket(1, 32, 32))
    assert (box.x0, box.y0, box.x1, box.y1) == (50, 0, 150, 100)
    assert T == 8


def test_only_drawn_views_are_read_and_clips_without_a_view_still_train(discs: Path) -> None:
    plans = plan_steps(openuni.open(str(discs)), STAGE, FIT, clips_of=lambda _: 3, seed=4, cursor=Cursor())
    r = reader(discs)
    for plan in islice(plans, 20):
        for entry in plan.entries:
            example = r.load(entry)
            assert set(example.item.latents) == set(example.draw.views)
            if entry.key == "disc-05":
                assert "depth" not in example.draw.views
            shape = (3, entry.bucket.frames, entry.bucket.height, entry.bucket.width)
            assert all(z.shape == shape for z in example.item.latents.values())


def test_the_cache_changes_nothing_and_is_used(discs: Path, tmp_path: Path) -> None:
    plain, cached = reader(discs), reader(discs, tmp_path)
    plan = next(plan_steps(openuni.open(str(discs)), STAGE, FIT, clips_of=lambda _: 3, seed=4, cursor=Cursor()))
    for _ in range(2):
        for entry in plan.entries:
            a, b = plain.load(entry), cached.load(entry)
            assert a.draw == b.draw
            assert all(torch.equal(a.item.latents[v], b.item.latents[v]) for v in a.draw.views)
            assert a.rng.random() == b.rng.random()
    files = sorted(tmp_path.rglob("*.npy"))
    assert files
    np.save(files[0], np.load(files[0]) * 0)
    changed = [v for e in plan.entries for v, z in cached.load(e).item.latents.items() if not z.any()]
    assert changed


def test_samples_of_a_dataset_at_a_url_are_kept_here(discs: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").put(str(discs), "/bucket/discs", recursive=True)
    plain = reader(discs)
    far = replace(plain, url="memory://bucket/discs", data_cache=tmp_path / "near", data_cache_size=10**6)
    plan = next(plan_steps(far.data, STAGE, FIT, clips_of=lambda _: 3, seed=4, cursor=Cursor()))
    for entry in plan.entries:
        a, b = plain.load(entry), far.load(entry)
        assert all(torch.equal(a.item.latents[v], b.item.latents[v]) for v in a.draw.views)
    assert list((tmp_path / "near").glob("??/*"))


def test_windows_of_a_long_clip_are_drawn_and_short_clips_take_a_shorter_bucket() -> None:
    fit = Buckets(replace(NANO, frames=32, size=64))
    assert [fit.bucket(Record("a", n, 64, 64, 8.0)) for n in (40, 20, 8, 7)] == [
        Bucket(32, 64, 64), Bucket(16, 64, 64), Bucket(8, 64, 64), None]  # fmt: skip
    assert fit.bucket(Record("a", 40, 1080, 1920, 8.0)) == Bucket(32, 48, 88)
    wan = Buckets(preset("1.3b", modalities=("rgb",)))
    assert [wan.bucket(Record("a", n, 480, 640, 8.0)) for n in (81, 20, 9, 4)] == [
        Bucket(33, 224, 288), Bucket(13, 224, 288), Bucket(5, 224, 288), None]  # fmt: skip


@pytest.mark.slow
def test_three_workers_and_two_ranks_load_what_one_process_does(discs: Path) -> None:
    def steps(rank: int, world: int, workers: int) -> list[list[tuple[str, float]]]:
        plans = plan_steps(openuni.open(str(discs)), STAGE, FIT, clips_of=lambda _: 4, seed=4, cursor=Cursor())
        loaded = load_steps(reader(discs), plans, rank=rank, world=world, accumulate=2, workers=workers)
        return [
            [(e.item.key, float(e.rng.random())) for micro in micros for e in micro]
            for _, micros in islice(loaded, 5)
        ]  # fmt: skip

    alone = steps(0, 1, 0)
    assert steps(0, 1, 3) == alone
    halves = [steps(rank, 2, 0) for rank in range(2)]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert sorted(first + second) == sorted(whole)
