"""What builds on object stores will rest on: of two writers of one name, one is refused, and nothing is overwritten."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

obstore = pytest.importorskip("obstore")
moto_server = pytest.importorskip("moto.server")

from obstore.store import S3Store  # noqa: E402

WRITERS = 16
ROUNDS = 20


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A bucket on a server of this process, behind one lock: moto checks and writes in two steps, S3 in one."""
    from werkzeug.serving import make_server

    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    application, lock = moto_server.DomainDispatcherApplication(moto_server.create_backend_app), threading.Lock()

    def one_at_a_time(environ: dict[str, object], start: Callable[..., object]) -> list[bytes]:
        with lock:
            return list(application(environ, start))

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        import boto3

        url = f"http://127.0.0.1:{server.server_port}"
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="openuni-test")
        yield S3Store("openuni-test", endpoint=url, client_options={"allow_http": True})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_of_two_library_versions_one_record_wins_and_its_tar_is_whole(bucket: S3Store) -> None:
    """Each version's tar has other bytes; it lies under a name that carries its run, so no loser touches a winner's."""

    def commit(name: str, writer: int) -> bool:
        data = f"tar of version {writer % 2}".encode() * 50
        tar = f"shards/{name}.rgb.{writer:02d}.tar"
        obstore.put(bucket, tar, data, mode="create", use_multipart=False)
        record = {"tar": tar, "sha256": hashlib.sha256(data).hexdigest()}
        try:
            obstore.put(
                bucket, f"commits/{name}.rgb.json", json.dumps(record).encode(), mode="create", use_multipart=False
            )
        except obstore.exceptions.AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(ROUNDS):
            name = f"{number:06d}"
            won = list(pool.map(commit, [name] * WRITERS, range(WRITERS)))
            assert sum(won) == 1
            record = json.loads(bytes(obstore.get(bucket, f"commits/{name}.rgb.json").bytes()))
            assert record["tar"] == f"shards/{name}.rgb.{won.index(True):02d}.tar"
            data = bytes(obstore.get(bucket, record["tar"]).bytes())
            assert hashlib.sha256(data).hexdigest() == record["sha256"]


def test_what_is_there_is_never_written_over(bucket: S3Store) -> None:
    large = b"x" * (6 << 20)
    obstore.put(bucket, "shards/a.tar", large, mode="create", use_multipart=False)
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(bucket, "shards/a.tar", b"y" * (6 << 20), mode="create", use_multipart=False)
    assert bytes(obstore.get(bucket, "shards/a.tar").bytes()) == large
