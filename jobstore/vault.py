"""Secrets that have to be used again, so no hash will do: sealed where they lie.

Each is encrypted and authenticated (Fernet, of the package `cryptography`) with a key that is not
in the database: whoever reads the database, or its backup, can read and sign nothing. Only who
shows a secret to its owner (the API) or signs with it (the keeper) has the key.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import select
from sqlalchemy.orm import Session

from jobstore.settings import Settings
from jobstore.tables import Webhook

KEY_FILE = "secrets.key"
"""The file in the data folder that has the key where `ATMC_SECRETS_KEY` is not set."""

_AT_ONCE = 1000


class Unreadable(Exception):
    """A secret is sealed with a key that is not here; the message says which, and what to do."""


class Vault:
    """Seals secrets with the first of its keys, and opens what any of them sealed.

    What is sealed begins with a name of its key, `8 hex digits:`. What has none is as it was
    written by a version that sealed nothing.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._boxes = {_name(key): _box(key) for key in keys}
        self._first = _name(keys[0])

    @classmethod
    def from_settings(cls, settings: Settings) -> "Vault":
        """Take the keys of `ATMC_SECRETS_KEY`, or the data folder's own, which is made if need be.

        Raises ValueError if there is none and none can be made.
        """
        if settings.secrets_key is not None:
            return cls(settings.secrets_keys())
        try:
            return cls([_key_of(settings.home)])
        except OSError as error:
            raise ValueError(
                f"ATMC_SECRETS_KEY is not set, and {settings.home / KEY_FILE} cannot be made or "
                f"read ({error.strerror}): set it (openssl rand -hex 24), for API and keeper alike"
            ) from error

    def seal(self, secret: str) -> str:
        """Return the secret as it may lie in the database."""
        return f"{self._first}:{self._boxes[self._first].encrypt(secret.encode()).decode()}"

    def open(self, sealed: str) -> str:
        """Return the secret; raises `Unreadable`."""
        name, colon, token = sealed.partition(":")
        if not colon:
            return sealed
        try:
            return self._boxes[name].decrypt(token.encode()).decode()
        except (KeyError, InvalidToken) as error:
            raise Unreadable(
                f"it is sealed with the key {name}, which ATMC_SECRETS_KEY does not have (any more)"
            ) from error

    def reseal(self, session: Session) -> int:
        """Seal up to a thousand secrets of webhooks anew that the first key did not.

        Returns how many. After the last of them no other key is needed. Raises `Unreadable`.
        """
        others = select(Webhook).where(Webhook.secret.not_like(f"{self._first}:%"))
        found = session.scalars(others.limit(_AT_ONCE).with_for_update(skip_locked=True)).all()
        for webhook in found:
            webhook.secret = self.seal(self.open(webhook.secret))
        session.flush()
        return len(found)


def _box(key: str) -> Fernet:
    # Fernet's own keys have a form of their own. Ours are long random texts, as all our secrets.
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()))


def _name(key: str) -> str:
    return hashlib.sha256(b"name of the key " + key.encode()).hexdigest()[:8]


def _key_of(home: Path) -> str:
    path = home / KEY_FILE
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        # It appears whole, and once, although API and keeper may start at the same time.
        aside = home / f"{KEY_FILE}.{secrets.token_hex(4)}"
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_hex(32)}\n")
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
        finally:
            aside.unlink()
    return path.read_text().strip()
