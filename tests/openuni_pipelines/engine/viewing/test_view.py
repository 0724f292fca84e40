"""`openuni view` in a real browser: frames in step, exact readings, filters, flags, and what a stranger may do."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.compute as pc
import pytest

import openuni
from openuni import modalities
from openuni.errors import CorruptDataError, OpenUniError
from openuni.shards import layout
from openuni_pipelines.engine.viewing.catalogue import QUERY, Catalogue, Query
from openuni_pipelines.engine.viewing.clips import Clips, Differences
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.scores import Scores
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background
from openuni_pipelines.engine.viewing.sources import Stored
from tests.openuni_pipelines.engine.viewing.bars import COLUMNS, HOSTILE, RATES, H, T, W, get, settled
from unibench.camera import Camera
from unibench.formats import sidecar


@pytest.fixture
def viewer(dataset: Path, tmp_path: Path) -> Iterator[Viewer]:
    data = openuni.open(dataset)
    clips, truth = Clips(Stored(data)), Clips(Stored(openuni.open(dataset)), "truth")
    scored = {"depth/absrel": {"clip-0": 0.3, "clip-1": 0.9, "clip-2": 0.1}}
    viewer = Viewer(clips, Flags(tmp_path / "flags.jsonl"), [truth, Differences(clips, truth)], Scores(scored))
    open_in_background(viewer)
    yield viewer
    viewer.close()


SEEK = f"""async (seeks) => {{
  const all = [...document.querySelectorAll(".pane .frame canvas:first-child")], shown = [];
  const ours = all.filter((canvas) => canvas.closest(".pane").dataset.source === "");
  for (const frame of seeks) {{
    player.show(frame);
    while (!all.every((canvas) => canvas.dataset.frame === String(frame))) await new Promise(requestAnimationFrame);
    shown.push(ours.map((canvas) => Array.from({{ length: 8 }}, (_, bar) =>
      Array.from(canvas.getContext("2d").getImageData(bar * {W // 8} + {W // 16}, {H // 2}, 1, 1).data.slice(0, 3)))));
  }}
  return ours.map((_, pane) => shown.map((panes) => panes[pane]));
}}"""
"""Of each pane, and after each seek, the colour in the middle of every bar."""


@pytest.mark.parametrize("number", range(len(RATES)))
def test_all_panes_show_the_same_frame_after_random_seeks(viewer: Viewer, page: Any, number: int) -> None:
    key = f"clip-{number}"
    sample = viewer.clips.sample(key)
    names = [name for name in ("rgb", "depth", "flow", "segmentation") if name in sample]
    middles = np.arange(8) * (W // 8) + W // 16
    expected = {name: modalities.get(name).show(sample[name])[:, H // 2, middles].astype(int) for name in names}
    page.goto(f"{viewer.url}#clip={key}")
    settled(page, 0)
    page.wait_for_function("() => player.panes.every(pane => !pane.column.present || pane.runs.has(0))")
    page.uncheck("#vectors")
    seeks = np.random.default_rng(number).integers(0, T, 50).tolist()
    shown = dict(zip([n for n in sample.statuses if n in sample], np.array(page.evaluate(SEEK, seeks)), strict=False))
    for at, frame in enumerate(seeks):
        for name in names:
            if name == "flow" and frame == T - 1:
                continue  # it has no map
            error = np.abs(expected[name] - shown[name][at]).max(axis=(1, 2))
            assert error[frame] < 12, (name, frame)
            assert name != "rgb" or int(error.argmin()) == frame


def test_a_clip_seen_before_is_there_without_asking(viewer: Viewer, page: Any) -> None:
    page.goto(f"{viewer.url}#clip=clip-0&frame=7")
    page.wait_for_function("() => player.panes.length && player.panes.every(pane => pane.jpegs.every(jpeg => jpeg))")
    page.evaluate("location.hash = 'clip=clip-1'")
    settled(page, 0)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("location.hash = 'clip=clip-0&frame=7'")
    settled(page, 7)
    page.wait_for_function("() => player.clip.key === 'clip-0'")
    assert [url for url in asked if "/api/frame" in url and "clip-0" in url] == []


def test_readings_are_the_arrays(viewer: Viewer) -> None:
    sample, rng = viewer.clips.sample("clip-0"), np.random.default_rng(0)
    kept = http.client.HTTPConnection("127.0.0.1", urlsplit(viewer.url).port or 0, timeout=120)
    for name in ("rgb", "depth", "flow", "segmentation"):
        for frame, y, x in zip(*(rng.integers(0, most, 125) for most in (T, H, W)), strict=True):
            status, found = get(viewer, "/api/readings", open=kept, key="clip-0", column=name, frame=frame, y=y, x=x)
            assert status == 200
            values = [reading["value"] for reading in found]
            if name == "rgb":
                assert values == sample.rgb.frames[frame, y, x].tolist()
            elif name == "depth":
                assert values == [float(sample.depth.values[frame, y, x])]
                assert found[0]["unit"] == "m"
            elif name == "flow" and frame < T - 1:
                assert values[:2] == sample.flow.forward[frame, y, x].tolist()
            elif name == "segmentation":
                table = {instance.id: instance for instance in sample.segmentation.instances}
                instance = table[int(sample.segmentation.ids[frame, y, x])]
                assert values[:2] == [instance.id, instance.class_name]


def test_the_pointer_reads_in_real_units(viewer: Viewer, page: Any) -> None:
    page.goto(f"{viewer.url}#clip=clip-1&frame=5")
    settled(page, 5)
    frame = page.locator(".pane[data-source=''] .frame").nth(1).bounding_box()
    page.mouse.move(frame["x"] + frame["width"] * 2.5 / 8, frame["y"] + frame["height"] / 2)  # bit 2 of 5: set
    page.wait_for_function(
        "() => document.querySelectorAll(`.pane[data-source=''] .reading`)[1].textContent.includes('depth 2 m')"
    )
    page.wait_for_function(
        "() => document.querySelectorAll(`.pane[data-source=''] .reading`)[2].textContent.includes('u 3 px')"
    )
    page.wait_for_function(
        "() => document.querySelectorAll(`.pane[data-source=''] .reading`)[3].textContent.includes('class light bar')"
    )


def test_outside_text_is_text(viewer: Viewer, page: Any) -> None:
    page.goto(viewer.url)
    page.wait_for_selector(".card img")
    assert HOSTILE in page.locator(".card .what").first.text_content()
    page.locator(".card").first.click()
    settled(page, 0)
    assert page.locator("#caption").text_content() == HOSTILE
    assert "taken" not in page.title()
    page.wait_for_selector("text=1 of 4")  # the neighbours are known
    page.keyboard.press("p")  # there is none before
    for place in range(2, 5):
        page.keyboard.press("n")
        page.wait_for_selector(f"text={place} of 4")
    page.wait_for_selector("text=absent: too dark")


def test_words_ranges_and_flags_narrow_the_grid(viewer: Viewer, page: Any) -> None:
    page.goto(viewer.url)
    page.wait_for_selector(".card img")
    page.fill("#words", "BARS 25")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of 4')")
    page.locator(".card").first.click()
    settled(page, 0)
    page.keyboard.press("f")
    page.keyboard.type("shaky <b>")
    page.keyboard.press("Enter")
    page.wait_for_function("() => Object.keys(state.about.flags).length === 1")
    assert viewer.flags.reasons == {"clip-1": "shaky <b>"}
    page.keyboard.press("Escape")
    page.click("#clear")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('4 of 4')")
    page.check("#flagged")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of 4')")
    again = page.context.new_page()  # a second tab, by the link of the first
    again.goto(page.url)
    again.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of 4')")
    again.close()


def test_what_is_typed_while_the_index_is_read_is_kept(viewer: Viewer, page: Any) -> None:
    """The filters are drawn when the index has been read, and used to write an old query over newer words."""
    facets = Held(page, "/api/facets")
    page.goto(viewer.url)
    page.wait_for_selector(".card img")
    page.wait_for_function("() => state.facets === undefined")
    facets.until(1)
    # Typed and answered in one task of the page's, so that no pause for the search lies between them.
    page.evaluate("() => { $('words').value = 'BARS 25'; $('words').dispatchEvent(new Event('input')); }")
    facets.let()
    page.wait_for_function("() => state.facets !== undefined")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of 4')")
    assert page.input_value("#words") == "BARS 25"


def test_the_command_serves_and_a_killed_server_is_said(dataset: Path, tmp_path: Path, page: Any) -> None:
    command = [Path(sys.executable).with_name("openuni"), "view", dataset, "--flags", tmp_path / "f", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        page.goto(server.stdout.readline().split()[3])
        page.wait_for_selector(".card img")
        server.kill()
    page.fill("#words", "bars")
    page.wait_for_selector("text=the server has gone")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_while_threads_decode(dataset: Path, tmp_path: Path, number: int) -> None:
    """The interpreter used to end before its threads, which aborts the process where one of them is in C++."""
    command = [Path(sys.executable).with_name("openuni"), "view", dataset, "--flags", tmp_path / "f", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout
        link = urlsplit(server.stdout.readline().split()[3])
        asked = [f"/api/frames?key=clip-{at}&column={name}&first=0&count=40&" for at in range(4) for name in COLUMNS]
        connections = [http.client.HTTPConnection("127.0.0.1", link.port or 0) for _ in asked]
        for connection, path in zip(connections, ["/api/facets?", *asked], strict=False):
            connection.request("GET", path + link.query)
        connections[0].getresponse().read()  # the others are being answered
        server.send_signal(number)
        _, said = server.communicate(timeout=120)
    for connection in connections:
        connection.close()
    assert (server.returncode, said) == (0, "")


def test_worst_samples_come_first_and_errors_are_black_where_all_is_right(viewer: Viewer) -> None:
    query = json.dumps({"sort": "depth/absrel", "order": "descending"})
    found = get(viewer, "/api/cards", query=query, first=0, count=10)[1]["cards"]
    assert [card["key"] for card in found] == ["clip-1", "clip-0", "clip-2", "clip-3"]
    assert found[0]["value"] == 0.9
    columns = get(viewer, "/api/clip", key="clip-0")[1]["columns"]
    assert [(c["source"], c["name"]) for c in columns if c["name"] == "depth"] == [
        ("", "depth"),
        ("truth", "depth"),
        ("error", "depth"),
    ]
    assert all(c["present"] for c in columns)
    for name in ("rgb", "depth", "flow"):
        assert not viewer.others["error"].pictures("clip-0", name, 0, T - 1).any(), name
    missing = next(
        c
        for c in get(viewer, "/api/clip", key="clip-3")[1]["columns"]
        if (c["source"], c["name"]) == ("error", "depth")
    )
    assert (missing["present"], missing["reason"]) == (False, "the prediction has none")


def test_strangers_get_nothing(viewer: Viewer) -> None:
    assert get(viewer, "/api/about", token="")[0] == 403
    assert get(viewer, "/api/about", token="x" * 22)[0] == 403
    assert get(viewer, "/", token="")[0] == 403
    assert get(viewer, "/api/about", host="evil.example")[0] == 403  # a name that was pointed at this machine
    for path in ("/../server.py", "/static/view.js", "/%2e%2e/flags.py", "//etc/passwd", "/etc/passwd"):
        assert get(viewer, path)[0] == 404
    for key in ("../../x", "clip-9", "", "/etc/passwd"):
        status, said = get(viewer, "/api/clip", key=key)
        assert status == 409
        assert "has no clip" in said["error"]
    for bad in ({"frame": "-1"}, {"frame": "999"}, {"frame": "x"}, {"column": "nope"}, {}):
        assert get(viewer, "/api/frame", **{"key": "clip-0", "column": "rgb", "frame": "0", "source": "no"} | bad)[
            0
        ] in (400, 404, 409)
    for query in ("{", '{"sort": "nope"}', '{"ranges": {"fps": [1]}}', '{"unknown": 1}', "[" * 100_000):
        assert get(viewer, "/api/cards", query=query, first=0, count=1)[0] in (400, 409, 414)
    assert get(viewer, "/api/about")[0] == 200


def test_pages_come_with_a_policy(viewer: Viewer) -> None:
    port = urlsplit(viewer.url).port
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"/?token={viewer.token}")
    answer = connection.getresponse()
    page = answer.read().decode()
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "style=" not in page
    assert "<script>" not in page
    connection.request("POST", "/api/flag", body=b"{}")
    assert connection.getresponse().status == 403  # without the token
    connection.close()
    assert viewer.flags.reasons == {}


def test_queries_agree_with_the_reader(dataset: Path) -> None:
    data = openuni.open(dataset)
    catalogue = Catalogue(Stored(data))

    def keys(**query: Any) -> list[str]:
        return list(catalogue.keys(catalogue.find(Query(**query))))

    assert keys(ranges={"fps": (20, 40)}) == list(data.filter((pc.field("fps") >= 20) & (pc.field("fps") <= 40)).keys())
    assert keys(absent=("depth", "")) == list(data.filter(~pc.field("depth.present")).keys()) == ["clip-3"]
    assert keys(absent=("depth", "too dark")) == ["clip-3"]
    assert keys(absent=("depth", "else")) == []
    assert keys(sort="sharp", order="descending") == ["clip-3", "clip-2", "clip-1", "clip-0"]
    assert keys(sort="depth.confidence", order="descending")[-1] == "clip-3"  # it has none
    assert keys(words="bars 25") == ["clip-1"]
    assert keys(choices={"source": ("toy",)}, words="BARS") == ["clip-1", "clip-2", "clip-3"]
    assert keys(choices={"source": ("other",)}) == []
    histogram = catalogue.histogram("depth.confidence", catalogue.find(Query()))
    assert (sum(histogram.counts), histogram.missing) == (3, 1)
    with pytest.raises(OpenUniError, match="there is no number 'nope'"):
        keys(sort="nope")
    assert QUERY.validate_json(QUERY.dump_json(Query(words="雨", ranges={"fps": (0, 1)}))).words == "雨"


def test_flags_are_kept_and_the_last_word_counts(tmp_path: Path) -> None:
    flags = Flags(tmp_path / "flags.jsonl")
    flags.set("a", "blurred")
    flags.set("b", "cut\x1b[31m\nin two")
    flags.set("a", "")
    assert Flags(tmp_path / "flags.jsonl").reasons == {"b": flags.reasons["b"]}
    (tmp_path / "odd").write_text('{"key": "a"}\n')
    with pytest.raises(CorruptDataError, match="odd: line 1 is not a flag"):
        Flags(tmp_path / "odd")
    outside = tmp_path / "outside"
    outside.write_text("")
    (tmp_path / "linked.jsonl").symlink_to(outside)
    with pytest.raises(OpenUniError):
        Flags(tmp_path / "linked.jsonl").set("a", "x")
    assert outside.read_text() == ""


def test_a_damaged_column_says_so_and_the_others_play(dataset: Path, tmp_path: Path, page: Any) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(dataset, root)
    tar = root / layout.tar_name(0, "depth")
    data = bytearray(tar.read_bytes())
    data[600:900] = bytes(300)
    tar.write_bytes(data)
    viewer = Viewer(Clips(Stored(openuni.open(root))), Flags(tmp_path / "flags.jsonl"))
    open_in_background(viewer)
    page.goto(f"{viewer.url}#clip=clip-0")
    page.wait_for_function("() => document.querySelectorAll('canvas[data-frame]').length >= 4")
    assert "depth" in page.locator(".absent").text_content()
    viewer.close()


def test_arrows_legends_and_cameras_have_the_right_numbers(dataset: Path, tmp_path: Path, page: Any) -> None:
    root = tmp_path / "with-camera"
    shutil.copytree(dataset, root)
    folder = root / sidecar.FOLDER / "clip-1"
    folder.mkdir(parents=True)
    pose = np.tile(np.eye(4), (T, 1, 1))
    pose[:, 0, 3] = np.arange(T)
    camera = Camera(np.tile(np.array([[50.0, 0, 32], [0, 50, 16], [0, 0, 1]]), (T, 1, 1)), pose, H, W)
    (folder / "camera.npz").write_bytes(sidecar.encode_camera(camera))
    viewer = Viewer(Clips(Stored(openuni.open(root))), Flags(tmp_path / "flags.jsonl"))
    open_in_background(viewer)
    place = {"key": "clip-1", "column": "flow"}
    rows = np.array(get(viewer, "/api/arrows", frame=5, **place)[1]["rows"])
    forward = viewer.clips.sample("clip-1").flow.forward[5]
    xs, ys = (np.floor(rows[:, at]).astype(int) for at in (0, 1))
    assert np.array_equal(rows[:, 2:], forward[ys, xs])
    assert get(viewer, "/api/arrows", frame=T - 1, **place)[1]["rows"] == []
    assert get(viewer, "/api/arrows", key="clip-1", column="rgb", frame=0)[0] == 409
    assert "full colour 3 px" in get(viewer, "/api/legend", **place)[1]["text"]
    assert "yellow 2 m, violet 7.5 m" in get(viewer, "/api/legend", key="clip-1", column="depth")[1]["text"]
    assert get(viewer, "/api/camera", key="clip-1")[1]["path"][7] == [7.0, 0.0, 0.0, 0.0, 1.0]
    assert get(viewer, "/api/camera", key="clip-0")[1]["path"] == []
    page.goto(f"{viewer.url}#clip=clip-1&frame=3")
    settled(page, 3)
    page.keyboard.press("a")
    page.wait_for_function("() => document.getElementById('arrow-scale').textContent.includes('as long as')")
    page.wait_for_selector("#camera:not([hidden])")
    viewer.close()


def test_normals_of_exact_truth_are_drawn_and_read_out(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "truth"
    shutil.copytree(dataset, root)
    vectors = np.random.default_rng(0).normal(size=(T, H, W, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[:, 0] = np.nan  # sky
    folder = root / "truth/clip-0"
    folder.mkdir(parents=True)
    (folder / "normals.npz").write_bytes(sidecar.encode_normals(vectors))
    viewer = Viewer(Clips(Stored(openuni.open(root))), Flags(tmp_path / "flags.jsonl"))
    open_in_background(viewer)
    there = [column["name"] for column in get(viewer, "/api/clip", key="clip-0")[1]["columns"]]
    assert there == [*COLUMNS, "normals"]
    assert "normals" not in [column["name"] for column in get(viewer, "/api/clip", key="clip-1")[1]["columns"]]
    rng = np.random.default_rng(1)
    for frame, y, x in zip(*(rng.integers(low, most, 100) for low, most in ((0, T), (1, H), (0, W))), strict=True):
        read = get(viewer, "/api/readings", key="clip-0", column="normals", frame=frame, y=y, x=x)[1]
        assert [one["value"] for one in read[:3]] == vectors[frame, y, x].tolist()
    sky = get(viewer, "/api/readings", key="clip-0", column="normals", frame=0, y=0, x=0)[1]
    assert sky == [{"name": "normal", "value": "none: sky", "unit": ""}]
    assert get(viewer, "/api/frame", key="clip-0", column="normals", frame=3)[0] == 200
    viewer.close()


def unnamed(page: Any) -> list[str]:
    """Roles in the accessibility tree of what can be used but has no name."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    used = ("button", "checkbox", "combobox", "image", "link", "searchbox", "slider", "textbox")
    known = [node for node in nodes if not node["ignored"] and node["role"]["value"] in used]
    assert len(known) > 8
    return [node["role"]["value"] for node in known if not node.get("name", {}).get("value")]


def test_everything_has_a_name_and_works_by_keyboard(viewer: Viewer, page: Any) -> None:
    page.goto(viewer.url)
    page.wait_for_function("() => state.facets && histogram && document.querySelectorAll('.card img').length === 4")
    assert unnamed(page) == []
    page.locator("#histogram").focus()
    page.select_option("#field", "fps")
    page.wait_for_function("() => histogram.field === 'fps'")
    page.locator("#histogram").focus()
    for key in ("ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of 4')")  # 12 a second
    page.click("#clear")
    page.wait_for_function("() => document.querySelectorAll('.card img').length === 4")
    page.locator(".card").first.focus()
    for key in ("ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("() => state.clip?.key === 'clip-1'")
    settled(page, 0)
    assert unnamed(page) == []
    page.keyboard.press("l")
    page.wait_for_function(
        f"() => document.querySelector('.reading').textContent.startsWith('({W // 2 + 1}, {H // 2})')"
    )
    page.keyboard.press("ArrowRight")
    settled(page, 1)
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement.textContent.startsWith('clip-1')")  # where one was


class Held:
    """Requests that wait, in `routes`, to be continued in any order, until all may pass."""

    def __init__(self, page: Any, pattern: str) -> None:
        self.routes: list[Any] = []
        self._page, self._passes = page, False
        page.route(re.compile(pattern), self._take)

    def until(self, number: int) -> None:
        """Wait until so many wait."""
        while len(self.routes) < number:
            self._page.wait_for_timeout(20)

    def let(self) -> None:
        """Let all pass, the last first."""
        self._passes = True
        for route in reversed(self.routes):
            route.continue_()

    def _take(self, route: Any) -> None:
        if self._passes:
            route.continue_()
        else:
            self.routes.append(route)


def test_a_click_counts_though_the_card_begins_to_play_under_it(viewer: Viewer, page: Any) -> None:
    """Chromium gives no click where what was pressed has left the page before the button is let go."""
    played = Held(page, "/api/frames")
    page.goto(viewer.url)
    page.wait_for_selector(".card img")
    place = page.locator(".card").first.bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + 40)
    played.until(1)
    page.mouse.down()
    played.let()
    page.wait_for_selector(".card canvas")
    page.mouse.up()
    settled(page, 0)


def test_what_is_typed_before_the_first_answer_counts(viewer: Viewer, page: Any) -> None:
    about = Held(page, "/api/about")
    page.goto(viewer.url)
    about.until(1)
    page.fill("#words", "BARS 25")
    about.let()
    page.wait_for_function("() => state.facets && document.getElementById('count').textContent.startsWith('1 of 4')")
    assert page.input_value("#words") == "BARS 25"


def test_answers_may_come_in_any_order(viewer: Viewer, page: Any) -> None:
    page.goto(viewer.url)
    page.wait_for_function("() => state.facets && histogram && document.querySelectorAll('.card img').length === 4")
    asked = Held(page, "/api/histogram")
    for field in ("fps", "frames"):
        page.select_option("#field", field)
    asked.until(2)
    asked.routes[1].continue_()
    page.wait_for_function("() => histogram.field === 'frames'")
    with page.expect_response(re.compile("/api/histogram.*fps")):
        asked.routes[0].continue_()
    # Words are searched for a moment after they were typed: by then a clip may be open, whose address must stay.
    page.evaluate("() => { $('words').value = 'x'; $('words').dispatchEvent(new Event('input')); }")
    arrows = Held(page, "/api/arrows")
    page.evaluate("location.hash = 'clip=clip-1&frame=3'")
    settled(page, 3)
    page.wait_for_timeout(300)
    assert page.evaluate("[histogram.field, location.hash]") == ["frames", "#clip=clip-1&frame=3"]
    page.check("#arrows")
    arrows.until(2)  # of the clip and of its truth
    page.evaluate("player.show(5)")
    arrows.until(4)
    arrows.let()
    drawn = "() => player.panes.filter(pane => pane.arrows).map(pane => pane.arrows.frame)"
    page.wait_for_function(f"() => JSON.stringify(({drawn})()) === '[5,5]'")


def test_errors_keep_no_column_waiting_and_flags_no_clip_but_theirs(viewer: Viewer, page: Any) -> None:
    errors = Held(page, "/api/frame.*source=error")
    page.goto(f"{viewer.url}#clip=clip-0&frame=2")
    page.wait_for_function(
        "() => document.querySelectorAll(`.pane:not([data-source='error']) canvas[data-frame='2']`).length === 10"
    )
    errors.until(1)
    errors.let()
    settled(page, 2)
    next_clip = Held(page, r"/api/clip\?")
    page.evaluate("location.hash = 'clip=clip-1'")
    next_clip.until(1)
    assert page.is_disabled("#reason")  # it says nothing of a clip that is not there yet
    assert page.is_disabled("#after")
    next_clip.let()
    settled(page, 0)
    assert page.is_enabled("#reason")


def test_exact_truth_is_seen_before_all_of_it_is_decoded(dataset: Path) -> None:
    clips = Clips(Stored(openuni.open(dataset)))
    first = clips.frame("clip-0", "depth", 3)
    assert clips.held < 2 * T * H * W  # of 4 · T · H · W bytes of the clip
    assert "yellow 2 m, violet 7.5 m" in clips.legend("clip-0", "depth")
    again = clips.frame("clip-0", "depth", 3)
    run = clips.run("clip-0", "depth", 3, 1)
    assert run[4:] == again  # in the colours of the clip, as its other frames
    assert len(first) > 0
