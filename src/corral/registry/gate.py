"""Lets requests in or not: who asks, and may they?  One of three gates, by the configuration."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Protocol
from urllib.parse import parse_qs

from corral.errors import Forbidden, Unauthorized
from corral.registry.http.messages import Answer, Request, json
from corral.registry.passwords import BadPassword, Passwords
from corral.registry.refusals import Coded
from corral.registry.rights import Rights
from corral.registry.tokens import BadToken, Claims, Issuer, Verifier, parse_scopes

CATALOG = "*"
_FORM_MAX_BYTES = 64 << 10


class LoginNeeded(Coded, Unauthorized):
    """Nobody has said who asks, or not somebody who counts; says where to log in."""

    code = "UNAUTHORIZED"

    def __init__(self, challenge: str, why: str = "authentication required") -> None:
        super().__init__(why)
        self.headers = (("WWW-Authenticate", challenge),)


class Denied(Coded, Forbidden):
    """The user may not do that."""

    code = "DENIED"

    def __init__(self) -> None:
        super().__init__("requested access to the resource is denied")


class Gate(Protocol):
    """What the handlers ask."""

    def check(self, request: Request, repository: str, action: str) -> None:
        """Raise LoginNeeded or Denied unless the request may do that."""

    def may(self, request: Request, repository: str, action: str) -> bool:
        """Whether it may."""

    def greet(self, request: Request) -> None:
        """For `/v2/`: raise LoginNeeded unless somebody has logged in."""


class Open:
    """Everybody may do everything."""

    def check(self, request: Request, repository: str, action: str) -> None:
        pass

    def may(self, request: Request, repository: str, action: str) -> bool:
        return True

    def greet(self, request: Request) -> None:
        pass


class Basic:
    """User and password in every request."""

    def __init__(self, passwords: Passwords, rights: Rights, realm: str) -> None:
        self._passwords = passwords
        self._rights = rights
        quoted = realm.replace('"', "'")
        self._challenge = f'Basic realm="{quoted}"'

    def check(self, request: Request, repository: str, action: str) -> None:
        user = self._user(request)
        if not self._rights.may(user, repository, action):
            raise Denied() if user else LoginNeeded(self._challenge)

    def may(self, request: Request, repository: str, action: str) -> bool:
        return self._rights.may(self._user(request), repository, action)

    def greet(self, request: Request) -> None:
        # Also where anonymous users may pull: clients learn here that they can log in at all.
        if not self._user(request):
            raise LoginNeeded(self._challenge)

    def _user(self, request: Request) -> str:
        try:
            request.user = authenticate(request, self._passwords)
        except BadPassword as error:
            raise LoginNeeded(self._challenge, str(error)) from error
        return request.user


class Bearer:
    """A token in every request."""

    def __init__(self, verifier: Verifier, service: str, realm: str) -> None:
        """`realm`: the token server's address, or a path on this server."""
        self._verifier = verifier
        self._service = service
        self._realm = realm

    def check(self, request: Request, repository: str, action: str) -> None:
        claims = self._claims(request, repository, action)
        if claims is None or not claims.allows(*_resource(repository), action):
            raise LoginNeeded(
                self._challenge(request, repository, action, "insufficient_scope" if claims is not None else "")
            )

    def may(self, request: Request, repository: str, action: str) -> bool:
        claims = self._claims(request, repository, action)
        return claims is not None and claims.allows(*_resource(repository), action)

    def greet(self, request: Request) -> None:
        if self._claims(request, "", "") is None:
            raise LoginNeeded(self._challenge(request, "", "", ""))

    def _claims(self, request: Request, repository: str, action: str) -> Claims | None:
        scheme, _, token = request.head.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = self._verifier.verify(token.strip())
        except BadToken as error:
            challenge = self._challenge(request, repository, action, "invalid_token")
            raise LoginNeeded(challenge, str(error)) from error
        request.user = claims.user
        return claims

    def _challenge(self, request: Request, repository: str, action: str, error: str) -> str:
        realm = self._realm
        if realm.startswith("/"):
            host = request.head.headers.get("host", "localhost").replace('"', "")
            realm = f"{'https' if request.secure else 'http'}://{host}{realm}"
        words = f'Bearer realm="{realm}",service="{self._service}"'
        if action:
            kind, name = _resource(repository)
            actions = {"push": "pull,push", "catalog": "*"}.get(action, action)
            words += f',scope="{kind}:{name}:{actions}"'
        return words + (f',error="{error}"' if error else "")


def _resource(repository: str) -> tuple[str, str]:
    return ("registry", "catalog") if repository == CATALOG else ("repository", repository)


def authenticate(request: Request, passwords: Passwords) -> str:
    """The user of a request's basic credentials, "" without any; raises BadPassword."""
    scheme, _, value = request.head.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise BadPassword() from error
    if not colon:
        raise BadPassword()
    passwords.verify(user, password)
    return user


class TokenEndpoint:
    """`GET /token` and its OAuth2 form `POST /token`: tokens for users of the htpasswd file, and for anonymous ones."""

    def __init__(self, issuer: Issuer, passwords: Passwords, rights: Rights) -> None:
        self._issuer = issuer
        self._passwords = passwords
        self._rights = rights

    def answer(self, request: Request) -> Answer:
        """A token with those of the actions asked for that the user may do."""
        query = request.head.query
        try:
            if request.head.method == "POST":
                query = parse_qs(request.read(_FORM_MAX_BYTES).decode("utf-8", "replace"), max_num_fields=20)
                user = self._user_of_form(query)
            else:
                user = authenticate(request, self._passwords)
        except (BadPassword, ValueError) as error:
            raise LoginNeeded('Basic realm="token"', str(error)) from error
        request.user = user
        access: list[dict[str, Any]] = []
        for kind, name, actions in parse_scopes(query.get("scope", [])):
            allowed = self._allowed(user, kind, name, actions)
            if allowed:
                access.append({"type": kind, "name": name, "actions": allowed})
        return json(self._issuer.issue(user, access), headers=(("Cache-Control", "no-store"),))

    def _user_of_form(self, form: dict[str, list[str]]) -> str:
        if form.get("grant_type") != ["password"]:
            raise BadPassword()
        user = form.get("username", [""])[0]
        self._passwords.verify(user, form.get("password", [""])[0])
        return user

    def _allowed(self, user: str, kind: str, name: str, actions: list[str]) -> list[str]:
        if kind == "registry" and name == "catalog":
            return ["*", "catalog"] if self._rights.may(user, CATALOG, "catalog") else []
        if kind != "repository":
            return []
        wanted = ["pull", "push", "delete"] if "*" in actions else actions
        return self._rights.allowed(user, name, wanted)
