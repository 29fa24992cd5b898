from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent.log.escape import visible
from exectrail_agent.tree import render


def access(**more: Any) -> dict[str, Any]:
    return {
        "kind": "Kubernetes",
        "traceId": "T",
        "time": "2026-11-21T05:48:43.5Z",
        "entry.type": "exec",
        "k8s.pod.namespace": "shop",
        "k8s.pod.name": "web",
        "k8s.container.name": "nginx",
        **more,
    }


def command(event: str, parent: str, *words: str) -> dict[str, Any]:
    return {
        "kind": "Command",
        "traceId": "T",
        "eventId": event,
        "parentEventId": parent,
        "process.args": list(words),
    }


def ended(event: str, **how: int | str) -> dict[str, Any]:
    named = {f"exit.{name}": value for name, value in how.items()}
    return {"kind": "CommandExit", "traceId": "T", "eventId": event, **named}


END = {"kind": "SessionEnd", "traceId": "T"}


def test_a_session_is_a_tree() -> None:
    records = [
        access(),
        command("A", "", "sh"),
        command("B", "A", "ls", "my file", ""),
        command("C", "B", "id"),
        command("D", "A", "false"),
        command("E", "A", "sleep", "9"),
        ended("D", code=1),
        ended("E", signal="SIGKILL"),
        ended("B", code=0),
        END,
    ]

    assert render(records) == (
        "shop/web [nginx]  exec\n"
        "  2026-11-21 05:48:43  traceId T\n"
        "  └─ sh\n"
        "     ├─ ls 'my file' ''\n"
        "     │  └─ id\n"
        "     ├─ false   [exit 1]\n"
        "     └─ sleep 9   [signal SIGKILL]\n"
    )


def test_sessions_come_in_the_order_in_which_they_began() -> None:
    records = [access(traceId="2"), access(traceId="1"), command("A", "", "sh")]
    text = render(records)

    assert text.index("traceId 2") < text.index("traceId 1") < text.index("traceId T")
    assert text.count("(still open)") == 3


def test_what_was_rotated_away_leaves_the_rest() -> None:
    text = render([command("B", "gone", "ls"), ended("gone", code=0), END])

    assert "a container that nobody knows" in text
    assert "└─ ls" in text


def test_parents_in_a_ring_hide_nothing() -> None:
    text = render([access(), command("A", "B", "one"), command("B", "A", "two")])
    alone = render([access(), command("A", "A", "itself")])

    assert "one" in text
    assert "two" in text
    assert "itself" in alone


def test_deep_nesting_stays_readable() -> None:
    chain = [command(str(n), str(n - 1), f"depth-{n}") for n in range(3000)]
    text = render([access(), *chain])

    assert "depth-2999" in text
    assert max(map(len, text.splitlines())) < 150


def test_a_terminal_obeys_nothing() -> None:
    text = render([access(**{"k8s.pod.name": "\x1b[2J"}), command("A", "", "\x1b]0;x\x07", "a\nb")])

    assert "\x1b" not in text
    assert "\\x1b[2J" in text
    assert "a\\nb" in text


ANYTHING = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=3)
FIELDS = (*access(), *command("", "", ""), "exit.code", "exit.signal", "container.id")
RECORDS = st.lists(
    st.builds(
        lambda kind, trace, rest: {**rest, "kind": kind, "traceId": trace},
        st.sampled_from(["Kubernetes", "Command", "CommandExit", "SessionEnd", "Loss", None]),
        st.sampled_from(["T", "U", "", None, 7]),
        st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4),
    ),
    max_size=8,
)


@given(RECORDS)
def test_any_records_are_shown_line_by_line(records: list[dict[str, Any]]) -> None:
    text = render(records)

    assert all(character.isprintable() or character == "\n" for character in text)
    shown = [
        each for each in records if each["kind"] == "Command" and each["traceId"] in ("T", "U", "")
    ]
    assert text.count("├─ ") + text.count("└─ ") >= len(shown)


@given(st.text(st.characters()))
def test_visible_text_is_one_printable_line(text: str) -> None:
    assert visible(text).isprintable()
