"""VBench's arithmetic with injected measures, against slow loops over the steps of its published code."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from unibench.metrics.video import (
    NORMALISATION,
    Measures,
    Video,
    VideoMetric,
    consistency,
    dis_flow,
    dynamic_degree,
    is_static,
    middle_frames,
    motion_smoothness,
    normalised,
    quality_score,
    temporal_flickering,
    top_motion,
)


def noise(seed: int, frames: int = 9, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_consistency_equals_a_slow_loop(seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(7, 5))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))

    total = 0.0
    for i in range(1, 7):
        total += (max(0.0, cosine(features[i - 1], features[i])) + max(0.0, cosine(features[0], features[i]))) / 2
    assert consistency(features) == pytest.approx(total / 6, rel=1e-9)


def test_flickering_is_a_numpy_line() -> None:
    frames = noise(0)
    line = (255 - np.abs(np.diff(frames.astype(np.float64), axis=0)).mean()) / 255
    assert temporal_flickering(frames) == pytest.approx(line, rel=1e-12)


@pytest.mark.parametrize("count", [3, 4, 9, 10])
def test_smoothness_compares_odd_frames_with_interpolated_ones(count: int) -> None:
    frames = noise(1, count)

    def half_way(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a.astype(int) + b) // 2).astype(np.uint8)

    misses = []
    for i in range(1, count - 1, 2):
        misses.append(np.abs(frames[i].astype(float) - half_way(frames[i - 1], frames[i + 1])).mean())
    assert motion_smoothness(frames, half_way) == pytest.approx((255 - np.mean(misses)) / 255, rel=1e-12)


def test_top_motion_is_the_mean_of_the_longest() -> None:
    flow = np.random.default_rng(2).normal(size=(30, 20, 2))
    lengths = sorted((math.hypot(u, v) for u, v in flow.reshape(-1, 2)), reverse=True)
    assert top_motion(flow, 0.05) == pytest.approx(sum(lengths[:30]) / 30, rel=1e-9)


def moving(lengths: list[float]) -> tuple[np.ndarray, object]:
    """Frames whose first pixel numbers them, and a flow that moves pair i by lengths[i]."""
    frames = np.zeros((len(lengths) + 1, 32, 40, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(len(frames))

    def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        first, second = int(a[0, 0, 0]), int(b[0, 0, 0])
        length = lengths[first] if second == first + 1 else 0.0
        return np.stack([np.full((32, 40), length), np.zeros((32, 40))], axis=-1)

    return frames, flow


def slow_dynamic(lengths: list[float], frames: int, side: int) -> bool:
    count = 0
    for length in lengths:
        count += length > 6.0 * (side / 256.0)
        if count >= round(4 * (frames / 16.0)):
            return True
    return False


@pytest.mark.parametrize("seed", range(20))
def test_dynamic_degree_equals_the_published_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = (rng.random(int(rng.integers(1, 24))) * 1.5).tolist()
    frames, flow = moving(lengths)
    result = dynamic_degree(frames, 8.0, flow)
    assert result.dynamic == slow_dynamic(lengths, len(frames), 32)
    if round(4 * len(frames) / 16) > 0:
        assert result.dynamic == (result.motion > 6)


def test_dynamic_degree_takes_about_eight_frames_a_second() -> None:
    seen = []
    frames, _ = moving([0.0] * 12)

    def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        seen.append((int(a[0, 0, 0]), int(b[0, 0, 0])))
        return np.zeros((32, 40, 2))

    dynamic_degree(frames, 24.0, flow)
    assert seen == [(0, 3), (3, 6), (6, 9), (9, 12)]


def slow_static(lengths: list[float], ends: list[float], frames: int, side: int) -> bool:
    threshold, allowed = 3.0 * (side / 256.0), round(2 * (frames / 16.0))
    count = 0
    for length in lengths:
        count += length > threshold
        if count > allowed:
            return False
    return all(end <= threshold * allowed * 2 for end in ends)


@pytest.mark.parametrize("seed", range(20))
def test_the_static_filter_equals_the_published_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = (rng.random(int(rng.integers(3, 24))) * 0.45).tolist()
    end = float(rng.random() * 3)
    frames, inner = moving(lengths)

    def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if int(b[0, 0, 0]) == int(a[0, 0, 0]) + 1:
            return inner(a, b)
        return np.stack([np.full((32, 40), end), np.zeros((32, 40))], axis=-1)

    assert is_static(frames, flow) == slow_static(lengths, [end, end], len(frames), 32)


def test_the_quality_score_is_the_published_weighted_mean() -> None:
    values = dict.fromkeys(NORMALISATION, 0.8) | {"overall_consistency": math.nan}
    ranges = {"subject_consistency": 0.1462, "background_consistency": 0.2615, "temporal_flickering": 0.6293}
    expected = sum((0.8 - low) / (1 - low) for low in ranges.values())
    expected += (0.8 - 0.706) / (0.9975 - 0.706) + 0.5 * 0.8 + 0.8 + 0.8
    assert quality_score(values) == pytest.approx(expected / 6.5, rel=1e-12)
    assert normalised(values)["dynamic_degree"] == 0.8
    assert math.isnan(quality_score(values | {"imaging_quality": math.nan}))


def test_middle_frames_are_the_middles_of_equal_spans() -> None:
    assert middle_frames(np.arange(80)).tolist() == [4, 14, 24, 34, 44, 54, 64, 74]
    assert middle_frames(np.arange(8)).tolist() == list(range(8))
    assert middle_frames(np.arange(3)).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]


def test_a_dimension_without_its_measure_is_undefined_and_stand_ins_have_their_own_names() -> None:
    scores = VideoMetric().update("k", Video(noise(3), 8.0, "a prompt"))
    for name in NORMALISATION:
        assert math.isnan(scores[name].value), name
    assert math.isfinite(scores["dis_dynamic_degree"].value)
    assert math.isfinite(scores["flickering_unfiltered"].value)


def test_every_dimension_with_injected_measures() -> None:
    frames = noise(4)
    features = np.random.default_rng(5).normal(size=(9, 6))
    measures = Measures(
        subject=lambda _: features,
        background=lambda _: features[::-1],
        flow=lambda a, _: np.zeros((*a.shape[:2], 2)),
        interpolate=lambda a, _: a,
        aesthetic=lambda _: np.linspace(4, 6, 9),
        imaging=lambda _: np.linspace(60, 80, 9),
        overall=lambda chosen, prompt: len(chosen) / 100 + len(prompt) / 1000,
    )
    metric = VideoMetric(measures)
    scores = metric.update("k", Video(frames, 8.0, "ten chars."))
    assert scores["subject_consistency"] == (consistency(features), 8)
    assert scores["background_consistency"].value == consistency(features[::-1])
    assert scores["temporal_flickering"].value == temporal_flickering(frames)  # nothing moves, so it passes the filter
    assert scores["dynamic_degree"].value == 0
    assert scores["aesthetic_quality"].value == pytest.approx(0.5)
    assert scores["imaging_quality"].value == pytest.approx(0.7)
    assert scores["overall_consistency"].value == pytest.approx(0.09)
    assert math.isfinite(metric.compute()["quality_score"])


def test_flickering_is_measured_on_static_videos_only() -> None:
    restless = Measures(flow=lambda a, _: np.full((*a.shape[:2], 2), 50.0))
    scores = VideoMetric(restless).update("k", Video(noise(6), 8.0))
    assert math.isnan(scores["temporal_flickering"].value)
    assert scores["dynamic_degree"].value == 1


def test_one_frame_is_undefined_not_perfect() -> None:
    measures = Measures(subject=lambda f: np.ones((len(f), 3)), interpolate=lambda a, _: a)
    scores = VideoMetric(measures).update("k", Video(noise(7, 1), 8.0))
    for name in ("subject_consistency", "flickering_unfiltered", "motion_smoothness"):
        assert math.isnan(scores[name].value), name


def test_metrics_join_through_json() -> None:
    one, two = VideoMetric(), VideoMetric()
    one.update("a", Video(noise(8), 8.0))
    two.update("b", Video(noise(9), 8.0))
    one.merge(json.loads(json.dumps(two.state())))
    assert math.isnan(one.compute()["quality_score"])


def test_dis_sees_a_shift() -> None:
    texture = np.kron(noise(10, 1, 16, 16)[0], np.ones((8, 8, 1), np.uint8))
    texture = np.stack([np.roll(texture, 3 * t, axis=1) for t in range(2)])
    flow = dis_flow(texture[0], texture[1])
    assert np.median(flow[20:-20, 20:-20, 0]) == pytest.approx(3, abs=0.2)
