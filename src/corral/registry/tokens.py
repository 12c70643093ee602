"""Bearer tokens (distribution's token authentication specification): checking them, and giving them out.

Tokens of others are checked with the public keys of the configuration, ours with a secret of the root, which all
processes that serve it share.  Which algorithm a key may be used with depends on the key, never on the token.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt

from corral.errors import InvalidParameter, Unauthorized
from corral.registry.refusals import Coded

LIFETIME_S = 300
_LEEWAY_S = 60
_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class BadKeys(InvalidParameter):
    """A file of keys that cannot be used."""


class BadToken(Coded, Unauthorized):
    """A token that does not count."""

    code = "UNAUTHORIZED"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says: whose it is, and what it allows."""

    user: str
    access: tuple[tuple[str, str, tuple[str, ...]], ...]  # kind, name, actions

    def allows(self, kind: str, name: str, action: str) -> bool:
        """Whether the action is allowed on that."""
        return any(
            entry[0] == kind and entry[1] == name and (action in entry[2] or "*" in entry[2]) for entry in self.access
        )


class Verifier:
    """Checks tokens of one issuer for one service."""

    def __init__(self, service: str, issuer: str, keys: list[tuple[Any, tuple[str, ...], str]]) -> None:
        """`keys`: key, algorithms, key id ("" if it has none)."""
        self._service = service
        self._issuer = issuer
        self._keys = keys

    def verify(self, token: str) -> Claims:
        """What a token says; raises BadToken."""
        error: Exception | None = None
        try:
            wanted = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError as problem:
            raise BadToken(f"invalid token: {problem}") from problem
        keys = [entry for entry in self._keys if wanted and entry[2] == wanted] or self._keys
        for key, algorithms, _ in keys:
            try:
                fields = jwt.decode(
                    token,
                    key,
                    algorithms=list(algorithms),
                    audience=self._service,
                    issuer=self._issuer,
                    leeway=_LEEWAY_S,
                    options={"require": ["exp", "aud", "iss"], "verify_sub": False},
                )
                return _claims(fields)
            except (jwt.PyJWTError, ValueError) as problem:
                error = problem
        raise BadToken(f"invalid token: {error}") from error


def _claims(fields: dict[str, Any]) -> Claims:
    access = []
    for entry in fields.get("access") or ():
        if not isinstance(entry, dict) or not isinstance(entry.get("actions"), list):
            raise BadToken("invalid token: malformed access")
        actions = tuple(str(action) for action in entry["actions"])
        access.append((str(entry.get("type")), str(entry.get("name")), actions))
    return Claims(str(fields.get("sub") or ""), tuple(access))


def verifier_of_files(service: str, issuer: str, paths: list[str]) -> Verifier:
    """A verifier with public keys or certificates (PEM), or key sets (JWKS); raises BadKeys."""
    keys: list[tuple[Any, tuple[str, ...], str]] = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read()
            keys += _key_set(data) if data.lstrip().startswith(b"{") else _pem(data)
        except OSError as error:
            raise BadKeys(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, jwt.PyJWTError) as error:
            raise BadKeys(f"cannot read keys from {path}: {error}") from error
    if not keys:
        raise BadKeys("there is no key to check tokens with")
    return Verifier(service, issuer, keys)


def _key_set(data: bytes) -> list[tuple[Any, tuple[str, ...], str]]:
    found: list[tuple[Any, tuple[str, ...], str]] = []
    for fields in json.loads(data)["keys"]:
        key = jwt.PyJWK(fields)
        if fields.get("kty") == "oct" or "d" in fields:
            raise ValueError("a key set must hold public keys only")
        found.append((key.key, (str(key.algorithm_name),), str(fields.get("kid", ""))))
    return found


def _pem(data: bytes) -> list[tuple[Any, tuple[str, ...], str]]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificates

    keys = (
        [certificate.public_key() for certificate in load_pem_x509_certificates(data)]
        if b"BEGIN CERTIFICATE" in data
        else [load_pem_public_key(data)]
    )
    found: list[tuple[Any, tuple[str, ...], str]] = []
    for key in keys:
        if isinstance(key, rsa.RSAPublicKey):
            found.append((key, _ASYMMETRIC[:6], ""))
        elif isinstance(key, ec.EllipticCurvePublicKey):
            found.append((key, _ASYMMETRIC[6:9], ""))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            found.append((key, _ASYMMETRIC[9:], ""))
        else:
            raise ValueError("neither RSA, elliptic curve nor Edwards curve")
    return found


class Issuer:
    """Gives tokens out, signed with the root's own secret."""

    def __init__(self, service: str, key_path: str) -> None:
        self._service = service
        self._key = _own_key(key_path)

    def verifier(self) -> Verifier:
        """Checks what this gives out."""
        return Verifier(self._service, self._service, [(self._key, ("HS256",), "")])

    def issue(self, user: str, access: list[dict[str, Any]]) -> dict[str, Any]:
        """The token endpoint's answer."""
        now = int(time.time())
        fields = {
            "iss": self._service,
            "aud": self._service,
            "sub": user,
            "iat": now,
            "nbf": now - 5,
            "exp": now + LIFETIME_S,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        token = jwt.encode(fields, self._key, algorithm="HS256")
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        return {"token": token, "access_token": token, "expires_in": LIFETIME_S, "issued_at": issued}


def _own_key(path: str) -> bytes:
    """The secret, made on first use; processes that make it at once end with one."""
    if not os.path.exists(path):
        temporary = f"{path}.{secrets.token_hex(8)}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            file.write(secrets.token_bytes(64))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        os.unlink(temporary)
    with open(path, "rb") as file:
        key = file.read()
    if len(key) < 32:
        raise BadKeys(f"cannot use {path}: it is too short")
    return key


def parse_scopes(texts: list[str]) -> list[tuple[str, str, list[str]]]:
    """`repository:NAME:pull,push` and the like; what cannot be read is left out."""
    found = []
    for text in " ".join(texts).split():
        kind, _, rest = text.partition(":")
        name, colon, actions = rest.rpartition(":")
        if colon and name:
            found.append((kind.partition("(")[0], name, [action for action in actions.split(",") if action]))
    return found[:100]
