from itertools import pairwise

import pytest

from exectrail.site.versions import is_older

ORDER = [
    *("1.0.dev1", "1.0a1", "1.0b2.dev1", "1.0b2", "1.0rc1", "1.0", "1.0.post1", "1.0.1"),
    *("1.2", "1.10.dev2", "1.10", "2"),
]


@pytest.mark.parametrize(("earlier", "later"), list(pairwise(ORDER)))
def test_versions_are_ordered_as_those_of_python_packages(earlier: str, later: str) -> None:
    assert is_older(earlier, later)
    assert not is_older(later, earlier)


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1.0.0"), ("v1.2", "1.2"), ("1.0+here", "1.0"), ("1.0", "")]
)
def test_the_same_and_what_is_no_version_are_not_older(one: str, other: str) -> None:
    assert not is_older(one, other)
    assert not is_older(other, one)
