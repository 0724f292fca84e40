from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import openuni.assets as cache
from openuni.experts import fastdepth, mediapipe_segmentation
from openuni_pipelines.commands.assets import assets

CONTENT = b"a model" * 1000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a `fastdepth` that comes from a file on this disk."""
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENUNI_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    origin = tmp_path / "origin.bin"
    origin.write_bytes(CONTENT)
    toy = dataclasses.replace(
        fastdepth.WEIGHTS,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        sources=(cache.Url(origin.as_uri()),),
    )
    monkeypatch.setattr(fastdepth.FastDepth, "assets", (toy,))
    return tmp_path / "home" / "assets"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(assets, arguments)


def test_list_names_every_asset_its_license_and_who_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = run("list")
    assert result.exit_code == 0, result.output
    for name in cache.installed():
        assert name in result.output
    rows = {row["name"]: row for row in json.loads(run("list", "--json").output)}
    assert list(rows) == list(cache.installed())
    assert rows["fastdepth"]["used_by"] == ["fastdepth"]
    assert rows["fastdepth"]["license"] == "MIT"
    assert rows["fastdepth"]["cached"] is False
    assert run("fetch", "fastdepth").exit_code == 0
    rows = {row["name"]: row for row in json.loads(run("list", "--json").output)}
    assert rows["fastdepth"]["cached"] is True
    assert Path(rows["fastdepth"]["path"]).read_bytes() == CONTENT


def test_fetch_keeps_what_it_could_get_and_exits_1_naming_what_failed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = dataclasses.replace(
        mediapipe_segmentation.CLASSES, sources=(cache.Url((tmp_path / "no [such] file").as_uri()),)
    )
    monkeypatch.setattr(mediapipe_segmentation.MediapipeSegmentation, "assets", (gone,))
    result = run("fetch", "deeplab-v3", "fastdepth")
    assert result.exit_code == 1
    assert "failed: deeplab-v3" in result.output
    assert gone.sha256 in result.output
    assert (home / "fastdepth_7.onnx").read_bytes() == CONTENT


def test_fetch_light_and_all_choose_by_the_asset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(asset: cache.Asset, _progress: object) -> Path:
        asked.append(asset.name)
        return Path()

    monkeypatch.setattr(cache, "fetch", note)
    assert run("fetch", "--light").exit_code == 0
    assert asked == [name for name, entry in cache.installed().items() if entry.asset.light]
    assert {"fastdepth", "demo-bikes"} <= set(asked)
    assert sum(cache.get(name).size for name in asked) < 50e6
    asked.clear()
    assert run("fetch", "--all").exit_code == 0
    assert asked == list(cache.installed())


def test_an_expert_beside_a_set_is_fetched_with_all_of_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def note(asset: cache.Asset, progress: object = None) -> Path:
        fetched.append(asset.name)
        return Path(__file__)

    monkeypatch.setattr(cache, "fetch", note)
    assert run("fetch", "paper", "production", "edgetam").exit_code == 0
    assert {"sam-vit-h", "dwpose-384", "vitpose-plus-small", "edgetam"} <= set(fetched)
    assert len(fetched) == len(set(fetched))


def test_fetch_of_nothing_and_of_an_unknown_name_say_what_to_do() -> None:
    nothing, unknown = run("fetch"), run("fetch", "fastdeth")
    assert nothing.exit_code == unknown.exit_code == 2
    assert "--light or --all" in nothing.output
    assert "fastdepth" in unknown.output


def test_verify_exits_1_on_a_bad_file_and_names_it(home: Path) -> None:
    empty = run("verify")
    assert empty.exit_code == 0
    assert "0 of " in empty.output
    run("fetch", "fastdepth")
    assert run("verify").exit_code == 0
    (home / "fastdepth_7.onnx").write_bytes(CONTENT[::-1])
    bad = run("verify")
    assert bad.exit_code == 1
    assert "fastdepth: expected SHA-256" in bad.output
    assert "openuni assets fetch fastdepth" in bad.output
    assert run("fetch", "fastdepth").exit_code == 0
    assert run("verify").exit_code == 0


def test_offline_fetch_exits_1_and_says_where_to_put_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENUNI_OFFLINE", "1")
    result = run("fetch", "fastdepth")
    assert result.exit_code == 1
    assert "OPENUNI_OFFLINE=1 forbids the network" in result.output
    assert str(home / "fastdepth_7.onnx") in result.output
