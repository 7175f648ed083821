"""A relay between this process and the coordinator of a run of several hosts.

JAX's client aborts the process, with a stack trace, in the instant in which its connection to the coordinator breaks.
Its callback for that moment cannot be used from Python: jaxlib 0.10 cannot pass its argument on, and aborts as well.
Through a relay on this host the client sees nothing of the break, and who runs the relay can end the process properly.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

_PROXIES = ("grpc_proxy", "http_proxy", "https_proxy")


def relay(address: str, broken: Callable[[], bool]) -> str:
    """Pass connections on to ``address`` in the background.

    Args:
      address: host:port of the coordinator.
      broken: called when the coordinator's side of a connection ends first; answers whether to hide that from the
        client, whose side then stays open and silent.

    Returns:
      host:port that the client is to connect to.
    """
    host, _, port = address.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    if any(name.lower() in _PROXIES for name in os.environ):
        os.environ.setdefault("no_grpc_proxy", "127.0.0.1")  # or gRPC would look for this host behind the proxy
    threading.Thread(target=_accept, args=(listener, (host.strip("[]"), int(port)), broken), daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, target: tuple[str, int], broken: Callable[[], bool]) -> None:
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(target, timeout=10)
        except OSError:  # not there yet: gRPC tries again for as long as JAX lets it
            near.close()
            continue
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        closed = threading.Event()  # by the client
        threading.Thread(target=_outward, args=(near, far, closed), daemon=True).start()
        threading.Thread(target=_inward, args=(far, near, closed, broken), daemon=True).start()


def _outward(near: socket.socket, far: socket.socket, closed: threading.Event) -> None:
    with contextlib.suppress(OSError):  # if the far side is gone, _inward knows
        while data := near.recv(1 << 16):
            far.sendall(data)
        closed.set()
        far.shutdown(socket.SHUT_WR)


def _inward(far: socket.socket, near: socket.socket, closed: threading.Event, broken: Callable[[], bool]) -> None:
    with contextlib.suppress(OSError):
        while data := far.recv(1 << 16):
            near.sendall(data)
    if closed.is_set() or not broken():
        far.close()
        near.close()
