import pytest

from exectrail.errors import UsageError
from exectrail.site.waves import may_go_on, plan

DEFAULT = (1, "10%", "25%")


@pytest.mark.parametrize(
    ("hosts", "sizes", "lengths"),
    [
        (0, DEFAULT, []),
        (1, DEFAULT, [1]),
        (3, DEFAULT, [1, 1, 1]),
        (50, DEFAULT, [1, 5, 12, 12, 12, 8]),
        (5, ("100%",), [5]),
        (5, ("2",), [2, 2, 1]),
        (5, (1, "50 %"), [1, 2, 2]),
    ],
)
def test_waves_hold_every_host_once_in_order(
    hosts: int, sizes: tuple[int | str, ...], lengths: list[int]
) -> None:
    names = [f"n{number}" for number in range(hosts)]
    waves = plan(names, sizes)

    assert [len(wave) for wave in waves] == lengths
    assert [host for wave in waves for host in wave] == names


@pytest.mark.parametrize("size", [0, "0%", "101%", "many", "", "-1", 1.5])
def test_what_is_no_size_is_refused(size: int | str) -> None:
    with pytest.raises(UsageError, match="no size of a wave"):
        plan([], [1, size])


def test_no_waves_are_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        plan(["n"], [])


@pytest.mark.parametrize(
    ("failed", "percentage", "goes"),
    [
        ("", 0, True),
        ("a", 99, False),
        ("a", 100, True),
        ("b", 10, True),
        ("b", 9, False),
        ("bc", 10, False),
    ],
)
def test_a_failed_first_wave_or_too_many_failures_stop_the_rest(
    failed: str, percentage: int, *, goes: bool
) -> None:
    assert may_go_on(first="a", failed=failed, total=10, percentage=percentage) is goes
