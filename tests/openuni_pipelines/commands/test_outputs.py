"""Predictions and reports in a bucket: the files that a folder would have, whoever is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

import unibench  # noqa: E402
from openuni import outputs  # noqa: E402
from openuni.errors import OpenUniError, PlanError  # noqa: E402
from openuni.storage.objects import ObjectStore  # noqa: E402
from openuni_model.config import preset  # noqa: E402
from openuni_model.dit import UnifiedDiT  # noqa: E402
from openuni_model.weights import save_model  # noqa: E402
from openuni_pipelines.commands.compare import compare_command  # noqa: E402
from openuni_pipelines.commands.doctor import doctor_command  # noqa: E402
from openuni_pipelines.commands.generate import generate_command  # noqa: E402
from openuni_pipelines.commands.score import score_command  # noqa: E402
from tests.openuni_model.conftest import write_discs  # noqa: E402
from tests.s3 import BUCKET, Server  # noqa: E402
from unibench.scoring import samples  # noqa: E402

URL = f"s3://{BUCKET}/runs/x"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Killed(BaseException):
    """What no code catches."""


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    made = UnifiedDiT(preset("nano", modalities=("rgb", "depth", "flow"), layers=1, width=32, heads=2, ffn=32))
    save_model(folder, made.config, made.state_dict(), "")
    return folder


def run(command: Any, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def put_folder(url: str, folder: Path) -> str:
    """Copy a folder to the bucket, as anybody's tool would."""
    store = ObjectStore(url)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path, "test")
    return url


