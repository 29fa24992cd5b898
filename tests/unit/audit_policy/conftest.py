"""A few texts are edited again and again, and reading them is most of what that takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest

from exectrail.audit_policy.manifest import document


@pytest.fixture(autouse=True, scope="session")
def each_text_is_read_once() -> Iterator[None]:
    @lru_cache(maxsize=1000)
    def read(text: str, origin: tuple[int, ...]) -> tuple[document.Node, set[str]]:
        reader = document._Reader(text, [*origin])
        return real(reader), reader.aliased

    def remembered(reader: document._Reader) -> document.Node:
        root, reader.aliased = read(reader._text, tuple(reader._origin))
        return root

    real = document._Reader.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document._Reader, "read", remembered)
        yield
