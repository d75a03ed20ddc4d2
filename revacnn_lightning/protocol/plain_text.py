"""Text from files and messages on its way to a terminal, a log or a script."""

from __future__ import annotations

__all__ = ["escape_control_characters"]


def escape_control_characters(text: str) -> str:
    r"""Return text on one line, with control characters shown as escapes such as ``\n``.

    A terminal executes escape sequences, a line break ends a comment in a script, and characters
    that change the direction of writing hide what a line says.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
