"""What Cache-Control and Pragma ask of the cache."""

import pytest
from starlette.datastructures import Headers

from torchserve_models.gateway.response_cache.cache_directives import CacheDirectives


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], CacheDirectives()),
        ([("cache-control", "No-Store")], CacheDirectives(no_store=True)),
        ([("cache-control", "max-age=0, no-cache")], CacheDirectives(no_cache=True, max_age_s=0)),
        ([("cache-control", "max-age=1"), ("cache-control", "no-store")], CacheDirectives(True, False, 1)),
        ([("cache-control", 'max-age="5"')], CacheDirectives(max_age_s=5)),
        ([("cache-control", "max-age=many")], CacheDirectives()),
        ([("cache-control", "max-age=" + "9" * 5000)], CacheDirectives()),
        ([("pragma", "no-cache")], CacheDirectives(no_cache=True)),
        ([("pragma", "no-cache"), ("cache-control", "max-age=5")], CacheDirectives(max_age_s=5)),
    ],
)
def test_directives_of_the_client(headers, expected):
    raw = [(name.encode(), value.encode()) for name, value in headers]
    assert CacheDirectives.parse(Headers(raw=raw)) == expected
