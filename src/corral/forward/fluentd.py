"""The `fluentd` driver, over the library that Fluentd's authors keep."""

from __future__ import annotations

from collections.abc import Mapping

from corral.errors import InvalidParameter
from corral.forward.addresses import Address, parse_address
from corral.forward.details import Described
from corral.forward.lines import Line
from corral.quantities import parse_size

SCHEMES = ("tcp", "unix")
_PORT = 24224
_BUFFER_BYTES = 1 << 20
_CONNECT_S = 3.0


class BadFluentdOption(InvalidParameter):
    """An option of the driver with a value that it does not have."""


def check(options: Mapping[str, str]) -> Address:
    """The address; raises BadFluentdOption or BadAddress unless the driver can be opened with these."""
    for name in ("fluentd-async", "fluentd-sub-second-precision"):
        if options.get(name, "false") not in ("true", "false", "1", "0"):
            raise BadFluentdOption(f"log opt '{name}': {options[name]!r} is neither true nor false")
    try:
        parse_size(options.get("fluentd-buffer-limit", "1m"))
    except ValueError as error:
        raise BadFluentdOption(f"log opt 'fluentd-buffer-limit': {error}") from error
    text = options.get("fluentd-address", "") or f"tcp://127.0.0.1:{_PORT}"
    return parse_address("fluentd-address", text if "://" in text else f"tcp://{text}", SCHEMES, _PORT)


class Fluentd:
    """A sender, which keeps what cannot be sent yet up to its buffer's limit."""

    def __init__(self, options: Mapping[str, str], container: Described, tag: str, extras: Mapping[str, str]) -> None:
        """Raises OSError unless the server answers, or `fluentd-async` is on."""
        from fluent.sender import EventTime, FluentSender

        address = check(options)
        host = f"unix://{address.path}" if address.path else address.host
        self._precise = options.get("fluentd-sub-second-precision", "false") in ("true", "1")
        self._event_time = EventTime
        limit = parse_size(options.get("fluentd-buffer-limit", "1m")) or _BUFFER_BYTES
        self._sender = FluentSender(tag, host=host, port=address.port, timeout=_CONNECT_S, bufmax=limit)
        if options.get("fluentd-async", "false") not in ("true", "1"):
            self._try(address)
        self._fields = {"container_id": container.id, "container_name": f"/{container.name}", **extras}

    def _try(self, address: Address) -> None:
        import socket

        family = socket.AF_UNIX if address.path else None
        if family is not None:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.connect(address.path)
        else:
            socket.create_connection((address.host, address.port), _CONNECT_S).close()

    def write(self, line: Line) -> None:
        """Send a line, or keep it for the next try."""
        seconds = line.time_ns / 1e9
        when = self._event_time(seconds) if self._precise else int(seconds)
        data = {**self._fields, "source": line.stream, "log": line.text.decode("utf-8", "replace")}
        if line.partial:
            data["partial_message"] = "true"
        self._sender.emit_with_time(None, when, data)

    def close(self) -> None:
        """Send what is left and close."""
        self._sender.close()
