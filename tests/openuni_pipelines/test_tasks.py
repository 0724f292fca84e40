"""What a worker does besides annotating: model files come to a node once; a broken set-up blames no clip."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from openuni import assets
from openuni.experts.base import Expert
from openuni.sample import Annotation
from openuni_pipelines import tasks


class Heavy(Expert):
    name = "heavy"
    version = 1
    modality = "depth"
    licence = "none"
    assets = ("big", "bigger")

    def annotate(self, footage: Any) -> Annotation[Any]:
        raise NotImplementedError


def test_of_several_workers_on_a_node_one_fetches_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(name: str) -> Path:
        time.sleep(0.1)
        (tmp_path / name).write_bytes(b"weights")
        fetched.append(name)
        return tmp_path / name

    monkeypatch.setattr(assets, "folder", lambda: tmp_path)
    monkeypatch.setattr(assets, "is_cached", lambda name: (tmp_path / name).exists())
    monkeypatch.setattr(assets, "fetch", fetch)
    workers = [threading.Thread(target=tasks._stage, args=(Heavy(),)) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(fetched) == ["big", "bigger"]
