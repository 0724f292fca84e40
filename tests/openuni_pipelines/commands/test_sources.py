"""The bare command and `openuni sources`, against a local server with the hub's layout."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("duckdb")
pytest.importorskip("huggingface_hub")

from openuni.shards import layout, plan
from openuni_pipelines.cli import openuni

NAMES = "videoID,url,timestamp,caption,clarity_score,aesthetic_score,motion_score,video_training_suitability_score\n"
ROWS = "".join(
    f'video{n}_1,https://x/{n},"[\'0:00:01\', \'0:00:04\']","A dog, ""{n}"".",0.9,{n},2.0,4.4\n' for n in range(10)
)
COMMIT = "5e7c0de5" * 5


@dataclass
class HubServer:
    """Serves `files`; the first `cut_off` answers with a body end in the middle."""

    files: dict[str, bytes] = field(
        default_factory=lambda: {"Koala_36M_1.csv": (NAMES + ROWS).encode(), "README.md": b"x"}
    )
    cut_off: int = 0
    asked: list[str] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    served = HubServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            served.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            if self.path.startswith("/api/datasets/"):
                siblings = [{"rfilename": name, "size": len(body)} for name, body in served.files.items()]
                about = {"id": "Koala-36M/Koala-36M-v1", "sha": COMMIT, "siblings": siblings,
                         "cardData": {"license": "cc-by-nc-4.0"}}  # fmt: skip
                self.reply(200, json.dumps(about).encode(), {})
                return
            name = self.path.rpartition("/")[2]
            if name not in served.files:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            body = served.files[name]
            etag = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            if begin:
                etag["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
            self.reply(206 if begin else 200, body[begin:], etag)

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if served.cut_off and len(body) > 500 and status != 404 and "ETag" in headers:
                served.cut_off -= 1
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", served.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("OPENUNI_SOURCES", str(tmp_path / "sources"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    yield served
    server.shutdown()
    server.server_close()


def run(*arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(openuni, [*map(str, arguments)], input=answer)


def test_from_the_bare_command_to_a_plan(hub: HubServer, tmp_path: Path) -> None:
    bare = ("plan", "--source", "koala36m", "--experts", "dis", "--workers", "0", "--out", tmp_path / "d")
    lost = run(*bare)
    assert lost.exit_code == 1
    assert "next: openuni sources fetch koala36m" in lost.output
    assert not (tmp_path / "d").exists()

    refused = run("sources", "fetch", "koala36m", answer="n\n")
    assert refused.exit_code == 1
    assert "1 file, " in refused.output
    assert "non-commercial research only (its card: cc-by-nc-4.0)" in refused.output
    assert not any("resolve" in asked for asked in hub.asked)

    fetched = run("sources", "fetch", "koala36m", "--yes")
    assert fetched.exit_code == 0, fetched.output
    table = tmp_path / "sources" / "koala36m" / "metadata" / "Koala_36M_1.csv"
    assert table.read_bytes() == hub.files["Koala_36M_1.csv"]

    lacking = run(*bare)
    assert "videos" in lacking.output
    assert "put the videos there" in " ".join(lacking.output.split())
    videos = table.parents[1] / "videos"
    videos.mkdir()
    for n in range(4):
        (videos / f"video{n}.mp4").touch()
    done = run(*bare, "--at-least", "aesthetic_score=2")
    assert done.exit_code == 0, done.output
    assert [clip.key for clip in plan.Plan(tmp_path / "d" / layout.PLAN)] == ["video2_1", "video3_1"]
    assert "koala36m" in run("sources", "list").output


def test_a_download_that_is_cut_off_goes_on(hub: HubServer, tmp_path: Path) -> None:
    hub.files["Koala_36M_1.csv"] = (NAMES + ROWS * 200).encode()
    hub.cut_off = 1
    for _ in range(2):
        done = run("sources", "fetch", "koala36m", "--yes")
        if done.exit_code == 0:
            break
        assert "run the same command again" in " ".join(done.output.split())
    table = tmp_path / "sources" / "koala36m" / "metadata" / "Koala_36M_1.csv"
    assert table.read_bytes() == hub.files["Koala_36M_1.csv"]
    hub.asked.clear()
    assert run("sources", "fetch", "koala36m", "--yes").exit_code == 0
    assert not any("resolve" in asked for asked in hub.asked)  # what is there is kept


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    done = run("sources", "fetch", "koala36m", "--yes")
    assert done.exit_code == 1
    assert "cannot be had from the hub" in done.output
    none = run("sources", "fetch", "panda70m", "--yes")
    assert none.exit_code == 1
    assert "are not on the hub; put them into" in " ".join(none.output.split())
