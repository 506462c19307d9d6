"""Refuse every connection that leaves this machine. On PYTHONPATH, so that programs the tests start obey it too."""

import ipaddress
import os
import socket

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


class NetworkBlocked(OSError):
    """A test tried to leave the machine."""


def _check(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        if ipaddress.ip_address(str(name).split("%")[0]).is_loopback or str(name) in ("0.0.0.0", "::"):
            return
    except ValueError:
        pass
    raise NetworkBlocked(f"tests are offline: connection to {name!r} refused")


def _checked(original):  # type: ignore[no-untyped-def]
    def connect(self, address):  # type: ignore[no-untyped-def]
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return original(self, address)

    return connect


def _checked_getaddrinfo(host, *args, **kwargs):  # type: ignore[no-untyped-def]
    if host != socket.gethostname():  # looking up oneself leaves nothing
        _check(host)
    return _getaddrinfo(host, *args, **kwargs)


def block() -> None:
    socket.socket.connect = _checked(_connect)  # type: ignore[method-assign]
    socket.socket.connect_ex = _checked(_connect_ex)  # type: ignore[method-assign]
    socket.getaddrinfo = _checked_getaddrinfo


if os.environ.get("LUNGCT_TESTS_OFFLINE"):
    block()
if os.environ.get("LUNGCT_TESTS_START_METHOD"):
    import multiprocessing

    multiprocessing.set_start_method(os.environ["LUNGCT_TESTS_START_METHOD"], force=True)
