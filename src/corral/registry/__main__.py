"""`python -m corral.registry serve|gc`: what `corral registry` runs."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from corral.errors import CorralError
from corral.registry import settings as configuration
from corral.registry.settings import Settings


def main(words: list[str] | None = None) -> int:
    """The command; answers the exit status."""
    logging.basicConfig(level=logging.INFO, format="corral registry: %(message)s", stream=sys.stderr)
    options = _parser().parse_args(words)
    try:
        settings = configuration.read(options.config, _flags(options))
        if options.command == "serve":
            from corral.registry.supervisor import serve

            return serve(settings)
        return _collect(settings, options.dry_run)
    except (CorralError, OSError) as error:
        print(f"corral registry: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("corral registry", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", allow_abbrev=False)
    collect = commands.add_parser("gc", allow_abbrev=False)
    for command in (serve, collect):
        command.add_argument("--config")
        command.add_argument("--root")
    serve.add_argument("--listen")
    serve.add_argument("--workers", type=int)
    serve.add_argument("--read-only", action="store_true", default=None)
    serve.add_argument("--htpasswd")
    serve.add_argument("--tlscert")
    serve.add_argument("--tlskey")
    serve.add_argument("--tlscacert")
    serve.add_argument("--upstream")
    serve.add_argument("--access-log")
    collect.add_argument("--dry-run", action="store_true")
    collect.add_argument("--grace")
    return parser


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, as keys of the configuration file."""
    given = {key: value for key, value in vars(options).items() if value is not None}
    flags = {
        key.replace("_", "-"): given[key]
        for key in ("root", "listen", "workers", "read_only", "access_log")
        if key in given
    }
    if "htpasswd" in given:
        flags["auth"] = {"htpasswd": given["htpasswd"]}
    if "upstream" in given:
        flags["upstream"] = {"url": given["upstream"]}
    if "grace" in given:
        flags["collection"] = {"grace": given["grace"]}
    tls = {"tlscert": "certificate", "tlskey": "key", "tlscacert": "client-ca"}
    if tls.keys() & given.keys():
        flags["tls"] = {name: given[flag] for flag, name in tls.items() if flag in given}
    return flags


def _collect(settings: Settings, dry: bool) -> int:
    from corral.registry.collect import Collector
    from corral.registry.layout import open_existing

    report = Collector(settings, open_existing(settings.root), dry).run()
    verb = "would remove" if dry else "removed"
    for what, removed in (("tag", report.tags), ("manifest", report.manifests), ("blob", report.blobs)):
        for name in removed:
            print(f"{verb} {what} {name}")
    print(
        f"{verb} {len(report.tags)} tags, {len(report.manifests)} manifests, {report.links} links, "
        f"{report.uploads} uploads, {len(report.blobs)} blobs ({report.freed_bytes} bytes)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
