"""The task router, the curriculum and what of a batch is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from openuni_model.batch import Batch, Item, collate, losses  # noqa: E402
from openuni_model.config import ModelConfig  # noqa: E402
from openuni_model.dit import CONDITION, GENERATE, Streams  # noqa: E402
from openuni_model.tasks import STAGES, Draw, Stage, StageError, draw, load_stage, rng_of, shares  # noqa: E402
from tests.openuni_model.conftest import random_model, tiny_config  # noqa: E402

MakeStreams = Callable[..., Streams]
VIEWS = ("depth", "flow", "segmentation", "skeleton", "densepose")


def draws(stage: Stage, count: int, present: tuple[str, ...] = VIEWS) -> list[Draw]:
    return [draw(rng_of(7, "train", i), present, stage, 1.0) for i in range(count)]


def test_tasks_are_drawn_as_often_as_stated_and_views_alike() -> None:
    stage, count = replace(STAGES["2"], drop_control=0.0, p_alone=0.0), 20_000
    drawn = draws(stage, count)
    tasks = Counter(d.task for d in drawn)
    for task, want in (("cond", 0.2), ("est", 0.3), ("joint", 0.5)):
        assert tasks[task] / count == pytest.approx(want, abs=4 * (want * (1 - want) / count) ** 0.5)  # type: ignore[index]
    first = Counter(d.views[1] for d in drawn)
    assert all(first[view] / count == pytest.approx(0.2, abs=0.015) for view in VIEWS)
    assert sum(len(d.views) > 2 for d in drawn) / count == pytest.approx(1 - 0.8**4, abs=0.015)
    times = [d.times for d in drawn if d.task == "joint" and len(d.views) == 2]
    assert sum(a == b for a, b in times) / len(times) == pytest.approx(0.5, abs=0.02)


def test_roles_and_times_follow_the_task() -> None:
    for d in draws(replace(STAGES["2"], p_alone=0.0), 2000):
        rgb = d.roles[d.views.index("rgb")] if "rgb" in d.views else None
        aux = {role for view, role in zip(d.views, d.roles, strict=True) if view != "rgb"}
        if d.task == "cond":
            assert rgb == GENERATE
            assert aux <= {CONDITION}
        elif d.task == "est":
            assert rgb in (CONDITION, None)
            assert aux == {GENERATE}
            assert not d.caption
        else:
            assert rgb == GENERATE
            assert aux == {GENERATE}
        assert all((t == 0) == (role == CONDITION) for t, role in zip(d.times, d.roles, strict=True))
        assert GENERATE in d.roles


def test_captions_and_controls_are_dropped_as_often_as_stated() -> None:
    drawn = draws(replace(STAGES["2"], p_alone=0.0), 20_000)
    said = [d.caption for d in drawn if d.task != "est"]
    assert said.count(False) / len(said) == pytest.approx(0.1, abs=0.01)
    controlled = [CONDITION in d.roles for d in drawn if d.task != "joint"]
    assert controlled.count(False) / len(controlled) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("p_alone", [0.0, 0.2])
def test_shares_are_those_that_are_drawn(p_alone: float) -> None:
    stage, count = replace(STAGES["2"], p_alone=p_alone, p_more=0.3, drop_control=0.4, drop_text=0.3), 5_000
    drawn, said = draws(stage, count), shares(stage)
    assert sum(said.views) == pytest.approx(1)
    views = Counter(len(set(d.views) - {"rgb"}) for d in drawn)
    alone = sum(d.views == ("rgb",) and not d.caption for d in drawn)
    for got, want in [(alone, said.alone), *((views[k], share) for k, share in enumerate(said.views))]:
        assert got / count == pytest.approx(want, abs=4 * (want * (1 - want) / count) ** 0.5)


def test_without_p_alone_the_numbers_after_a_draw_are_as_before_it_was_there() -> None:
    """The noise comes from the same generator: 1 + 5 permuted, 5 more, 3 chances and 6 times."""
    ours, theirs = rng_of(7, "train", 0), rng_of(7, "train", 0)
    draw(ours, VIEWS, replace(STAGES["2"], p_alone=0.0), 1.0)
    theirs.choice(3, p=(0.2, 0.3, 0.5)), theirs.permutation(5), theirs.random(5), theirs.random(3)
    theirs.standard_normal(6)
    assert ours.random() == theirs.random()
    for d in draws(replace(STAGES["2"], p_alone=1.0), 50):
        assert (d.views, d.roles, d.caption) == (("rgb",), (GENERATE,), False)
        assert 0 < d.times[0] < 1


def test_a_clip_without_the_stages_views_trains_text_to_video_alone() -> None:
    for d in draws(replace(STAGES["1"], p_alone=0.0), 50, ("segmentation",)):
        assert (d.task, d.views, d.roles) == ("joint", ("rgb",), (GENERATE,))


def test_draws_depend_on_seed_and_position_only() -> None:
    assert draws(STAGES["2"], 20) == draws(STAGES["2"], 20)
    assert len(set(draws(STAGES["2"], 20))) == 20
    a, b = rng_of(1, "train", 5).standard_normal(4), rng_of(1, "validate", 5).standard_normal(4)
    assert not (a == b).any()


def test_a_user_writes_a_stage_as_toml_and_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('modalities = ["depth"]\nsteps = 10\np_cond = 0.0\np_est = 1.0\np_joint = 0.0\n')
    stage = load_stage(str(path))
    assert (stage.name, stage.modalities, stage.steps, stage.p_est) == ("mine", ("depth",), 10, 1.0)
    for text, message in (
        ('modalities = ["depth"]\np_est = 0.9\n', "sum to 1"),
        ('modalites = ["depth"]\n', "modalites"),
        ("steps = 4\n", "modalities"),
        ("steps = \n", "mine.toml"),
        ('modalities = ["rgb"]\n', "RGB"),
    ):
        path.write_text(text)
        with pytest.raises(StageError, match=message):
            load_stage(str(path))
    with pytest.raises(StageError, match="no stage"):
        load_stage("3")


def batch_of(config: ModelConfig, stage: Stage, count: int) -> Batch:
    torch.manual_seed(0)
    size = (config.channels, 2, 4, 4)
    items = [Item(f"clip{i}", f"caption {i}", {v: torch.randn(size) for v in config.modalities}) for i in range(count)]
    rngs = [rng_of(0, "train", i) for i in range(count)]
    drawn = [draw(rng, ("depth", "flow"), stage, config.shift) for rng in rngs]
    seen: dict[str, torch.Tensor] = {}

    def embed(text: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(len(seen))
        return seen.setdefault(text, torch.randn(config.text_length, config.text_width, generator=generator))

    return collate(items, drawn, rngs, config, embed)


STAGE = Stage("test", ("depth", "flow"), p_more=0.3, p_alone=0.0)


def test_a_batch_holds_each_stream_with_its_truth_text_and_clean_conditions() -> None:
    config = tiny_config()
    batch = batch_of(config, STAGE, 24)
    s = batch.streams
    assert sum(s.counts) == len(batch.keys) == len(s.x_PCFHW)
    assert list(s.counts) == sorted(s.counts, reverse=True)
    assert len(set(batch.keys)) == 24
    clean = s.role_P == CONDITION
    assert torch.equal(s.x_PCFHW[clean], batch.x0_PCFHW[clean])
    t = s.t_P.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(s.x_PCFHW, (1 - t) * batch.x0_PCFHW + t * batch.noise_PCFHW)
    depth = [i for i, view in enumerate(batch.views) if view == "depth"]
    assert all(torch.equal(s.text_PLT[i], s.text_PLT[depth[0]]) for i in depth)
    captions = {k for k, task in zip(batch.keys, batch.tasks, strict=True) if task != "est"}
    without = batch_of(tiny_config(in_context=False), STAGE, 24)
    for key in captions:  # all views of a clip read one text: its caption
        rows = [i for i, k in enumerate(without.keys) if k == key]
        assert all(torch.equal(without.streams.text_PLT[i], without.streams.text_PLT[rows[0]]) for i in rows)
    assert len(without.streams.text_PLT.unique(dim=0)) > len(captions) * 0.7


@pytest.mark.parametrize("prediction", ["x", "v"])
def test_the_loss_ignores_the_output_of_clean_streams(prediction: str) -> None:
    config = tiny_config(prediction=prediction)
    batch = batch_of(config, STAGE, 16)
    out = torch.randn_like(batch.x0_PCFHW, requires_grad=True)
    loss = losses(out, batch, config)
    loss.sum().backward()
    assert out.grad is not None
    moved = out.grad.abs().sum((1, 2, 3, 4)) > 0
    assert torch.equal(moved, batch.streams.role_P == GENERATE)
    disturbed = torch.where((batch.streams.role_P == CONDITION).view(-1, 1, 1, 1, 1), out + 9.0, out)
    assert torch.equal(losses(disturbed, batch, config), loss)


def test_the_loss_of_a_batch_is_the_sum_of_its_clips_so_its_split_over_ranks_does_not_matter() -> None:
    config = tiny_config()
    batch, model = batch_of(config, STAGE, 10), random_model(tiny_config())
    whole = losses(model(batch.streams), batch, config).sum() / 10
    (want,) = torch.autograd.grad(whole, [model.in_weight_KDI])
    got, start = torch.zeros_like(want), 0
    for count in batch.streams.counts:  # ten "ranks", each with one clip of another task and modality
        span = slice(start, start + count)
        s = batch.streams
        one = Streams(s.x_PCFHW[span], s.t_P[span], s.modality_P[span], s.role_P[span], s.text_PLT[span], (count,))
        part = replace(batch, streams=one, x0_PCFHW=batch.x0_PCFHW[span], noise_PCFHW=batch.noise_PCFHW[span])
        got += torch.autograd.grad(losses(model(one), part, config).sum() / 10, [model.in_weight_KDI])[0]
        start += count
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
