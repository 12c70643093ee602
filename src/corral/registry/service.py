"""Wires the registry: from settings to a surface with all its operations."""

from __future__ import annotations

from corral.registry.blobs import Blobs
from corral.registry.discovery import Discovery
from corral.registry.gate import Basic, Bearer, Gate, Open, TokenEndpoint
from corral.registry.http.messages import Answer, json
from corral.registry.layout import Layout
from corral.registry.manifests import Manifests
from corral.registry.metrics import Metrics
from corral.registry.passwords import Passwords
from corral.registry.pulls import Pulls
from corral.registry.pushes import Pushes
from corral.registry.refusals import ReadOnly
from corral.registry.settings import Settings
from corral.registry.surface import Call, Handler, Operation, Surface
from corral.registry.tokens import Issuer, verifier_of_files
from corral.registry.uploads import Uploads
from corral.registry.upstream import Upstream


class Service:
    """One process's registry."""

    def __init__(self, settings: Settings, layout: Layout, metrics: Metrics) -> None:
        """Raises what the parts raise for a configuration that cannot be used."""
        self._settings = settings
        self._metrics = metrics
        self.gate, tokens = make_gate(settings, layout)
        blobs = Blobs(layout)
        manifests = Manifests(layout, blobs)
        upstream = Upstream(settings.upstream, layout, blobs, manifests, metrics) if settings.upstream else None
        pushes = Pushes(blobs, Uploads(layout, blobs), manifests, self.gate)
        pulls = Pulls(blobs, manifests, upstream)
        operations = self._operations(pulls, pushes, Discovery(layout, manifests, upstream))
        if tokens is not None:
            endpoint: Handler = lambda call: tokens.answer(call.request)  # noqa: E731
            operations["token"] = {"GET": ("", endpoint), "POST": ("", endpoint)}
        self.surface = Surface(self.gate, metrics, operations)

    def _operations(self, pulls: Pulls, pushes: Pushes, discovery: Discovery) -> dict[str, Operation]:
        change = self._change
        return {
            "base": _read("", self._base),
            "health": _read("", self._health),
            "metrics": _read("", self._show_metrics),
            "catalog": _read("catalog", discovery.catalog),
            "tags": _read("pull", discovery.tags),
            "referrers": _read("pull", discovery.referrers),
            "manifests": {
                **_read("pull", pulls.manifest),
                "PUT": ("push", change(pushes.put_manifest)),
                "DELETE": ("delete", change(pushes.delete_manifest)),
            },
            "blobs": {
                "GET": ("pull", pulls.blob),
                "HEAD": ("pull", pulls.blob_head),
                "DELETE": ("delete", change(pushes.delete_blob)),
            },
            "uploads": {"POST": ("push", change(pushes.begin))},
            "upload": {
                **_read("push", pushes.status),
                "PATCH": ("push", change(pushes.append)),
                "PUT": ("push", change(pushes.finish)),
                "DELETE": ("push", change(pushes.cancel)),
            },
        }

    def _change(self, handler: Handler) -> Handler:
        """The handler, or in a read-only registry or a cache one that refuses."""
        if self._settings.upstream is not None:
            return _refuse_cache
        return _refuse_read_only if self._settings.read_only else handler

    def _base(self, call: Call) -> Answer:
        self.gate.greet(call.request)
        return json({})

    @staticmethod
    def _health(call: Call) -> Answer:
        return json({"status": "ok"})

    def _show_metrics(self, call: Call) -> Answer:
        if not self._settings.metrics_anonymous:
            self.gate.greet(call.request)
        return Answer(200, self._metrics.text().encode(), (), "text/plain; version=0.0.4; charset=utf-8")


def _read(action: str, handler: Handler) -> Operation:
    return {"GET": (action, handler), "HEAD": (action, handler)}


def _refuse_read_only(call: Call) -> Answer:
    raise ReadOnly("this registry is read-only")


def _refuse_cache(call: Call) -> Answer:
    raise ReadOnly("this registry is a cache of another one and takes no changes")


def make_gate(settings: Settings, layout: Layout) -> tuple[Gate, TokenEndpoint | None]:
    """The gate that the configuration asks for, and the token endpoint if there is one."""
    auth = settings.auth
    if auth is None:
        return Open(), None
    if auth.token is not None:
        verifier = verifier_of_files(auth.token.service, auth.token.issuer, auth.token.keys)
        return Bearer(verifier, auth.token.service, auth.token.realm), None
    passwords = Passwords(auth.htpasswd)
    if auth.scheme == "basic":
        return Basic(passwords, settings.rules(), auth.realm), None
    issuer = Issuer(auth.realm, layout.token_key())
    return Bearer(issuer.verifier(), auth.realm, "/token"), TokenEndpoint(issuer, passwords, settings.rules())
