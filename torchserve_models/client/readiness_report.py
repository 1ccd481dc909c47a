"""Readiness reports of a server and its models, which the supervisor publishes and the gateway uses for probes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torchserve_models.client.errors import ModelNotFound

Key = tuple[str, str]
"""Name and version of a model."""


@dataclass(frozen=True)
class VersionReport:
    """Readiness of one version. `reason` is why it is not ready, `strict_reason` why it is not at full strength."""

    name: str
    version: str
    default: bool
    min_workers: int
    reason: str | None
    strict_reason: str | None

    def problem(self, strict: bool = False) -> str | None:
        """Return why the version is not ready (with `strict`: not at full strength); None if it is."""
        return self.reason or (self.strict_reason if strict else None)

    def as_json(self) -> dict[str, Any]:
        """Return the report as in `GET /state` of the supervisor."""
        return {
            "name": self.name,
            "version": self.version,
            "default": self.default,
            "min_workers": self.min_workers,
            "ready": self.reason is None,
            "reason": self.reason,
            "strict": self.strict_reason is None,
            "strict_reason": self.strict_reason,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Parse the result of `as_json`. Raises KeyError or TypeError for anything else."""
        reason, strict_reason = _read_reasons(value)
        return cls(
            value["name"], value["version"], value["default"], value["min_workers"], reason, strict_reason
        )


@dataclass(frozen=True)
class ServerReport:
    """Readiness of a server and of each of its models.

    Attributes:
        reason: Why the server is not ready; None if it is.
        strict_reason: Why it is not at full strength; None if it is.
        unavailable: Models whose default version cannot be described, was lost, or is another one, with the reason.
        missing: Versions that a restart of the front end could not load again, with the reason.
    """

    reason: str | None
    strict_reason: str | None
    versions: tuple[VersionReport, ...]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[Key, str] = field(default_factory=dict)

    def problem(self, strict: bool = False) -> str | None:
        """Return why the server is not ready (with `strict`: not at full strength); None if it is."""
        return self.reason or (self.strict_reason if strict else None)

    def model_problem(self, name: str, version: str | None = None, strict: bool = False) -> str | None:
        """Return why a model is not ready; None if it is.

        Args:
            name: The model's name.
            version: Its version; the default version if None.
            strict: Require full strength.

        Raises:
            ModelNotFound: The model or version does not exist.
        """
        if version is None and name in self.unavailable:
            return self.unavailable[name]
        versions = [report for report in self.versions if report.name == name]
        for report in versions:
            if report.default if version is None else report.version == version:
                return report.problem(strict)
        if version is not None and (name, version) in self.missing:
            return f"version {version} was not loaded again: {self.missing[name, version]}"
        if name in self.unavailable:
            return self.unavailable[name]
        if not versions:
            raise ModelNotFound(f"Model not found: {name[:60]}", type="ModelNotFoundException")
        if version is None:
            return "the default version of the model is not known"
        raise ModelNotFound(f"Model version: {version[:60]} does not exist for model: {name[:60]}")

    def as_json(self) -> dict[str, Any]:
        """Return the report as in `GET /state` of the supervisor."""
        return {
            "ready": self.reason is None,
            "reason": self.reason,
            "strict": self.strict_reason is None,
            "strict_reason": self.strict_reason,
            "models": [version.as_json() for version in self.versions],
            "unavailable": dict(self.unavailable),
            "missing": [
                {"name": name, "version": version, "reason": reason}
                for (name, version), reason in self.missing.items()
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Parse the result of `as_json`. Raises KeyError or TypeError for anything else."""
        return cls(
            *_read_reasons(value),
            tuple(VersionReport.from_json(version) for version in value["models"]),
            dict(value["unavailable"]),
            {(lost["name"], lost["version"]): lost["reason"] for lost in value["missing"]},
        )


def _read_reasons(value: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return `reason` and `strict_reason` of a JSON report. Raises KeyError if a field is missing."""
    reason = None if value["ready"] else str(value["reason"] or "not ready")
    strict_reason = None if value["strict"] else str(value["strict_reason"] or "not at full strength")
    return reason, strict_reason
