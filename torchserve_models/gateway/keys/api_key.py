"""API keys: their text, their scopes, and the digest that is stored instead of the text."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

INFERENCE = "inference"
"""Scope for predictions of every model. For one model, the scope is `inference:NAME`."""
MANAGEMENT = "management"
METRICS = "metrics"
ID_BYTES = 6
SECRET_BYTES = 32
"""Random bytes of a key. At 256 bits, a fast hash is safe: slow ones protect secrets that can be guessed."""
_TEXT = re.compile(r"tsm_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_SCOPE = re.compile(rf"{MANAGEMENT}|{METRICS}|{INFERENCE}(?::[^\s/:]{{1,128}})?")
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class ApiKey:
    """A key as stored. It does not contain the text that clients send.

    Attributes:
        id: The public part of the key, for logs, metrics and commands.
        name: What the key is for.
        digest: SHA-256 of the key's text, in hexadecimal digits.
        scopes: INFERENCE, `inference:NAME`, MANAGEMENT or METRICS, at least one.
        created: Time of creation.
        expires: Time from which the key is rejected; None for never.
        rate: Requests per second; None for no limit.

    Raises:
        ValueError: A value is not valid.
    """

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime | None = None
    rate: int | None = None

    def __post_init__(self) -> None:
        if not (self.name and self.name.isprintable()):
            raise ValueError(f"{self.name!r} is not a name of a key; use printable characters")
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"the digest of key {self.id} is not a SHA-256 digest in hexadecimal digits")
        if not self.scopes:
            raise ValueError(f"the key {self.name!r} needs at least one scope")
        for scope in self.scopes:
            check_scope(scope)
        if self.rate is not None and self.rate < 1:
            raise ValueError(f"the rate of key {self.id} must be at least 1 request per second")

    @classmethod
    def create(
        cls,
        name: str,
        scopes: tuple[str, ...],
        *,
        expires: datetime | None = None,
        rate: int | None = None,
    ) -> tuple[Self, str]:
        """Return a new key and its text, which cannot be recovered later. Raises ValueError."""
        key_id = secrets.token_hex(ID_BYTES)
        text = f"tsm_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
        now = datetime.now(UTC).replace(microsecond=0)
        return cls(key_id, name, _digest(text), scopes, now, expires, rate), text

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the key of a JSON object. Raises ValueError, KeyError, TypeError or AttributeError."""
        expires = value.get("expires")
        return cls(
            id=value["id"],
            name=value["name"],
            digest=value["digest"],
            scopes=tuple(value["scopes"]),
            created=_time(value["created"]),
            expires=_time(expires) if expires else None,
            rate=value.get("rate"),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that is stored."""
        return self.describe() | {"digest": self.digest}

    def describe(self) -> dict[str, Any]:
        """Return everything but the digest, as a JSON object."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": list(self.scopes),
            "created": self.created.isoformat(),
            "expires": self.expires.isoformat() if self.expires else None,
            "rate": self.rate,
        }

    def matches(self, text: str) -> bool:
        """Return whether `text` is this key, and the key has not expired. The comparison takes constant time."""
        is_equal = hmac.compare_digest(self.digest, _digest(text))
        return is_equal and not self.has_expired()

    def has_expired(self) -> bool:
        return self.expires is not None and datetime.now(UTC) >= self.expires

    def allows_model(self, model: str) -> bool:
        """Return whether the key may use a model."""
        return self.allows_every_model or f"{INFERENCE}:{model}" in self.scopes

    @property
    def allows_every_model(self) -> bool:
        return INFERENCE in self.scopes

    @property
    def allows_any_model(self) -> bool:
        """Whether the key may use at least one model."""
        return any(scope.partition(":")[0] == INFERENCE for scope in self.scopes)


def check_scope(scope: str) -> str:
    """Return `scope`. Raises ValueError if it is not a scope."""
    if not _SCOPE.fullmatch(scope):
        raise ValueError(
            f"{scope!r} is not a scope; use {INFERENCE}, {INFERENCE}:MODEL, {MANAGEMENT} or {METRICS}"
        )
    return scope


def parse_key_id(text: str) -> str | None:
    """Return the id in the text of a key, or None if the text does not have the form of a key."""
    match = _TEXT.fullmatch(text)
    return match[1] if match else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _time(text: str) -> datetime:
    """Return a time with a time zone. Raises ValueError for any other text."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; append +00:00 for UTC")
    return time
