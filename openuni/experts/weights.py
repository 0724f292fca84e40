"""Weights into torch networks: read without running code, fitted exactly, and run in batches that fit the card."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import torch

from openuni.errors import AssetError

M = TypeVar("M", bound=torch.nn.Module)
T = TypeVar("T")
_log = logging.getLogger(__name__)
_SAID = 160
"""Characters of a library's list of what does not fit."""


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tensors(file: Path) -> Any:
    """What `torch.save` or safetensors wrote: tensors and plain containers only; no code in the file is run.

    Raises AssetError where there is anything else.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        unreadable = isinstance(error, pickle.UnpicklingError | RuntimeError | EOFError | ValueError | OSError)
        if unreadable or type(error).__module__.startswith("safetensors"):
            reason = str(error).split(". ")[0]  # torch goes on to advise loading it unsafely
            raise AssetError(f"{file} is refused: it is not a file of plain tensors: {reason}") from error
        raise


def fill(model: M, state: Mapping[str, torch.Tensor], file: Path) -> M:
    """The model with these weights (every name and shape must agree), in float32 on `device`, for inference.

    Raises AssetError where a name or a shape differs; `file` is named in it.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        named = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise _foreign(file, type(model), named[0][:_SAID]) from error
    return model.float().eval().requires_grad_(False).to(device())


def published(network: Any, config: Any, file: Path) -> Any:
    """A network of transformers with the weights in a file, under today's names or those it was published with.

    transformers knows how it has renamed them. Raises AssetError where a name or a shape does not fit.
    """
    state = tensors(file)
    # Only its own from_pretrained renames; what is missing or left over it would take, with a warning.
    try:
        with _quiet_transformers():
            model, info = network.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
    except (RuntimeError, ValueError) as error:
        raise _foreign(file, network, str(error).splitlines()[0]) from error
    wrong = [name for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[kind]]
    if wrong:
        raise _foreign(file, network, f"{len(wrong)} names or shapes, {min(map(str, wrong))} among them")
    return model.float().eval().requires_grad_(False).to(device())


def _foreign(file: Path, network: type, how: str) -> AssetError:
    return AssetError(
        f"{file} does not fit {network.__name__}: {how}; it is another network's: delete it, and bring the published "
        "one (`openuni assets fetch`)"
    )


def scripted(file: Path) -> Any:
    """A TorchScript program, in float32 on `device`. Loading it runs what is in the file: only with its pinned hash and
    the user's trust (`Expert.runs_code`).

    Raises AssetError where it is none.
    """
    import warnings

    import torchvision  # noqa: F401  brings operators that such programs call

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would have programs exported anew; these are published as they are
            program = torch.jit.load(str(file), map_location=device())
    except (RuntimeError, ValueError, OSError) as error:
        raise AssetError(f"{file} is not a TorchScript program: {str(error).strip().splitlines()[0]}") from error
    return program.float().eval()


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its bar and its table of names, which AssetError tells of."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


_PRECISION: ContextVar[torch.dtype] = ContextVar("precision")


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """In here all `Batches` run in this type, whatever the device: float32 to compare with published answers.

    Example:
        >>> with precision(torch.float32):
        ...     Batches(8, half=True).dtype
        torch.float32
    """
    before = _PRECISION.set(dtype)
    try:
        yield
    finally:
        _PRECISION.reset(before)


def half_precision(wanted: torch.dtype) -> torch.dtype:
    """What a network multiplies matrices in: `wanted` on a GPU that can, float32 on a CPU, whose bytes are promised.

    In a `precision` block it is what that says.

    Example:
        >>> with precision(torch.float32):
        ...     half_precision(torch.bfloat16)
        torch.float32
    """
    can = device().type == "cuda" and (
        wanted != torch.bfloat16 or torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return _PRECISION.get(wanted if can else torch.float32)


@contextmanager
def inference(dtype: torch.dtype) -> Iterator[None]:
    """In here networks run without gradients, matrices multiplied in this type (torch's autocast)."""
    in_type = nullcontext() if dtype == torch.float32 else torch.autocast(device().type, dtype)
    with torch.inference_mode(), in_type:
        yield


def in_full(part: Callable[..., T]) -> Callable[..., T]:
    """A part of a network that runs in float32 inside `inference`, on inputs cast to it."""

    def run(*inputs: torch.Tensor, **named: torch.Tensor) -> T:
        with torch.autocast(device().type, enabled=False):
            return part(*(value.float() for value in inputs), **{name: value.float() for name, value in named.items()})

    return run


def provenance(batch: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, str | int]:
    """What a network ran on, how many inputs it took at once, and in what type: of a GPU the last bits depend on all.

    Example:
        >>> sorted(provenance(4))
        ['batch', 'device', 'precision']
    """
    where = device()
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
    return {"device": name, "batch": batch, "precision": str(dtype).removeprefix("torch.")}


class Batches:
    """Runs a network over the frames of a clip in batches, each half as large once a card runs out of memory.

    The smaller size is kept for the clips that follow, so that the error is met once, and the provenance of each says
    it. A batch never holds frames of two clips. Threads take turns, a clip each: so the card works on one clip while
    others are prepared before it and finished behind it, and holds no more than one batch.

    `half`: on a GPU matrices are multiplied in float16 (torch's autocast), on a CPU never, since its bytes are
    promised. A batch of which a value overflows is run again in float32, and so is every one that follows.
    """

    def __init__(self, largest: int, *, half: bool = False) -> None:
        self.size = largest
        self._half = half
        self._overflowed = False
        self._turn = threading.Lock()

    @property
    def dtype(self) -> torch.dtype:
        """What the network's products are computed in."""
        return torch.float32 if self._overflowed else half_precision(torch.float16 if self._half else torch.float32)

    @property
    def provenance(self) -> dict[str, str | int]:
        """What the network runs on, how many inputs it now takes at once, and in what type."""
        return provenance(self.size, self.dtype)

    def run(self, network: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """`network(*parts)` over slices of the inputs' first axis, joined again on the CPU as float32.

        Raises torch.OutOfMemoryError where the card cannot take a single one.
        """
        with self._turn:
            return self._run(network, inputs)

    def _run(self, network: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        start, total = 0, len(inputs[0])
        while start < total:
            parts = [part[start : start + self.size] for part in inputs]
            dtype = self.dtype
            output = self._tried(network, parts, dtype)
            if output is None:
                self.size //= 2
                _log.warning("the card is out of memory: batches of %d from now on", self.size)
                torch.cuda.empty_cache()
                continue
            if dtype != torch.float32 and not torch.isfinite(output).all():
                self._overflowed = True
                _log.warning("%s overflows: float32 from now on", provenance(self.size, dtype)["precision"])
                continue
            outputs.append(output)
            start += len(parts[0])
        return torch.cat(outputs)

    def _tried(
        self, network: Callable[..., torch.Tensor], parts: list[torch.Tensor], dtype: torch.dtype
    ) -> torch.Tensor | None:
        """The network's answer, or None where a smaller batch may fit: by then the error, and what it held, is gone."""
        try:
            with inference(dtype):
                return network(*(part.to(device()) for part in parts)).float().cpu()
        except torch.OutOfMemoryError:
            if self.size == 1:
                raise
            return None
