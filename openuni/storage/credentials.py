"""Keys and servers of object stores, where the clouds' own tools have them; `obstore` reads the environment alone.

Of AWS that is the environment first, then the profile `AWS_PROFILE` (or `default`) of `~/.aws/config` and
`~/.aws/credentials`: keys, `region` and `endpoint_url`. What a profile gets in other ways (single sign-on, a role, a
process) needs `boto3`. Without any of it, the machine's role is asked for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from functools import cache
from pathlib import Path
from typing import Any

from openuni.errors import PlanError

_METADATA = ("169.254.169.254", 80)
"""Where all three clouds tell a machine its role; elsewhere nobody answers."""
_METADATA_SECONDS = 2.0
_ELSEWHERE = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_", "AWS_SKIP_SIGNATURE",
           "AWS_METADATA_ENDPOINT"),
    "gs": ("GOOGLE_", "GCE_METADATA_"),
    "az": ("AZURE_",),
}  # fmt: skip
"""How the names begin of what says in the environment where keys come from."""
_REMEDY = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_SKIP_SIGNATURE=true if it is public",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_USE_AZURE_CLI=true after `az login`",
}  # fmt: skip
NONE_FOUND = ("169.254.169.254", "metadata.google.internal", "Account must be specified")
"""What errors of obstore say that found no credentials."""
_OTHER_WAYS = ("sso_session", "sso_start_url", "role_arn", "credential_process", "login_session")


def options(scheme: str) -> dict[str, Any]:
    """What the store of `scheme` (s3, gs, az) is to be told beyond the environment, as arguments of obstore.

    Raises PlanError where there are no credentials, or a profile is not there or needs `boto3`.
    """
    profile = _profile() if scheme == "s3" else {}
    told: dict[str, Any] = {}
    if "region" in profile and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys():
        told["region"] = profile["region"]
    if scheme == "s3" and (server := _server(profile)):
        told["endpoint"] = server
    if any(name.startswith(_ELSEWHERE[scheme]) for name in os.environ):
        return told
    if "aws_access_key_id" in profile:
        keys = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        return told | {key.removeprefix("aws_"): profile[key] for key in keys if key in profile}
    if way := next((way for way in _OTHER_WAYS if way in profile), None):
        return told | {"credential_provider": _by_boto3(way)}
    gcloud = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
    if not (scheme == "gs" and gcloud.exists()) and not _is_in_cloud():
        raise none_found(scheme)
    return told


def none_found(scheme: str) -> PlanError:
    """The error where there are no credentials."""
    return PlanError(f"no credentials for {scheme}:// were found; {_REMEDY[scheme]}")


def _server(profile: Mapping[str, str]) -> str:
    """The server that speaks S3, where it is not Amazon's."""
    named = (os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    return next(filter(None, named), profile.get("endpoint_url", ""))


def _profile() -> dict[str, str]:
    """What the files of AWS's tools say of the profile that counts; those of credentials win."""
    name = os.environ.get("AWS_PROFILE", "default")
    home = Path.home() / ".aws"
    config = Path(os.environ.get("AWS_CONFIG_FILE", home / "config")).expanduser()
    shared = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials")).expanduser()
    found: dict[str, str] = {}
    is_there = False
    for path, section in ((config, name if name == "default" else f"profile {name}"), (shared, name)):
        parser = ConfigParser(interpolation=None, default_section="")
        try:
            parser.read(path, encoding="utf-8")
        except (ConfigError, UnicodeDecodeError, OSError) as error:
            raise PlanError(f"{path} cannot be read ({str(error).splitlines()[0]}); correct it") from None
        if parser.has_section(section):
            found |= dict(parser[section])
            is_there = True
    if not is_there and "AWS_PROFILE" in os.environ:
        raise PlanError(f"AWS_PROFILE is {name!r}, a profile that neither {config} nor {shared} has; correct it")
    return found


def _by_boto3(way: str) -> Any:
    name = os.environ.get("AWS_PROFILE", "default")
    try:
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise PlanError(f"the profile {name!r} gets its keys by {way}; for that run: pip install boto3") from None
    try:
        return Boto3CredentialProvider()
    except (BotoCoreError, ValueError) as error:
        raise PlanError(f"the profile {name!r} gives no keys ({error}); run `aws sso login`, or correct it") from None


@cache
def _is_in_cloud() -> bool:
    """Whether something here can tell a role; asking for one where nobody answers takes minutes."""
    try:
        socket.create_connection(_METADATA, _METADATA_SECONDS).close()
    except OSError:
        return False
    return True
