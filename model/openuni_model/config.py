"""The shape of a model: one frozen dataclass, written beside every checkpoint, and its presets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from openuni import registry
from openuni.errors import OpenUniError

Prediction = Literal["x", "v"]
CodecName = Literal["pixel", "wan2.1", "wan2.2"]
TextName = Literal["minilm", "umt5"]


class ModelConfigError(OpenUniError):
    """A configuration that describes no model, or another model than the weights at hand."""


_MOST = {
    "width": 1 << 16,
    "ffn": 1 << 18,
    "layers": 512,
    "heads": 1024,
    "channels": 1 << 12,
    "text_width": 1 << 16,
    "text_length": 1 << 14,
    "frames": 1 << 14,
    "size": 1 << 14,
    "frequencies": 1 << 16,
}
"""Far beyond any model: a configuration from outside must not ask for all memory before its weights are looked at."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What decides the parameters' shapes and what they mean.

    `modalities` are the views the model knows, RGB among them; a view's index here is its row in every stacked
    parameter. `channels` are those of the codec's latents, `patch` (frames, rows, columns) of one token in latent
    units. `prediction` says what the network generates: the clean latents (`x`) or the velocity noise − clean (`v`).
    It is trained on, and by default generates, clips of at most `frames` frames with an area of about `size`² pixels.
    `shift` is the timestep shift of training *and* sampling. `switcher` and `in_context` turn off the paper's two
    modules (section 4.2.2) for ablation. With `rope="width_offset"` stream j takes columns jW … (j+1)W − 1, as in
    the public UnityVideo weights; `same` gives every view of a pixel the same position. `absolute` also adds a
    fixed sine-cosine code of its position to every token; Wan has none, and the pixel presets need it (docs/model.md).

    As the public UnityVideo weights have them: `own_tables` gives each modality an output modulation of its own;
    `clean_time="shared"` tells a clean stream the time of the clip's noisy ones rather than 0; `pictures` says how
    views are drawn and which prompts name them.
    """

    width: int
    ffn: int
    layers: int
    heads: int
    channels: int
    patch: tuple[int, int, int]
    prediction: Prediction
    shift: float
    codec: CodecName
    text: TextName
    text_width: int
    text_length: int
    modalities: tuple[str, ...]
    frames: int
    size: int
    switcher: bool = True
    in_context: bool = True
    rope: Literal["same", "width_offset"] = "same"
    absolute: bool = False
    own_tables: bool = False
    clean_time: Literal["zero", "shared"] = "zero"
    pictures: Literal["openuni", "unityvideo"] = "openuni"
    frequencies: int = 256
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ModelConfigError(f"{name} {getattr(self, name)}: it must lie in 1 to {most:,}")
        if min(self.patch) < 1:
            raise ModelConfigError(f"patch {self.patch}: its sides must be 1 or more")
        if self.frames < self.patch[0]:
            raise ModelConfigError(
                f"frames {self.frames}: a token takes {self.patch[0]}, so it must be as many or more"
            )
        if self.width % self.heads or (self.width // self.heads) % 2 or self.width // self.heads < 6:
            raise ModelConfigError(
                f"width {self.width} over {self.heads} heads: a head needs an even number of channels, 6 or more"
            )
        if "rgb" not in self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ModelConfigError(f"modalities {self.modalities}: 'rgb' must be there, and each name only once")

    def index(self, modality: str) -> int:
        """The row of a modality in the stacked parameters. Raises ModelConfigError if the model has none."""
        if modality not in self.modalities:
            raise ModelConfigError(f"the model knows no {modality!r}; it knows: {', '.join(self.modalities)}")
        return self.modalities.index(modality)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens along time, rows and columns for latents of that size. Raises ModelConfigError if none fit."""
        size, patch = (frames, height, width), self.patch
        if any(s <= 0 or s % p for s, p in zip(size, patch, strict=True)):
            raise ModelConfigError(
                f"latents of {frames}×{height}×{width} do not divide into patches of {patch[0]}×{patch[1]}×{patch[2]}"
            )
        return frames // patch[0], height // patch[1], width // patch[2]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The configuration that `to_json` wrote. Raises ModelConfigError on unknown, missing or wrong fields."""
        if not isinstance(values, Mapping):
            raise ModelConfigError("not a model configuration: it is no JSON object")
        known = {field.name for field in fields(cls)}
        # Models written before these fields were there do without.
        expected = known - ({"own_tables", "clean_time", "pictures"} - set(values))
        if set(values) != expected:
            odd = sorted(set(values) ^ expected)
            raise ModelConfigError(f"not a model configuration of this version: unknown or missing {', '.join(odd)}")
        try:
            return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ModelConfigError(f"not a model configuration: {where}: {first['msg']}") from error


