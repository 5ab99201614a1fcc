"""The server: this machine's own address, one origin, nothing from anywhere else."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import webbrowser
from pathlib import Path
from typing import Any

from priorloom.errors import InputError
from priorloom.registry import Registry

from .files import Root

HOST = "127.0.0.1"


def run_studio(
    registry: Registry, root: Path, scan: Path | None = None, modality: str | None = None, *, port: int | None = None,
    browser: bool = True,
) -> None:  # fmt: skip
    """Serve the studio until Ctrl-C.

    Parameters
    ----------
    registry
        Where components come from.
    root
        The folder under which scans are read and configs are written.
    scan, modality
        What to begin with.
    port
        Of the page; any free one when absent.
    browser
        Whether to open it.

    Raises
    ------
    InputError
        No such folder or scan, an unknown modality, a port that is taken, or the extra [studio] is not installed.
    """
    # Idle threads of torch would spin on the cores that draw the page: measured, iterations take ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    place = Root(root)
    file = None if scan is None else place.scan(scan.absolute())
    if modality is not None:
        registry.modality(modality)
    _require()
    from .app import application

    number = _free(port)
    key = secrets.token_urlsafe(16)
    address = f"http://{HOST}:{number}/?key={key}"
    server = application(registry, place, file, modality, host=HOST, port=number, key=key)
    print(f"studio of {place.path}: {address}", flush=True)
    print("Ctrl-C ends it", flush=True)
    if browser:
        server.io_loop.add_callback(webbrowser.open, address)
    try:
        server.run_until_shutdown()
    except KeyboardInterrupt:
        pass
    finally:
        logging.getLogger("bokeh").setLevel(logging.CRITICAL)


def _require() -> None:
    try:
        import panel  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            "studio", expected="panel", got=f"no module '{error.name}'", cure='pip install "priorloom[studio]"'
        ) from error


def _free(port: int | None) -> int:
    """A port that can be bound now."""
    if port is not None and not 0 <= port < 2**16:
        raise InputError("--port", expected="1 to 65535", got=port)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError as error:
            raise InputError(f"--port {port}", expected="a free port", got=error.strerror) from error
        found: tuple[Any, ...] = probe.getsockname()
        return int(found[1])
