"""Lists of which most sessions need none: an empty one takes as much memory as several things in it."""

from typing import TypeVar

T = TypeVar("T")


def with_item(items: list[T] | None, item: T) -> list[T]:
    """The list with one item more; a new one where there was none."""
    if items is None:
        return [item]
    items.append(item)
    return items
