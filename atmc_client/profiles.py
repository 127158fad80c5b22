"""Profiles: what one service is called by, and what its user mostly asks for, in a file.

The file is TOML, by default `~/.config/atmc.toml` (`$XDG_CONFIG_HOME/atmc.toml`):

    [profile.team]
    server = "https://atmc.example.com"
    token_command = "gcloud auth print-identity-token"
    ca = "team-ca.pem"
    options.submit = {preset = "fast", epsilon = "8/255"}

A profile has at most one of `token_command`, `token_env` (the name of an environment variable) and
`token`.
"""

import difflib
import os
import stat
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "atmc.toml"
#: The profile that is used where none is named, if it is there.
DEFAULT = "default"

_TOKENS = ("token_command", "token_env", "token")
_TEXTS = ("server", *_TOKENS, "ca")
_OPTIONS = "options"
_READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class WrongProfile(Exception):
    """The file or the profile cannot be used; the message says where and what to do."""


@dataclass(frozen=True)
class Profile:
    """One service and its user's habits.

    Attributes:
        server: its URL; None leaves it to the environment and the default.
        token_command: prints a token of the service's provider.
        token_env: the environment variable that has the key or token.
        token: the key or token itself.
        ca: the file of the authority that signed the service's certificate.
        options: defaults of commands, by command (and by its part: `sweeps`, `watch`), then option.
    """

    server: str | None = None
    token_command: str | None = None
    token_env: str | None = None
    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def key(self) -> str | None:
        """The key or token; raises `WrongProfile` if the variable that has it is not set."""
        if self.token_env is None:
            return self.token
        value = os.environ.get(self.token_env)
        if not value:
            raise WrongProfile(f"the profile's token_env names {self.token_env}, which is not set")
        return value


def default_path() -> Path:
    """Where the file is if nobody says: in `XDG_CONFIG_HOME`, which is `~/.config` by default."""
    home = os.environ.get("XDG_CONFIG_HOME")
    # By the standard one that is not absolute counts as not set.
    folder = Path(home) if home and Path(home).is_absolute() else Path.home() / ".config"
    return folder / NAME


def read_profiles(path: Path) -> dict[str, Profile]:
    """Read the profiles of a file, by name.

    Raises:
        WrongProfile: for what is no TOML, a key that is none, a value of another type, and a file
            that holds a token and that others than its owner may read, or that names a command and
            that they may write.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        try:
            content = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise WrongProfile(f"{path}: not TOML: {error}") from error
    _known(path, "", content, ("profile",))
    tables = _table(path, "profile", content.get("profile", {}))
    found = {name: _profile(path, f"profile.{name}", table) for name, table in tables.items()}
    for name, each in found.items():
        _private(path, mode, f"profile.{name}", each)
    return found


def choose(path: Path, name: str | None, *, must_exist: bool) -> Profile:
    """Return the profile of this name, or the one called `default`, or an empty one.

    Raises:
        WrongProfile: as `read_profiles`, and if there is no file that `must_exist`, or no profile
            that was named.
    """
    if not path.is_file():
        if must_exist or name is not None:
            raise WrongProfile(f"there is no file {path}, in which profiles stand")
        return Profile()
    profiles = read_profiles(path)
    if name is not None and name not in profiles:
        known = ", ".join(profiles) or "none"
        raise WrongProfile(f"{path}: there is no [profile.{name}], only: {known}")
    return profiles.get(name or DEFAULT, Profile())


def _profile(path: Path, place: str, value: Any) -> Profile:
    table = _table(path, place, value)
    _known(path, place, table, (*_TEXTS, _OPTIONS))
    for name in _TEXTS:
        if name in table and not (isinstance(table[name], str) and table[name]):
            raise WrongProfile(f"{path}: {place}.{name}: must be a text")
    given = [name for name in _TOKENS if name in table]
    if len(given) > 1:
        raise WrongProfile(f"{path}: {place}: {' and '.join(given)} exclude each other: give one")
    options = _table(path, f"{place}.{_OPTIONS}", table.get(_OPTIONS, {}))
    texts = {name: table[name] for name in _TEXTS if name in table and name != "ca"}
    ca = table.get("ca")
    if ca is None:
        return Profile(**texts, options=options)
    # A path is of the file's folder, not of wherever the command runs.
    authority = path.parent / Path(ca).expanduser()
    if not authority.is_file():
        raise WrongProfile(f"{path}: {place}.ca: there is no file {authority}")
    return Profile(**texts, ca=authority, options=options)


def _table(path: Path, place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongProfile(f"{path}: {place}: must be a table, [{place}]")
    return value


def _known(path: Path, place: str, table: dict[str, Any], names: Collection[str]) -> None:
    for name in table:
        if name not in names:
            raise WrongProfile(
                f"{path}: {f'{place}.' if place else ''}{name}: {unknown(name, names)}"
            )


def unknown(name: str, names: Collection[str]) -> str:
    """What to say of a key that is none: the one that may be meant, or all that there are."""
    near = difflib.get_close_matches(name, names, 1)
    return f"no such key, perhaps {near[0]}" if near else f"no such key, only: {', '.join(names)}"


def _private(path: Path, mode: int, place: str, profile: Profile) -> None:
    repair = f"chmod 600 {path}"
    if profile.token is not None and mode & _READABLE_BY_OTHERS:
        raise WrongProfile(f"{path}: {place}.token: others may read the file: {repair}")
    # Whoever may write it would say what runs here.
    if profile.token_command is not None and mode & _WRITABLE_BY_OTHERS:
        raise WrongProfile(f"{path}: {place}.token_command: others may write the file: {repair}")
