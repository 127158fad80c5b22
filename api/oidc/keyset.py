"""The public keys of a provider, as its JWKS (RFC 7517) lists them."""

from collections.abc import Iterator
from typing import Any

import jwt

# By kind of key and, where the algorithm has one of its own, by curve. Only asymmetric ones: with a
# shared secret whoever verifies could sign, and the public key would do for one.
_ALGORITHMS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", ("P-256",)),
    "ES384": ("EC", ("P-384",)),
    "ES512": ("EC", ("P-521",)),
    "EdDSA": ("OKP", ("Ed25519", "Ed448")),
}
ALGORITHMS = frozenset(_ALGORITHMS)

MIN_RSA_BITS = 2048
# A provider has a few keys; nobody's list makes us try hundreds.
_MOST = 32


class KeySet:
    """Public keys by their id."""

    def __init__(self, document: object) -> None:
        """Read a JWKS; raises ValueError for what is none. Keys of other uses are left out."""
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ValueError("its JWKS has no list of keys")
        self._keys = [key for key in listed[:_MOST] if isinstance(key, dict) and _verifies(key)]
        self._read: dict[tuple[int, str], jwt.PyJWK | None] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, kid: object, algorithm: str) -> Iterator[jwt.PyJWK]:
        """Yield the keys that may have signed; of a token that names none, all of the kind."""
        for index, key in enumerate(self._keys):
            if (kid is None or key.get("kid") == kid) and _fits(key, algorithm):
                found = self._parsed(index, algorithm)
                if found is not None:
                    yield found

    def _parsed(self, index: int, algorithm: str) -> jwt.PyJWK | None:
        at = index, algorithm
        if at not in self._read:
            self._read[at] = _parse(self._keys[index], algorithm)
        return self._read[at]


def _verifies(key: dict[str, Any]) -> bool:
    return key.get("use", "sig") == "sig" and "verify" in key.get("key_ops", ["verify"])


def _fits(key: dict[str, Any], algorithm: str) -> bool:
    kind, curves = _ALGORITHMS[algorithm]
    alike = key.get("kty") == kind and key.get("alg", algorithm) == algorithm
    return alike and (curves is None or key.get("crv") in curves)


def _parse(key: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        parsed = jwt.PyJWK(key, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    weak = key["kty"] == "RSA" and parsed.key.key_size < MIN_RSA_BITS
    return None if weak else parsed
