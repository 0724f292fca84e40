"""The expert of `docs/extend/expert.md`, followed to the letter by a package that nobody has installed before."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import openuni as package
from openuni import assets, experts
from openuni.errors import OpenUniError
from openuni_pipelines.cli import openuni

PAGE = Path(__file__).parents[3] / "docs" / "extend" / "expert.md"


def block(language: str) -> str:
    """The page's first block of code in a language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(openuni, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's package, as pip lays it out."""
    site = tmp_path / "site"
    for folder in ("my_package", "my_package-0.1.dist-info"):
        (site / folder).mkdir(parents=True)
    (site / "my_package" / "depth.py").write_text(block("python"))
    entries = block("toml").partition('[project.entry-points."openuni.experts"]\n')[2].replace('"', "")
    (site / "my_package-0.1.dist-info" / "entry_points.txt").write_text(f"[openuni.experts]\n{entries}")
    (site / "my_package-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-package\nVersion: 0.1\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENUNI_OFFLINE", "1")
    for module in ("my_package", "my_package.depth"):
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.mark.usefixtures("installed")
def test_the_page_followed_to_the_letter_makes_a_column(
    tmp_path: Path, make_clips: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, root = make_clips(tmp_path / "videos", ["a"]), tmp_path / "d"  # type: ignore[operator]
    build = ("build", "--source", "folder", "--videos", videos, "--out", root, "--workers", 0, "--experts", "my_depth")
    assert "Run: openuni assets fetch my-depth" in run(*build, code=1)
    assert "put the file at" in run("assets", "fetch", "my_depth", code=1)
    mirror = tmp_path / "mirror" / "my_depth"
    mirror.mkdir(parents=True)
    np.save(mirror / "weights.npy", np.float32([0.299, 0.587, 0.114]))
    monkeypatch.setenv("OPENUNI_MIRROR", str(mirror.parent))
    run("assets", "fetch", "my_depth")
    assert assets.is_cached(experts.get("my_depth").assets[0])
    run(*build, "--commercial")
    run("verify", root)
    (sample,) = list(package.open(str(root)))
    expected = sample.rgb.frames.astype(np.float32) / 255 @ np.float32([0.299, 0.587, 0.114])
    assert sample.depth.kind == "affine_disparity"
    np.testing.assert_allclose(sample.depth.values, expected, rtol=0.003)  # as builds store it: within .3 %
    assert "| depth | `my_depth` | MIT | MIT | none |" in (root / "README.md").read_text()


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ('    license = "MIT"\n    training', "    training", "does not say its license"),
        ('modality = "depth"', 'modality = "depht"', "makes 'depht', which is no modality: rgb, depth"),
        ('    name = "my_depth"', '    name = "other"', "another name than its own, 'other'"),
        ("    version = 1", '    version = "one"', "has version 'one'"),
        ("class MyDepth(Expert)", "class MyDepth", "is no subclass of openuni.experts.Expert"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_what_a_newcomer_forgets_is_told_before_any_clip_is_read(
    tmp_path: Path, line: str, instead: str, said: str
) -> None:
    page = block("python")
    assert line in page
    (tmp_path / "site" / "my_package" / "depth.py").write_text(page.replace(line, instead))
    with pytest.raises(OpenUniError, match=re.escape(said)) as refused:
        experts.get("my_depth")
    assert str(refused.value).startswith("expert 'my_depth' (my_package.depth.MyDepth) ")
