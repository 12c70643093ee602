"""Bearer tokens: whose keys count for what, and what a token must say."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from corral.registry.tokens import BadKeys, BadToken, Issuer, Verifier, verifier_of_files

FIELDS: dict[str, Any] = {
    "iss": "them",
    "aud": "here",
    "sub": "ann",
    "access": [{"type": "repository", "name": "a", "actions": ["pull"]}],
}
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    data: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return data


def token(key: Any, algorithm: str, kid: str | None = None, **more: Any) -> str:
    fields = {**FIELDS, "exp": int(time.time()) + 60, **more}
    fields = {name: value for name, value in fields.items() if value is not None}
    return jwt.encode(fields, key, algorithm, {"kid": kid} if kid else None)


def verifier(folder: Path, *files: bytes) -> Verifier:
    paths = []
    for number, data in enumerate(files):
        path = folder / f"key{number}"
        path.write_bytes(data)
        paths.append(str(path))
    return verifier_of_files("here", "them", paths)


def test_public_keys_of_every_kind(tmp_path: Path) -> None:
    checks = verifier(tmp_path, pem(RSA), pem(CURVE), pem(EDWARDS))
    for key, algorithm in ((RSA, "RS256"), (RSA, "PS512"), (CURVE, "ES256"), (EDWARDS, "EdDSA")):
        claims = checks.verify(token(key, algorithm))
        assert claims.user == "ann" and claims.allows("repository", "a", "pull")
        assert not claims.allows("repository", "a", "push") and not claims.allows("repository", "b", "pull")


def test_a_key_set(tmp_path: Path) -> None:
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(CURVE.public_key()))
    other = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()))
    keys = {"keys": [{**other, "kid": "one", "alg": "RS256"}, {**public, "kid": "two", "alg": "ES256"}]}
    checks = verifier(tmp_path, json.dumps(keys).encode())
    assert checks.verify(token(CURVE, "ES256", "two")).user == "ann"
    assert checks.verify(token(RSA, "RS256", "somebody's name for it")).user == "ann"
    with pytest.raises(BadToken):
        checks.verify(token(CURVE, "ES256", "one"))


@pytest.mark.parametrize(
    "more",
    [
        {"iss": "me"},
        {"aud": "there"},
        {"exp": 1},
        {"exp": None},
        {"aud": None},
        {"nbf": int(time.time()) + 3600},
        {"access": [3]},
        {"access": [{"type": "repository", "name": "a", "actions": "pull"}]},
    ],
)
def test_tokens_that_do_not_count(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(BadToken):
        verifier(tmp_path, pem(CURVE)).verify(token(CURVE, "ES256", **more))


def test_a_public_key_is_no_shared_secret(tmp_path: Path) -> None:
    """The classic confusion: a token signed with the public key's text as the secret of a symmetric algorithm."""
    import base64
    import hashlib
    import hmac

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = encoded(b'{"alg":"HS256","typ":"JWT"}')
    body = encoded(json.dumps({**FIELDS, "exp": int(time.time()) + 60}).encode())
    signature = encoded(hmac.digest(pem(RSA), f"{head}.{body}".encode(), hashlib.sha256))
    for text in (f"{head}.{body}.{signature}", f"{encoded(b'{}')}.{body}.", "x", "a.b.c", ""):
        with pytest.raises(BadToken):
            verifier(tmp_path, pem(RSA)).verify(text)


def test_keys_that_are_none(tmp_path: Path) -> None:
    secret = {"kty": "oct", "k": "AAAA", "alg": "HS256"}
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(CURVE))
    for data in (
        b"nonsense",
        b"{}",
        b'{"keys": [{}]}',
        *(json.dumps({"keys": [key]}).encode() for key in (secret, private)),
    ):
        with pytest.raises(BadKeys):
            verifier(tmp_path, data)
    with pytest.raises(BadKeys, match="No such file"):
        verifier_of_files("here", "them", [str(tmp_path / "nothing")])
    with pytest.raises(BadKeys, match="no key"):
        verifier(tmp_path, b'{"keys": []}')


def test_our_own(tmp_path: Path) -> None:
    first, second = (Issuer("corral", str(tmp_path / "key")) for _ in range(2))
    answer = first.issue("ann", [{"type": "repository", "name": "a", "actions": ["pull"]}])
    assert answer["token"] == answer["access_token"] and answer["expires_in"] == 300
    assert second.verifier().verify(answer["token"]).allows("repository", "a", "pull")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadToken):
        Issuer("corral", str(tmp_path / "other")).verifier().verify(answer["token"])
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(BadKeys, match="too short"):
        Issuer("corral", str(tmp_path / "short"))
