"""Credentials of object stores: found where the clouds' tools have them, or one sentence at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from openuni.errors import PlanError
from openuni.storage import credentials
from openuni.storage.objects import ObjectStore
from tests.s3 import BUCKET, Server

CLOSED = ("127.0.0.1", 1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with `.aws` and no word of any cloud in the environment, on a machine of no cloud."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "GCE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(credentials, "_METADATA", CLOSED)
    credentials._is_in_cloud.cache_clear()
    (tmp_path / ".aws").mkdir()
    return tmp_path


def test_a_profile_gives_keys_region_and_server(s3: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".aws" / "config").write_text(
        f"[default]\nregion = eu-west-1\n\n[profile lab]\nregion = us-east-1\nendpoint_url = {s3.url}\n"
        "[profile work]\nsso_session = us\n"
    )
    (home / ".aws" / "credentials").write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = b%c\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store = ObjectStore(f"s3://{BUCKET}/d")
    store.put("x", b"1", "run")
    assert store.list("") == ["x"]
    assert credentials.options("s3") == {
        "region": "us-east-1", "endpoint": s3.url, "access_key_id": "a", "secret_access_key": "b%c"
    }  # fmt: skip
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "own")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://here")
    assert credentials.options("s3") == {"endpoint": "https://here"}  # the environment wins
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(PlanError, match=r"the profile 'work' (gives no keys|gets its keys by sso_session)"):
        ObjectStore(f"s3://{BUCKET}/d")
    monkeypatch.setenv("AWS_PROFILE", "typo")
    with pytest.raises(PlanError, match=r"AWS_PROFILE is 'typo', a profile that neither .* has"):
        ObjectStore(f"s3://{BUCKET}/d")
    (home / ".aws" / "config").write_text("region = eu\n")
    with pytest.raises(PlanError, match=r"config cannot be read \(File contains no section headers"):
        ObjectStore(f"s3://{BUCKET}/d")


@pytest.mark.parametrize(
    ("scheme", "remedy"), [("s3", "set AWS_PROFILE"), ("gs", "gcloud auth"), ("az", "AZURE_STORAGE_ACCOUNT_NAME")]
)
def test_without_credentials_one_sentence_comes_at_once(home: Path, scheme: str, remedy: str) -> None:
    pytest.importorskip("obstore")
    with pytest.raises(PlanError, match=f"no credentials for {scheme}:// were found; .*{remedy}"):
        ObjectStore(f"{scheme}://bucket/d")


def test_a_machine_of_a_cloud_is_asked_for_its_role(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as metadata:
        monkeypatch.setattr(credentials, "_METADATA", metadata.getsockname())
        assert credentials.options("s3") == {}
