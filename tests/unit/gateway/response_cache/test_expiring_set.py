"""A set whose items expire."""

from torchserve_models.gateway.response_cache.expiring_set import ExpiringSet


def test_items_expire_and_the_oldest_ones_are_removed_first():
    now = 0.0
    items = ExpiringSet(10, 2, lambda: now)
    items.add("a")
    assert "a" in items
    assert "b" not in items
    now = 9
    items.add("b")
    items.add("a")
    now = 18
    assert "a" in items
    items.add("c")
    assert [item in items for item in "abc"] == [True, False, True]
    now = 19
    assert "a" not in items
