"""Ray on this machine, or the cluster that somebody runs already."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from openuni.errors import OpenUniError
from openuni.sample import SCHEMA_VERSION

_ANSWER_SECONDS = 40.0
"""A cluster that has not taken us in by then never will: Ray itself would print retries for minutes."""
_SOCKET_NAME = 107
"""The longest path of a Unix socket."""
_SESSION = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.4294967295")
_PROBE = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


def is_connected() -> bool:
    """Whether this process has joined a cluster. Does not import Ray: what is read at its import is set before."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def connect(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at `address`. Quiet, no dashboard, no usage report.

    Raises OpenUniError within a minute where no cluster answers, and where Ray does not start here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address is None:
        _start()
    else:
        _join(address)
    _keep_quiet()
    if callable(on_sigterm) and threading.current_thread() is threading.main_thread():
        # Ray has put its own in place, which exits without a word.
        signal.signal(signal.SIGTERM, on_sigterm)


def _join(address: str) -> None:
    _check_answers(address)
    import ray

    ray.init(address=address, namespace=_namespace(), log_to_driver=False)


def _start() -> None:
    _secure()
    import ray

    # Ray's processes inherit the mask, as Ray itself has it for SIGINT. What `timeout` or a service manager sends
    # to all at once is for the driver to act on: it would die unheard with its raylet.
    unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        # Messages carry paths, never frames: Ray's default share of memory for objects is taken from experts.
        ray.init(
            # Without a name Ray would join whatever cluster somebody runs on this machine.
            address="local",
            num_cpus=os.cpu_count(),
            object_store_memory=128 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            # Nothing outside this machine has business with a build that runs on it alone.
            _node_ip_address="127.0.0.1",
            _temp_dir=_session_folder(),
            namespace=_namespace(),
        )
    except Exception as error:  # Ray raises no class of its own when its processes are not up in time
        ray.shutdown()
        raise OpenUniError(
            f"Ray did not start on this machine ({_first_line(error)}); try again when it is less busy, or use "
            "--workers 0"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)


def _secure() -> None:
    """Let Ray ask for this user's token, and listen on this machine only."""
    # Whoever reaches a port of Ray can run code as this user: only those who have the user's token may.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Ray's name for a cluster that only this machine reaches: else it takes 127.0.0.1 for the outward address.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined]  # compiled, without a stub

    # Ray reads both as it is imported. A program that did so before us would go on without a token, beside a server
    # that asks for one.
    Config.initialize("")
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, False)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _keep_quiet() -> None:
    """Log what Ray says of workers that died: it prints pages to standard output, in the middle of somebody's JSON.

    No option of Ray's turns that off; should the name go, it prints again.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda data, **_: logging.getLogger(__name__).info("\n".join(data["lines"]))


def _namespace() -> str:
    return f"openuni-{SCHEMA_VERSION}"


def _check_answers(address: str) -> None:
    """Join the cluster from another process first: what hangs in Ray's own code cannot be stopped in this one."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise _silent(address, error.strerror or str(error)) from error
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, address],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _silent(address, f"it did not answer within {_ANSWER_SECONDS:g} s") from None
    if probe.returncode:
        said = [line for line in probe.stderr.splitlines() if line.strip()]
        raise _silent(address, said[-1] if said else f"exit status {probe.returncode}")


def _silent(address: str, why: str) -> OpenUniError:
    return OpenUniError(
        f"no Ray cluster can be joined at --ray-address {address} ({why}); check that `ray status --address {address}` "
        "works here, or leave --ray-address out to start Ray on this machine"
    )


def _session_folder() -> str | None:
    """Where Ray keeps its sockets where the usual folder (None) has too long a path for them, as on Slurm and macOS.

    Raises OpenUniError where no short folder can be written.
    """
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(f"{usual}/ray")) + _SESSION <= _SOCKET_NAME:
        return None
    folder = Path(f"/tmp/ray-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owned = folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
    except OSError:
        owned = False
    if not owned:
        raise OpenUniError(
            f"{usual} is too long a path for Ray's sockets, and {folder} is not ours; set RAY_TMPDIR to a folder of "
            f"your own whose path has at most {_SOCKET_NAME - _SESSION - len('/ray')} bytes"
        )
    return str(folder)
