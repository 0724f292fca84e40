"""Downloads against a local server that answers as servers do: gone, refused, throttled, slow and cut off."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("duckdb")

from openuni.errors import OpenUniError
from openuni.sources.download import DownloadConfig, Outcome, download, files, pages
from openuni.sources.download.pace import MOST_REFUSALS, Pace
from openuni.sources.download.pages import classify
from openuni.sources.folder import videos_below
from openuni.sources.rows import Wanted
from openuni_pipelines.cli import openuni
from tests.web import Web, serving

QUICK = DownloadConfig(a_minute=60_000, pause=0.01)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as served:
        yield served


@pytest.fixture
def clip(make_clips: Callable[..., Path], tmp_path: Path) -> bytes:
    return (make_clips(tmp_path / "made", ["one"]) / "one.mp4").read_bytes()


def journal(folder: Path) -> dict[str, str]:
    lines = (folder / ".download" / "journal.jsonl").read_text().splitlines()
    return {entry["name"]: entry["outcome"] for entry in map(json.loads, lines)}


def test_every_answer_is_an_outcome_and_only_the_open_are_asked_again(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {f"/{name}.mp4": clip for name in ("got", "later", "-dash", "gone", "private", "blocked")}
    web.files["/page.mp4"] = b"<html>this video was removed</html>"
    web.files["/noise.mp4"] = bytes(1000)
    web.before = {
        "/gone.mp4": [(404, {})] * 9,
        "/private.mp4": [(401, {})] * 9,
        "/blocked.mp4": [(403, {})] * 9,
        "/later.mp4": [(429, {"Retry-After": "0"}), (503, {})],
        "/broken.mp4": [(500, {})] * 3,
    }
    names = ("got", "later", "-dash", "gone", "private", "blocked", "page", "noise", "broken", "absent")
    wanted = [Wanted(name, f"{web.address}/{name}.mp4") for name in names]
    wanted += [Wanted("here", "http://x/here.mp4", is_here=True), Wanted("unnamed", "")]
    folder = tmp_path / "videos"

    first = download(wanted, folder, QUICK)
    assert journal(folder) == {
        "got": "got", "later": "got", "-dash": "got", "gone": "gone", "private": "private", "blocked": "blocked",
        "page": "error", "noise": "error", "broken": "error", "absent": "gone",
    }  # fmt: skip
    assert (first.wanted, first.here, first.unnamed, first.asked, first.is_open) == (12, 1, 1, 10, 3)
    assert first.bytes == 3 * len(clip)
    assert web.count("/later.mp4") == 3
    assert web.count("/broken.mp4") == 3
    assert sorted(path.name for path in folder.iterdir()) == ["-dash.mp4", ".download", "got.mp4", "later.mp4"]
    assert (folder / "later.mp4").read_bytes() == clip
    assert [*videos_below(folder)] == ["-dash.mp4", "got.mp4", "later.mp4"]  # what is under way is no row of a plan

    web.asked.clear()
    web.files["/broken.mp4"] = clip
    here = {"got", "later", "-dash"}
    second = download([Wanted(v.name, v.url, v.is_here or v.name in here) for v in wanted], folder, QUICK)
    assert {path for path, _ in web.asked} == {"/page.mp4", "/noise.mp4", "/broken.mp4"}
    assert second.outcomes == {
        Outcome.GOT: 1,
        Outcome.GONE: 2,
        Outcome.PRIVATE: 1,
        Outcome.BLOCKED: 1,
        Outcome.ERROR: 2,
    }


def test_a_video_that_was_got_and_is_lost_is_asked_for_again(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {"/a.mp4": clip}
    for _ in range(2):
        assert download([Wanted("a", f"{web.address}/a.mp4")], tmp_path / "v", QUICK).outcomes == {Outcome.GOT: 1}
        (tmp_path / "v" / "a.mp4").unlink()


def test_what_is_cut_off_goes_on_where_it_stopped(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {"/a.mp4": clip}
    web.before = {"/a.mp4": [("cut", {}), (500, {}), (500, {})]}
    wanted = [Wanted("a", f"{web.address}/a.mp4")]
    assert download(wanted, tmp_path / "v", QUICK).outcomes == {Outcome.ERROR: 1}
    assert [*videos_below(tmp_path / "v")] == []
    assert download(wanted, tmp_path / "v", QUICK).outcomes == {Outcome.GOT: 1}
    assert (tmp_path / "v" / "a.mp4").read_bytes() == clip
    assert web.asked[-1][1]["Range"] == f"bytes={len(clip) // 2}-"


def test_another_version_of_a_file_begins_again(
    web: Web, clip: bytes, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    other = (make_clips(tmp_path / "other", ["b"], frames=7) / "b.mp4").read_bytes()
    web.files = {"/a.mp4": other}
    web.before = {"/a.mp4": [("cut", {}), (500, {}), (500, {})]}
    wanted = [Wanted("a", f"{web.address}/a.mp4")]
    download(wanted, tmp_path / "v", QUICK)
    web.files["/a.mp4"], web.version = clip, '"2"'
    assert download(wanted, tmp_path / "v", QUICK).outcomes == {Outcome.GOT: 1}
    assert (tmp_path / "v" / "a.mp4").read_bytes() == clip


def test_a_silent_or_slow_connection_is_closed(
    web: Web, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SILENT_SECONDS", 0.1)
    web.files = {"/a.mp4": clip}
    web.before = {"/a.mp4": [("slow", {})]}
    done = download([Wanted("a", f"{web.address}/a.mp4")], tmp_path / "v", QUICK)
    assert done.outcomes == {Outcome.GOT: 1}
    assert web.count("/a.mp4") == 2
    assert web.asked[1][1]["Range"] == f"bytes={len(clip) // 2}-"


def test_a_server_that_goes_on_throttling_is_left_alone(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {f"/{n}.mp4": clip for n in range(20)}
    web.before = {f"/{n}.mp4": [(429, {})] * 99 for n in range(20)}
    wanted = [Wanted(str(n), f"{web.address}/{n}.mp4") for n in range(20)]
    config = DownloadConfig(a_minute=60_000, pause=0.001, workers=1)
    done = download(wanted, tmp_path / "v", config)
    assert done.outcomes == {Outcome.THROTTLED: 20}
    assert len(web.asked) == MOST_REFUSALS
    assert (done.asked, journal(tmp_path / "v")) == (1, {"0": "throttled"})
    web.before.clear()
    assert download(wanted, tmp_path / "v", config).outcomes == {Outcome.GOT: 20}


def test_a_long_pause_is_not_sat_out(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {"/a.mp4": clip}
    web.before = {"/a.mp4": [(503, {"Retry-After": "86400"})]}
    assert download([Wanted("a", f"{web.address}/a.mp4")], tmp_path / "v", QUICK).outcomes == {Outcome.THROTTLED: 1}


def test_pauses_double_and_count_once_for_all_that_was_under_way() -> None:
    pace = Pace(0.0, 100.0, threading.Event())
    started = time.monotonic()
    for _ in range(4):
        pace.refused(started, None)
    assert 99 < pace._next - time.monotonic() <= 100
    pace.refused(time.monotonic(), None)
    assert 199 < pace._next - time.monotonic() <= 200


def test_cookies_open_what_was_private(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {"/a.mp4": clip}
    web.before = {"/a.mp4": [(401, {})]}
    wanted = [Wanted("a", f"{web.address}/a.mp4")]
    assert download(wanted, tmp_path / "v", QUICK).outcomes == {Outcome.PRIVATE: 1}
    cookies = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsecret\n"
    cookies.write_text(text)
    with_cookies = DownloadConfig(a_minute=60_000, cookies=cookies)
    assert download(wanted, tmp_path / "v", with_cookies).outcomes == {Outcome.GOT: 1}
    assert web.asked[-1][1]["Cookie"] == "session=secret"
    assert cookies.read_text() == text
    assert "secret" not in (tmp_path / "v" / ".download" / "journal.jsonl").read_text()
    cookies.write_text("session=secret")
    with pytest.raises(OpenUniError, match=r"is no cookies\.txt"):
        download(wanted, tmp_path / "v", with_cookies)


def test_nothing_leaves_the_folder_and_nothing_is_too_large(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {"/a.mp4": clip}
    folder, outside = tmp_path / "v", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    url = f"{web.address}/a.mp4"
    names = ["../a", "/a", "x/../../a", ".download/journal", "a\x00", "a\nb", "", "link/a", "x" * 300]
    done = download([Wanted(name, url) for name in names], folder, QUICK)
    assert done.outcomes == {Outcome.ERROR: len(names)}
    assert download([Wanted("f", "file:///etc/a.mp4")], folder, QUICK).outcomes == {Outcome.ERROR: 1}
    web.before["/moved.mp4"] = [(302, {"Location": "file:///etc/a.mp4"})] * 3
    assert download([Wanted("m", f"{web.address}/moved.mp4")], folder, QUICK).outcomes[Outcome.GOT] == 0
    small = DownloadConfig(a_minute=60_000, largest=len(clip) - 1)
    assert download([Wanted("large", url)], folder, small).outcomes == {Outcome.ERROR: 1}
    assert sorted(path.name for path in folder.iterdir()) == [".download", "link"]
    assert not [*outside.iterdir()]
    assert download([Wanted("x/y.mp4", url)], folder, QUICK).outcomes == {Outcome.GOT: 1}
    assert (folder / "x" / "y.mp4").read_bytes() == clip


def test_addresses_as_tables_hold_them(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {"/%C3%A4%20b.mp4": clip, "/c%20d.mp4?x=1&y=%2F": clip}
    good = [Wanted("a", f"{web.address}/ä b.mp4"), Wanted("c", f"{web.address}/c%20d.mp4?x=1&y=%2F")]
    bad = [
        "http://[bad/a.mp4",
        "http:///a.mp4",
        "ftp://x/a.mp4",
        "a.mp4",
        "http://x\n/a.mp4",
        "http://127.0.0.1:x/a.mp4",
    ]
    wanted = good + [Wanted(f"bad{n}", url) for n, url in enumerate(bad)]
    done = download(wanted, tmp_path / "v", QUICK)
    assert done.outcomes == {Outcome.GOT: 2, Outcome.ERROR: len(bad)}, done.whys


def test_a_page_by_yt_dlp(web: Web, clip: bytes, tmp_path: Path) -> None:
    pytest.importorskip("yt_dlp")
    shown = b'<html><body><video src="/media/a.mp4"></video></body></html>'
    web.files = {"/watch": shown, "/media/a.mp4": clip}
    web.before = {"/wall": [(429, {})]}
    web.files["/wall"] = shown
    folder = tmp_path / "100%(x)s"  # no template of yt-dlp's
    wanted = [Wanted(name, f"{web.address}/{name}") for name in ("watch", "wall", "gone")]
    done = download(wanted, folder, QUICK)
    assert done.outcomes == {Outcome.GOT: 2, Outcome.GONE: 1}, done.whys
    assert (folder / "watch.mp4").read_bytes() == clip
    assert (folder / "wall.mp4").read_bytes() == clip
    small = DownloadConfig(a_minute=60_000, largest=len(clip) - 1)
    assert download([Wanted("large", f"{web.address}/watch")], folder, small).outcomes == {Outcome.ERROR: 1}


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("ERROR: [youtube] a: Private video. Sign in if you've been granted access to this video", Outcome.PRIVATE),
        ("ERROR: [youtube] a: Sign in to confirm you’re not a bot. Use --cookies", Outcome.THROTTLED),
        ("ERROR: [youtube] a: Video unavailable. This content isn't available, try again later.", Outcome.THROTTLED),
        ("ERROR: [youtube] a: Sign in to confirm your age. This video may be inappropriate", Outcome.BLOCKED),
        (
            "ERROR: [youtube] a: Video unavailable. The uploader has not made this video available in your country",
            Outcome.BLOCKED,
        ),
        ("ERROR: [youtube] DRM-_payment: Video unavailable", Outcome.GONE),
        (
            "ERROR: [youtube] a: Video unavailable. This video is no longer available because the YouTube account "
            "associated with this video has been terminated.",
            Outcome.GONE,
        ),
        ("ERROR: [youtube] a: This video has been removed by the uploader", Outcome.GONE),
        ("ERROR: unable to download video data: HTTP Error 403: Forbidden", Outcome.BLOCKED),
        ("ERROR: [youtube] a: Unable to extract player", Outcome.ERROR),
    ],
)
def test_what_yt_dlp_says(said: str, outcome: Outcome) -> None:
    assert classify(said).outcome is outcome


def test_a_journal_survives_a_kill_and_refuses_other_files(web: Web, clip: bytes, tmp_path: Path) -> None:
    web.files = {"/a.mp4": clip}
    wanted = [Wanted("a", f"{web.address}/a.mp4"), Wanted("b", f"{web.address}/b.mp4")]
    download(wanted, tmp_path / "v", QUICK)
    path = tmp_path / "v" / ".download" / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = download(wanted, tmp_path / "v", QUICK)
    assert again.outcomes == {Outcome.GOT: 1, Outcome.GONE: 1}
    assert journal(tmp_path / "v") == {"a": "got", "b": "gone"}
    assert download(wanted, tmp_path / "v", QUICK).asked == 1  # a, which the test says is not at hand
    path.write_text("not json\n")
    with pytest.raises(OpenUniError, match=r"line 1, is no outcome"):
        download(wanted, tmp_path / "v", QUICK)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    (tmp_path / ".download").mkdir()
    with (tmp_path / ".download" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OpenUniError, match="another download is at work"):
            download([], tmp_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(openuni, [*map(str, arguments)])


def test_the_command_downloads_chosen_rows_and_a_plan_finds_them(web: Web, clip: bytes, tmp_path: Path) -> None:
    table, videos = tmp_path / "rows.csv", tmp_path / "videos"
    rows = [f"v{n},clips/v{n}.mp4,{web.address}/v{n}.mp4,{n}" for n in range(6)]
    rows.append(f"unnamed,,{web.address}/x.mp4,9")  # names no file
    table.write_text("\n".join(["id,video,url,aesthetic", *rows]) + "\n")
    web.files = {f"/v{n}.mp4": clip for n in (0, 1, 2, 4, 5)}
    chosen = ("--source", "table", "--metadata", table, "--videos", videos, "--at-least", "aesthetic=2")
    done = run("sources", "download", *chosen, "--a-minute", 60_000)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (videos / "clips").iterdir()) == ["v2.mp4", "v4.mp4", "v5.mp4"]
    assert web.count("/v0.mp4") == 0
    assert "gone" in done.output
    assert "next: openuni build --source table" in done.output
    web.asked.clear()
    again = run("sources", "download", *chosen)
    assert again.exit_code == 0, again.output
    assert not web.asked
    planned = run("plan", *chosen, "--experts", "dis", "--workers", 0, "--min-frames", 1, "--out", tmp_path / "d")
    assert planned.exit_code == 0, planned.output
    assert "3" in planned.output
    refused = run("sources", "download", "--source", "demo")
    assert refused.exit_code == 1
    assert "has no rows that name videos on the web" in " ".join(refused.output.split())


def test_yt_dlp_is_asked_for_by_name_where_it_is_missing(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OpenUniError("run: pip install 'openuni[download]'")

    monkeypatch.setattr(pages.PageClient, "__init__", missing)
    with pytest.raises(OpenUniError, match="openuni\\[download\\]"):
        download([Wanted("a", f"{web.address}/watch")], tmp_path / "v", QUICK)
