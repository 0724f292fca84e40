"""A plan with a hole of 1 TiB: `verify` and the next build say so at once instead of hashing it for an hour."""

from __future__ import annotations

from pathlib import Path

from openuni.sample import Clip
from openuni.shards import layout, plan, verify
from openuni.shards.layout import Manifest


def test_it_is_named_and_not_hashed(tmp_path: Path) -> None:
    path = tmp_path / layout.PLAN
    plan.write(path, [Clip("a", "a.mp4")], 1, "run")
    manifest = Manifest({}, {"rgb": "rgb-1-0"}, 1, 1, layout.file_record(path).sha256)
    (tmp_path / layout.MANIFEST).write_bytes(layout.dump_checked(manifest))
    assert verify.verify_plan(tmp_path) == []
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    (problem,) = verify.verify_plan(tmp_path)
    assert problem.what.startswith("is too large for 1 clip;")
