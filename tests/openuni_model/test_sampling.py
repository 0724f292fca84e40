"""Guidance and sampling."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from openuni import modalities  # noqa: E402
from openuni_model.config import ModelConfigError  # noqa: E402
from openuni_model.dit import Streams  # noqa: E402
from openuni_model.flow import solve, timesteps, velocity  # noqa: E402
from openuni_model.sampling import Guidance, LatentRequest, Pass, noise_of, passes, sample_views  # noqa: E402
from tests.openuni_model.conftest import random_model, tiny_config  # noqa: E402

SIZE = (2, 4, 4)


def embed(text: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(map(ord, text)))
    return torch.randn(7, 24, generator=generator)


def latent(seed: int) -> torch.Tensor:
    return torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(seed))


def test_passes_are_the_three_terms_and_those_of_weight_zero_are_not_run() -> None:
    assert passes(Guidance(text=7.5), True) == [Pass(0, False, -6.5), Pass(0, True, 7.5)]
    assert passes(Guidance(text=7.5, controls=(2.0,)), True) == [
        Pass(0, False, -1.0), Pass(1, False, -5.5), Pass(1, True, 7.5)]  # fmt: skip
    assert passes(Guidance(), False) == [Pass(0, False, 1.0)]
    assert passes(Guidance(text=1.0, controls=(1.0,)), True) == [Pass(1, True, 1.0)]
    assert passes(Guidance(text=3.0, controls=(1.0, 1.0)), True) == [Pass(2, False, -2.0), Pass(2, True, 3.0)]
    assert passes(Guidance(text=9.0, controls=(2.0,)), False) == [Pass(0, False, -1.0), Pass(1, False, 2.0)]


@torch.no_grad()
@pytest.mark.parametrize("solver", ["euler", "adams"])
@pytest.mark.parametrize("prediction", ["x", "v"])
def test_batched_guidance_is_the_formula_evaluated_call_by_call(solver: str, prediction: str) -> None:
    """Two controls of different strength: against the sum of separate, unbatched evaluations of the model."""
    config = tiny_config(prediction=prediction)
    model = random_model(config, scale=0.1)
    controls = {"depth": latent(1), "flow": latent(2)}
    request = LatentRequest("clip", "a red ball", ("rgb",), controls, SIZE, seed=3)
    w_depth, w_flow, w_text = 1.5, 0.7, 4.0

    def v(x: torch.Tensor, t: float, names: list[str], caption: str) -> torch.Tensor:
        rows = ["rgb", *names]
        x_P = torch.stack([x, *(controls[n] for n in names)])
        t_P = torch.tensor([t] + [0.0] * len(names))
        texts = [caption, *(modalities.get(n).prompt for n in names)]
        streams = Streams(
            x_P, t_P, torch.tensor([config.index(r) for r in rows]), torch.tensor([0] + [1] * len(names)),
            torch.stack([embed(text) for text in texts]), (len(rows),),
        )  # fmt: skip
        return velocity(model(streams)[:1], x[None], t_P[:1], config.prediction)[0]

    def field(x: torch.Tensor, t: float) -> torch.Tensor:
        x = x[0]
        nothing, one, two = v(x, t, [], ""), v(x, t, ["depth"], ""), v(x, t, ["depth", "flow"], "")
        full = v(x, t, ["depth", "flow"], "a red ball")
        return (nothing + w_depth * (one - nothing) + w_flow * (two - one) + w_text * (full - two))[None]

    want = solve(field, torch.stack(noise_of(request, 4)), timesteps(5, config.shift), solver)[0]  # type: ignore[arg-type]
    guidance = Guidance(w_text, (w_depth, w_flow))
    got = sample_views(model, [request], embed, guidance=guidance, steps=5, solver=solver)[0]["rgb"]  # type: ignore[arg-type]
    torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_a_negative_prompt_takes_the_place_of_the_empty_caption_and_the_shift_that_of_the_model() -> None:
    """v(n) + w [v(c) − v(n)] by hand; without a caption c is the empty one, and batch mates change nothing."""
    config = tiny_config()
    model = random_model(config, scale=0.1)
    captions = ("a red ball", "")
    requests = [LatentRequest(caption or "none", caption, ("rgb",), {}, SIZE) for caption in captions]
    guidance = Guidance(4.0, negative="blurred")
    got = sample_views(model, requests, embed, guidance=guidance, steps=4, shift=1.5)
    for request, made in zip(requests, got, strict=True):

        def v(x: torch.Tensor, t: float, caption: str) -> torch.Tensor:
            t_P = torch.tensor([t])
            zeros = torch.zeros(1, dtype=torch.long)
            return velocity(model(Streams(x, t_P, zeros, zeros, embed(caption)[None], (1,))), x, t_P, "v")

        def field(x: torch.Tensor, t: float, caption: str = request.caption) -> torch.Tensor:
            away = v(x, t, "blurred")
            return away + 4.0 * (v(x, t, caption) - away)

        want = solve(field, torch.stack(noise_of(request, 4)), timesteps(4, 1.5), "euler")[0]
        torch.testing.assert_close(made["rgb"], want, atol=2e-4, rtol=1e-4)
    plain = sample_views(model, requests, embed, guidance=Guidance(4.0), steps=4)
    own = sample_views(model, requests, embed, guidance=Guidance(4.0), steps=4, shift=config.shift)
    assert all(torch.equal(a["rgb"], b["rgb"]) for a, b in zip(plain, own, strict=True))
    assert (plain[0]["rgb"] - got[0]["rgb"]).abs().max() > 0.1


def test_a_clip_is_generated_alike_alone_and_among_others_and_by_its_seed() -> None:
    model = random_model(tiny_config(), scale=0.1)
    requests = [LatentRequest(f"k{i}", f"text {i}", ("rgb", "depth"), {}, SIZE) for i in range(3)]
    together = sample_views(model, requests, embed, guidance=Guidance(3.0), steps=3)
    alone = sample_views(model, requests[1:2], embed, guidance=Guidance(3.0), steps=3)[0]
    for view in ("rgb", "depth"):
        torch.testing.assert_close(together[1][view], alone[view], atol=1e-5, rtol=1e-4)
    other = sample_views(model, [LatentRequest("k1", "text 1", ("rgb", "depth"), {}, SIZE, seed=1)], embed,
                  guidance=Guidance(3.0), steps=3)[0]  # fmt: skip
    assert (other["rgb"] - alone["rgb"]).abs().max() > 0.1


def test_requests_that_do_not_fit_together_are_refused() -> None:
    model = random_model(tiny_config())
    a, b = LatentRequest("a", "", ("rgb",), {}, SIZE), LatentRequest("b", "", ("depth",), {}, SIZE)
    with pytest.raises(ModelConfigError, match="together"):
        sample_views(model, [a, b], embed, guidance=Guidance(), steps=1)
    with pytest.raises(ModelConfigError, match="strengths"):
        sample_views(model, [a], embed, guidance=Guidance(controls=(1.0,)), steps=1)
