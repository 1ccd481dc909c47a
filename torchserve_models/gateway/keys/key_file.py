"""The file that stores API keys: JSON, replaced atomically, readable only by its owner."""

import json
from collections.abc import Iterable
from pathlib import Path

from torchserve_models.files import PathLock, write_atomic
from torchserve_models.gateway.keys.api_key import ApiKey

SCHEMA_VERSION = 1
_MODE = 0o600


class KeyFileError(Exception):
    """The key file cannot be read, or is not valid. The message contains the reason."""


class KeyFile:
    """A key file, which may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, ApiKey]:
        """Return the keys by id. Raises KeyFileError."""
        try:
            value = json.loads(self.path.read_bytes())
            version = value["version"]
            keys = [ApiKey.from_json(entry) for entry in value["keys"]]
        except OSError as error:
            raise KeyFileError(
                f"cannot read the key file {self.path} ({error.strerror}); "
                "create it with torchserve-models keys create"
            ) from None
        except KeyError as error:
            raise KeyFileError(f"the key file {self.path} is not valid: {error} is missing") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise KeyFileError(f"the key file {self.path} is not valid: {error}") from None
        if version != SCHEMA_VERSION:
            raise KeyFileError(f"the key file {self.path} has version {version}, not {SCHEMA_VERSION}")
        return {key.id: key for key in keys}

    def add(self, key: ApiKey) -> None:
        """Store a further key, in a new file if there is none. Raises KeyFileError or OSError."""
        with PathLock(self.path.parent):
            keys = self.read() if self.path.exists() else {}
            self._write([*keys.values(), key])

    def remove(self, key_id: str) -> ApiKey:
        """Remove a key and return it. Raises KeyFileError if it does not exist, or OSError."""
        with PathLock(self.path.parent):
            keys = self.read()
            try:
                removed = keys.pop(key_id)
            except KeyError:
                raise KeyFileError(
                    f"the key file {self.path} has no key with the id {key_id!r}; "
                    "torchserve-models keys list shows the ids"
                ) from None
            self._write(keys.values())
        return removed

    def _write(self, keys: Iterable[ApiKey]) -> None:
        value = {"version": SCHEMA_VERSION, "keys": [key.as_json() for key in keys]}
        write_atomic(self.path, json.dumps(value, ensure_ascii=False, indent=2) + "\n", sync=True, mode=_MODE)