def test_predictions_in_a_bucket_are_those_of_a_folder_and_are_scored_there(
    s3: Server, model: Path, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, benchmark and predictions in the bucket; generation and scoring are killed and go on elsewhere."""
    monkeypatch.chdir(tmp_path)
    bench = put_folder(f"s3://{BUCKET}/sets/discs", discs)
    words = ("--task", "est", "--modality", "depth,flow", "--steps", 1, "--batch", 4)
    run(generate_command, *words, "--checkpoint", model, "--bench", discs, "--out", tmp_path / "x")
    words = (*words, "--checkpoint", put_folder(f"s3://{BUCKET}/models/m", model), "--bench", bench, "--out", URL)
    with monkeypatch.context() as patched:
        die_after(patched, 30)
        with pytest.raises(Killed):
            run(generate_command, *words)
    s3.misbehave("503", "PUT", 2)
    s3.asked.clear()
    assert f"{URL}: depth, flow" in run(generate_command, *words).replace("\n", "")
    store = ObjectStore(URL)
    wanted = {p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*") if p.is_file()}
    assert {*store.walk()} == wanted
    for name in wanted - {"generation.json", ".openuni"}:
        assert store.read(name, at_most=1 << 30) == (tmp_path / "x" / name).read_bytes(), name
    made = sum(method == "PUT" and "/depth/" in path for method, path in s3.asked)
    assert 0 < made < 12  # what was there is not made again

    near = unibench.score(tmp_path / "x", discs, config=unibench.ScoreConfig(out=tmp_path / "near"))
    with monkeypatch.context() as patched:
        score_sample = samples.score_sample
        done: list[str] = []

        def counted(*arguments: Any, **more: Any) -> Any:
            if len(done) == 8:
                raise Killed
            done.append("")
            return score_sample(*arguments, **more)

        patched.setattr("unibench.scoring.score.score_sample", counted)
        with pytest.raises(Killed):
            run(score_command, "--pred", URL, "--gt", bench)
    monkeypatch.chdir(tmp_path / "near")  # another machine: nothing is staged here
    assert f"wrote {URL}/score/report.json and {URL}/score/report.html" in run(
        score_command, "--pred", URL, "--gt", bench, "--resume", "--staging", tmp_path / "staged"
    ).replace("\n", "")
    report = json.loads(ObjectStore(f"{URL}/score").read("report.json", at_most=1 << 30))
    journal = ObjectStore(f"{URL}/score").read("samples.jsonl", at_most=1 << 30).splitlines()
    assert len(journal) == 1 + len(near.samples)
    assert (report["predictions"], report["truth"]) == (URL, bench)
    for task, one in near.tasks.items():
        for column, score in one.columns.items():
            assert report["tasks"][task]["columns"][column]["value"] == score.value
    assert (tmp_path / "staged" / "report.json").is_file()
    assert not (tmp_path / "near" / "data").exists()

    compared = json.loads(run(compare_command, URL, tmp_path / "near", "--json"))
    assert len(compared["columns"]) > 4
    assert all(column["difference"]["value"] == 0 for column in compared["columns"])
    for same in (f"{URL}/score", f"{URL}/score/report.json"):
        assert json.loads(run(compare_command, same, tmp_path / "near", "--json")) == compared
    assert "depth: " in check(doctor_command, "--pred", URL, "--gt", bench, "--limit", 2)
    assert "stored" in check(doctor_command, "--gt", bench, "--limit", 1)


def check(command: Any, *arguments: object) -> str:
    """What a command says that exits with 1 where something is wrong, as with discs and a network of one step."""
    result = CliRunner().invoke(command, [str(word) for word in arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.output


def die_after(patched: pytest.MonkeyPatch, puts: int) -> None:
    """The process dies before that put."""
    put, left = ObjectStore.put, [puts]

    def counted(self: ObjectStore, name: str, *arguments: Any, **more: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        put(self, name, *arguments, **more)

    patched.setattr(ObjectStore, "put", counted)


def test_what_cannot_be_is_one_sentence(s3: Server, model: Path, discs: Path, tmp_path: Path) -> None:
    words = ("--checkpoint", model, "--task", "joint", "--modality", "depth", "--steps", 1)
    with pytest.raises(PlanError, match="there is no bucket openuni-other"):
        run(generate_command, *words, "--out", "s3://openuni-other/x")
    ObjectStore(URL).put("photo.jpg", b"mine", "me")
    with pytest.raises(PlanError, match="is not empty and not openuni's: it holds photo"):
        run(generate_command, *words, "--out", URL)
    with pytest.raises(OpenUniError, match=r"x/report\.json does not exist; run `unibench score --pred"):
        run(compare_command, URL, URL)
    with pytest.raises(OpenUniError, match="holds nothing"):
        run(doctor_command, "--pred", f"{URL}-3", "--gt", discs)
    with pytest.raises(OpenUniError, match="--staging is for a report in an object store"):
        run(score_command, "--pred", discs, "--gt", discs, "--staging", tmp_path / "s")
    s3.misbehave("refuse", "PUT", 1)
    with pytest.raises(PlanError, match="is refused to these credentials"):
        run(generate_command, *words, "--out", f"{URL}-2")
    with pytest.raises(OpenUniError, match="holds nothing"):
        run(score_command, "--pred", f"{URL}-3", "--gt", tmp_path)
    with pytest.raises(OpenUniError, match="has neither a checkpoint nor a model"):
        run(generate_command, *words[2:], "--checkpoint", URL, "--out", tmp_path / "out")


def test_a_bundle_counts_whole_or_not_at_all_wherever_its_writer_dies(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put, put again in its place, removed: after each death what is listed can be brought, or is gone."""
    store = ObjectStore(URL)
    for name in ("a/one.bin", "a/two.json", "plain"):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_bytes(name.encode() * 100)
    for deaths in range(4):
        with monkeypatch.context() as patched:
            die_after(patched, deaths)
            with pytest.raises(Killed):
                outputs.push(store, f"c{deaths}/1", tmp_path / "new", "mine")
        assert outputs.bundles(store, f"c{deaths}") == []
        outputs.push(store, f"c{deaths}/1", tmp_path / "new", "mine")
        assert outputs.bundles(store, f"c{deaths}") == [f"c{deaths}/1"]
    s3.misbehave("cut", "c/1.json", 1)  # the answer to the record is lost, which then finds itself
    outputs.push(store, "c/1", tmp_path / "new", "mine")
    outputs.pull(store, "c/1", tmp_path / "there", "mine")
    files = {p.relative_to(tmp_path / "new") for p in (tmp_path / "new").rglob("*")}
    assert files == {p.relative_to(tmp_path / "there") for p in (tmp_path / "there").rglob("*")}
    assert (tmp_path / "there" / "plain").read_bytes() == b"plain" * 100
    delete, left = ObjectStore.delete, [1]

    def dying(self: ObjectStore, name: str) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        delete(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "delete", dying)
        with pytest.raises(Killed):
            outputs.remove(store, "c/1")
    assert outputs.bundles(store, "c") == []
    outputs.remove(store, "c/1")
    assert not store.walk("c")
