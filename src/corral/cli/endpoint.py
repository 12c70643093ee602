"""Which daemon a command talks to: `corral.endpoint`, with its errors as a command's."""

from __future__ import annotations

from corral import endpoint
from corral.cli.problems import CliError
from corral.endpoint import (
    DEFAULT_HOST,
    Endpoint,
    Tls,
    config_folder,
    context_key,
    context_name,
    default,
    read_config,
    tls_of,
)

__all__ = [
    "DEFAULT_HOST", "Endpoint", "Tls", "config_folder", "context_key", "context_name", "default", "from_context",
    "read_config", "resolve", "tls_of",
]  # fmt: skip


def resolve(folder: str, context: str, hosts: list[str], tls: Tls | None) -> Endpoint:
    """The daemon that flags and environment choose; raises CliError for a context that does not exist."""
    if len(hosts) > 1:
        raise CliError("Specify only one -H")
    try:
        return endpoint.resolve(folder, context, hosts, tls)
    except endpoint.NoEndpoint as error:
        raise CliError(str(error)) from None


def from_context(folder: str, name: str) -> Endpoint:
    """The endpoint of a stored context; raises CliError."""
    try:
        return endpoint.from_context(folder, name)
    except endpoint.NoEndpoint as error:
        raise CliError(str(error)) from None