_PIXEL = {
    "frames": 8,
    "size": 32,
    "channels": 3,
    "patch": (2, 8, 8),
    "prediction": "x",
    "shift": 3.0,
    "codec": "pixel",
    "absolute": True,
}
_MINILM = {"text": "minilm", "text_width": 384, "text_length": 64}
_WAN21 = {
    "frames": 33,
    "size": 256,
    "channels": 16,
    "patch": (1, 2, 2),
    "prediction": "v",
    "shift": 5.0,
    "codec": "wan2.1",
}
_WAN22 = {**_WAN21, "channels": 48, "codec": "wan2.2"}
_UMT5 = {"text": "umt5", "text_width": 4096, "text_length": 512}


@dataclass(frozen=True, slots=True)
class Preset:
    """A model's shape, and how it is trained unless the user says otherwise.

    Where `steps` is None a stage's own number is taken: 16,000 and 40,000, as in the paper.
    """

    model: Mapping[str, Any]
    global_batch_size: int
    lr: float
    warmup: int
    ema: float
    steps: int | None = None


_NANO = {"width": 128, "ffn": 512, "layers": 4, "heads": 4, **_PIXEL, **_MINILM}
_MICRO = {"width": 256, "ffn": 1024, "layers": 8, "heads": 4, **_PIXEL, **_MINILM, "size": 64}
_SMALL = {"width": 512, "ffn": 2048, "layers": 12, "heads": 8, **_WAN21, **_UMT5, "frames": 17}
_LARGE = {"width": 1536, "ffn": 8960, "layers": 30, "heads": 12, **_WAN21, **_UMT5}
_LARGEST = {"width": 3072, "ffn": 14336, "layers": 30, "heads": 24, **_WAN22, **_UMT5}
_PAPER = {"width": 5120, "ffn": 13824, "layers": 28, "heads": 40, **_WAN21, **_UMT5}

PRESETS: Mapping[str, Preset] = {
    "nano": Preset(_NANO, 16, 1e-3, 100, 0.999, 2_000),
    "micro": Preset(_MICRO, 16, 5e-4, 200, 0.999, 10_000),
    "small": Preset(_SMALL, 32, 2e-4, 500, 0.9999),
    "1.3b": Preset(_LARGE, 32, 5e-5, 200, 0.9999),
    "5b": Preset(_LARGEST, 32, 5e-5, 200, 0.9999),
    "10b": Preset(_PAPER, 32, 5e-5, 200, 0.9999),
}
"""`1.3b` has the shapes of Wan2.1-T2V-1.3B and `5b` those of Wan2.2-TI2V-5B, so their weights fit. `10b` is of the
paper's size: Wan2.1-T2V-14B's width with 28 of its 40 blocks."""


def preset(name: str, **changes: Any) -> ModelConfig:
    """A preset over every registered modality, with `changes` to single fields."""
    if name not in PRESETS:
        raise ModelConfigError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return ModelConfig(**{"modalities": tuple(registry.names("modalities")), **PRESETS[name].model, **changes})
