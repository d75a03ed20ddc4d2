"""Text from files and messages has no effect where it is shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from revacnn_lightning.protocol.plain_text import escape_control_characters


def test_control_characters_are_shown():
    assert (
        escape_control_characters("a\nb\x1b[31m\x07\u202ec\u2028")
        == r"a\nb\x1b[31m\x07\u202ec\u2028"
    )
    assert (
        escape_control_characters("Entferne 2 Filter von »conv²«")
        == "Entferne 2 Filter von »conv²«"
    )


@given(st.text(alphabet=st.characters()))
def test_the_result_is_printable_and_encodable(text: str):
    plain = escape_control_characters(text)
    assert plain.isprintable()
    plain.encode()
