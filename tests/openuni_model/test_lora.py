"""Adapters against PEFT, and what a run with them trains, keeps and gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from openuni_model import checkpoint  # noqa: E402
from openuni_model.checkpoint import tensors_sha256  # noqa: E402
from openuni_model.dit import Streams  # noqa: E402
from openuni_model.lora import TARGETS, add_lora, lora_rank, merge, save_adapter  # noqa: E402
from tests.openuni_model.conftest import random_model, tiny_config  # noqa: E402
from tests.openuni_model.test_trainer import hashes, trainer  # noqa: E402


def test_adapters_start_as_the_model_itself(make_streams: Callable[..., Streams]) -> None:
    config = tiny_config()
    streams = make_streams(config, (2, 1), [0, 1, 0])
    expected = random_model(config)(streams)
    adapted = add_lora(random_model(config), 4)
    assert torch.equal(adapted(streams), expected)
    assert lora_rank(adapted) == 4
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert "blocks.1.ffn.2.lora_A" in trained
    assert {"in_weight_KDI", "modality_KD"} <= trained
    assert not any(name.endswith("weight") for name in trained)


def test_saved_adapters_are_those_of_peft_merged_or_apart(make_streams: Callable[..., Streams], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = tiny_config()
    streams = make_streams(config, (2, 1), [0, 1, 0])
    ours = add_lora(random_model(config), 3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    trained = {name: p.detach() for name, p in ours.named_parameters() if p.requires_grad}
    save_adapter(tmp_path, trained, "base")
    theirs = peft.PeftModel.from_pretrained(random_model(config), str(tmp_path))
    plain, expected = random_model(config)(streams).detach(), ours(streams).detach()
    assert float((expected - plain).norm() / plain.norm()) > 0.1
    torch.testing.assert_close(theirs(streams), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merge(random_model(config), trained)(streams), expected, rtol=1e-4, atol=1e-4)
    adapted = peft.get_peft_model(random_model(config), peft.LoraConfig(r=3, target_modules=list(TARGETS)))
    names = {name.replace(".default", "") for name, p in adapted.named_parameters() if "lora_" in name}
    assert names == {f"base_model.model.{name}.weight" for name in trained if "lora_" in name}


def test_a_run_with_adapters_resumes_bit_for_bit_and_keeps_its_base_once(discs: Path, tmp_path: Path) -> None:
    whole = trainer(discs, tmp_path / "whole", lora=2, checkpoint_every=3)
    frozen = {name: p.detach().clone() for name, p in whole.model.named_parameters() if not p.requires_grad}
    losses = [report.loss for report in whole.run()]
    assert tensors_sha256(frozen) == tensors_sha256({n: p for n, p in whole.model.named_parameters() if n in frozen})
    again = trainer(discs, tmp_path / "again", lora=2)
    again.restore(tmp_path / "whole" / "checkpoints" / "00000003")
    assert [report.loss for report in again.run()] == losses[3:]
    ends = [tmp_path / name / "checkpoints" / "00000006" for name in ("whole", "again")]
    assert hashes(ends[0]) == hashes(ends[1])
    assert not any(name.endswith("ffn.0.weight") for name in checkpoint.read(ends[0], "weights"))
    model = checkpoint.load_trained(tmp_path / "whole")
    with whole.averaged():
        merged = merge(checkpoint.load_model(tmp_path / "whole" / "base"), whole.names)
    assert tensors_sha256(model.state_dict()) == tensors_sha256(merged.state_dict())
    with pytest.raises(checkpoint.CheckpointError, match=r"lora 4 \(was 2\): adapters of another rank"):
        trainer(discs, tmp_path / "other", lora=4).restore(ends[0])
