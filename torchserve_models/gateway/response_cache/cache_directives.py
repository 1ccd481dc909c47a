"""What a client's Cache-Control and Pragma headers ask of the response cache (RFC 9111)."""

from dataclasses import dataclass

from starlette.datastructures import Headers


@dataclass(frozen=True)
class CacheDirectives:
    """The directives of one request.

    Attributes:
        no_store: Neither answer from the cache nor store the answer.
        no_cache: Compute the answer anew. It is stored.
        max_age_s: The maximum age of an answer in seconds; None for any.
    """

    no_store: bool = False
    no_cache: bool = False
    max_age_s: int | None = None

    @classmethod
    def parse(cls, headers: Headers) -> "CacheDirectives":
        """Return the directives of a request. Unknown ones are ignored, and Pragma beside Cache-Control."""
        text = ",".join(headers.getlist("cache-control")) or headers.get("pragma", "")
        values = dict(part.strip().partition("=")[::2] for part in text.lower().split(","))
        age = values.get("max-age", "").strip('"')
        max_age_s = int(age) if age.isdecimal() and len(age) < 10 else None
        return cls("no-store" in values, "no-cache" in values, max_age_s)
