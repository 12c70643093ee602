"""The authorization of one worker at one registry: answers its challenges and remembers what worked.

Credentials go to the registry itself and to the token server that it names, and there not in plain text unless the
registry is insecure anyway.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from corral.image import auth
from corral.image.refusals import LoginFailed, RegistryFailed

if TYPE_CHECKING:
    from corral.image.registry import Answer, Registry


class Authorizer:
    """`header` is the value of Authorization that worked last, None before the first challenge."""

    def __init__(self, credentials: Mapping[str, Any], actions: str, insecure: bool) -> None:
        self._credentials = credentials
        self._actions = actions
        self._insecure = insecure
        self.header: str | None = None
        self.sources: list[str] = []  # repositories of the same registry that blobs may be mounted from

    @property
    def has_credentials(self) -> bool:
        return any(self._credentials.get(key) for key in ("username", "auth", "identitytoken", "registrytoken"))

    def answer(self, registry: Registry, challenge: auth.Challenge) -> bool:
        """Prepare `header` for another try; False when there is nothing (more) to offer."""
        if self._credentials.get("registrytoken"):
            mine: str | None = f"Bearer {self._credentials['registrytoken']}"
        elif challenge.scheme == "basic":
            mine = auth.basic(self._credentials)
        elif challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            self.header = "Bearer " + self._bearer(registry, challenge.parameters)
            return True
        else:
            mine = None
        if mine is None or mine == self.header:
            return False
        self.header = mine
        return True

    def _bearer(self, registry: Registry, parameters: Mapping[str, str]) -> str:
        wanted = auth.scopes(parameters.get("scope", ""), registry.repository, self._actions, self.sources)
        fields = self.ask(registry, parameters, wanted, offline=False)
        token = fields.get("token") or fields.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise RegistryFailed(200, "the token server gave no token")
        return token

    def ask(
        self, registry: Registry, parameters: Mapping[str, str], wanted: list[str], *, offline: bool
    ) -> dict[str, Any]:
        """The token server's answer: by OAuth2 with an identity token, else with user and password, else anonymous."""
        realm, service = parameters["realm"], parameters.get("service", "")
        parts = urllib.parse.urlsplit(realm)
        if parts.scheme not in ("http", "https"):
            raise RegistryFailed(401, f"the registry names an unusable token server: {realm[:200]}")
        if parts.scheme != "https" and self.has_credentials and not self._insecure:
            raise LoginFailed(f"refused to send credentials to {realm[:200]}")
        identity = self._credentials.get("identitytoken")
        if identity:
            form = urllib.parse.urlencode(auth.refresh_form(identity, service, wanted)).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = registry.exchange("POST", realm, headers, form)
        else:
            query = urllib.parse.urlencode(auth.token_query(self._credentials, service, wanted, offline))
            mine = auth.basic(self._credentials)
            url = realm + ("&" if "?" in realm else "?") + query
            answer = registry.exchange("GET", url, {"Authorization": mine} if mine else {})
        if answer.status != 200:
            raise registry.denied(answer) if answer.status in (400, 401, 403) else registry.failure(answer)
        return _object(answer)


def _object(answer: Answer) -> dict[str, Any]:
    try:
        fields = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise RegistryFailed(200, "the token server's answer is not JSON") from error
    if not isinstance(fields, dict):
        raise RegistryFailed(200, "the token server's answer is not an object")
    return fields
