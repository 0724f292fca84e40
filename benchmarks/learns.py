"""Does the smallest model learn? One rendered family at 32², held-out clips, several seeds, simple rivals.

    python benchmarks/learns.py OUT [--family bounce] [--clips 400] [--held-out 32] [--steps 3000] [--seeds 3]

Thresholds, written down before the first run:
1. Depth estimated from RGB: AbsRel at most half that of the best constant, and below 0.9 × that of a linear regressor
   (ridge, from the RGB of a patch to the depth picture of that patch, fitted on the training clips). All predictions
   are aligned to the truth by scale and shift of disparity, a clip at a time, as in `unibench score`.
   The camera of a family looks alike in every clip, so the mean depth picture of the training clips, which sees no
   RGB at all, is a far better rival than both (bounce, 240 clips: AbsRel .120 against .423 and .369). Depth was read
   from RGB only if the model is also below 0.9 × that.
2. Control: RGB painted from true depth; the depth that the linear regressor reads from it lies closer (AbsRel) to the
   control than to the control of another clip, on average.
3. Joint samples: looked at, in OUT/seed-S/samples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

import openuni
from openuni.modalities.depth import Depth, DepthModality
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record, Sample
from openuni.shards import writer
from openuni_model.codecs import PixelCodec
from openuni_model.config import preset
from openuni_model.data import Fit, Reader
from openuni_model.dit import UnifiedDiT
from openuni_model.generate import Sampler, Wish, generate
from openuni_model.sampling import Guidance
from openuni_model.tasks import Stage
from openuni_model.texts import open_text_encoder
from openuni_model.train import Settings, Trainer
from openuni_model.watch import held_out, load, paint_all_ways, sheet
from unibench.metrics.depth import apply_fit, depth_errors, fit, valid_truth
from unibench.render import modalities as truth_of
from unibench.render import render_scene
from unibench.scenes.families import Spec

Floats = npt.NDArray[np.float32]
FRAMES, SIZE, PATCH = 8, 32, (2, 8, 8)
DEPTH = DepthModality()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", default="bounce")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    a = parser.parse_args()
    torch.set_num_threads(1)
    root = a.out / "data"
    if not (root / "dataset.json").is_file():
        render(root, a.family, a.clips, a.held_out)
    data = openuni.open(str(root))
    train = [s for s in data if s.record.split == "train"]
    test = [s for s in data if s.record.split == "val"]
    linear = fit_linear(train)
    rivals = {
        "best constant": [np.zeros((FRAMES, SIZE, SIZE), np.float32) for _ in test],
        "linear on patches": [read_linear(linear, s.rgb.frames / np.float32(255)) for s in test],
        "mean training picture": [np.mean([grey(s.depth) for s in train], axis=0) for _ in test],
    }
    scores = {name: mean_absrel(pictures, test) for name, pictures in rivals.items()}
    print(json.dumps({name: round(score, 4) for name, score in scores.items()}), flush=True)
    results = [run_seed(a.out / f"seed-{seed}", root, seed, a.steps, a.batch, test, linear) for seed in range(a.seeds)]
    estimates = [r["estimated"] for r in results]
    summary = {
        **scores,
        "estimated, by seed": estimates,
        "control, by seed": [[r["to its control"], r["to another's"]] for r in results],
        "1a: half the best constant": [e <= 0.5 * scores["best constant"] for e in estimates],
        "1b: 0.9 of linear": [e <= 0.9 * scores["linear on patches"] for e in estimates],
        "1c: 0.9 of the mean picture": [e <= 0.9 * scores["mean training picture"] for e in estimates],
        "2: follows its control": [r["to its control"] < r["to another's"] for r in results],
    }
    (a.out / "learns.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


def render(root: Path, family: str, clips: int, held: int) -> None:
    columns = {"rgb": "render-1", "depth": "render-1"}
    keys = []
    for number in range(clips + held):
        made = render_scene(Spec(family, number, FRAMES, SIZE, SIZE, 8.0))
        split = "train" if number < clips else "val"
        record = Record(made.key, FRAMES, SIZE, SIZE, 8.0, caption=made.caption, split=split, licence="CC0-1.0")  # type: ignore[arg-type]
        values: dict[str, Annotation[Any] | str] = {"rgb": Annotation(Rgb(made.rgb, 8.0, exact=True)),
                  "depth": Annotation(truth_of(made.truth).depth)}  # fmt: skip
        writer.save_sample(root, 0, record, values, columns, "learns")
        keys.append(made.key)
    writer.commit_shard(root, 0, sorted(keys), columns, "learns")
    writer.write_manifest(root, {"source": family}, columns, len(keys), 1, "learns")


def run_seed(
    out: Path, root: Path, seed: int, steps: int, batch: int, test: Sequence[Sample], linear: Floats
) -> dict[str, float]:
    """Train one model, write its curve and samples, and score it on the held-out clips."""
    torch.manual_seed(seed)
    config = preset("nano")
    model = UnifiedDiT(config)
    embed = open_text_encoder(config)
    codec = PixelCodec()
    reader = Reader(str(root), Stage("learns", ("depth",)), Fit(config), seed, codec, out / "cache")
    settings = Settings(out, steps, clips=batch, lr=1e-3, warmup=100, ema=0.999, checkpoint_every=500)
    trainer = Trainer(settings, model, reader, embed)
    (out / "samples").mkdir(parents=True, exist_ok=True)
    curve = (out / "curve.jsonl").open("w")
    items = [load(reader, s, ("depth",)) for s in held_out(reader.data, reader.fit, ("depth",), 4)]
    for report in trainer.run():
        if report.step % 20 == 0:
            tasks = {"/".join(pair): loss for pair, loss in report.by_task.items()}
            curve.write(json.dumps({"step": report.step, "loss": report.loss, **tasks}) + "\n")
            curve.flush()
        if report.step % 500 == 0 or report.step == steps:
            picture = sheet(paint_all_ways(trainer.model, items, "depth", embed, steps=25), codec)
            cv2.imwrite(str(out / "samples" / f"{report.step:06d}.png"), picture[..., ::-1])
    averaged = UnifiedDiT(config)
    averaged.load_state_dict(trainer.ema)
    sampler = Sampler(steps=25, guidance=Guidance(controls=(1.0,)), batch=16)
    wishes = [Wish(s.key, "", ("depth",), {"rgb": s.rgb}, FRAMES, SIZE, SIZE) for s in test]
    made = {w.key: values for w, values in generate(averaged, codec, embed, wishes, sampler)}
    estimated = mean_absrel([grey(made[s.key]["depth"]) for s in test], test)
    wishes = [Wish(s.key, s.caption, ("rgb",), {"depth": s.depth}, FRAMES, SIZE, SIZE) for s in test]
    made = {w.key: values for w, values in generate(averaged, codec, embed, wishes, sampler)}
    read = [read_linear(linear, made[s.key]["rgb"].frames / np.float32(255)) for s in test]
    result = {
        "estimated": estimated,
        "to its control": mean_absrel(read, test),
        "to another's": mean_absrel(read, [*test[1:], test[0]]),
    }
    print(out.name, json.dumps({name: round(value, 4) for name, value in result.items()}), flush=True)
    return result


def grey(depth: Depth) -> Floats:
    """One channel of the depth picture, `[T, H, W]`."""
    return DEPTH.to_picture(depth)[..., 0]


def mean_absrel(pictures: Sequence[Floats], truth: Sequence[Sample]) -> float:
    """AbsRel of depth pictures, a mean over clips, each aligned by scale and shift of disparity."""
    errors = []
    for picture, sample in zip(pictures, truth, strict=True):
        values = sample.depth.values
        prediction = Depth(np.square(np.clip(picture, 0, 1)), "affine_disparity")
        valid = valid_truth(values)
        fitted = fit(prediction, values, valid, "disparity")
        assert fitted is not None
        errors.append(depth_errors(apply_fit(prediction, fitted)[valid], values[valid].astype(np.float64)).absrel)
    return float(np.mean(errors))


def patches(clip: Floats) -> Floats:
    """`[N, f·h·w·C]` of a clip `[T, H, W, C]`."""
    f, h, w = PATCH
    T, H, W, C = clip.shape
    return clip.reshape(T // f, f, H // h, h, W // w, w, C).transpose(0, 2, 4, 1, 3, 5, 6).reshape(-1, f * h * w * C)


def fit_linear(samples: Sequence[Sample], ridge: float = 10.0) -> Floats:
    x = np.concatenate([patches(s.rgb.frames / np.float32(255)) for s in samples])
    x = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)
    y = np.concatenate([patches(grey(s.depth)[..., None]) for s in samples])
    weights: Floats = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1], dtype=np.float32), x.T @ y)
    return weights


def read_linear(weights: Floats, frames: Floats) -> Floats:
    """The depth picture that the linear regressor reads from RGB `[T, H, W, 3]` in [0, 1]."""
    x = patches(frames)
    y = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1) @ weights
    f, h, w = PATCH
    grid = (FRAMES // f, SIZE // h, SIZE // w)
    return y.reshape(*grid, f, h, w).transpose(0, 3, 1, 4, 2, 5).reshape(FRAMES, SIZE, SIZE)


if __name__ == "__main__":
    main()
