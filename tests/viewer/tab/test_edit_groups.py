from __future__ import annotations

from viewer.tab.edit_groups import UndoRedoGroup


def applied(*versions: int) -> UndoRedoGroup:
    groups = UndoRedoGroup()
    groups.begin()
    for version in versions:
        groups.on_applied(version)
    return groups


def test_the_edits_of_one_apply_are_undone_and_redone_together() -> None:
    groups = applied(4, 5, 6)
    assert groups.undo_count(6) == 3
    groups.on_undone(3, 7)
    assert groups.redo_count(7) == 3
    groups.on_redone(3, 8)
    assert groups.undo_count(8) == 3


def test_a_group_ends_when_anything_else_changes_the_network() -> None:
    groups = applied(4, 5)
    assert groups.undo_count(6) == 1
    groups.on_undone(2, 7)
    assert groups.redo_count(8) == 1


def test_edits_before_one_of_another_client_are_not_undone_with_it() -> None:
    assert applied(4, 6).undo_count(6) == 1


def test_each_apply_begins_a_group() -> None:
    groups = applied(4, 5)
    groups.begin()
    groups.on_applied(6)
    assert groups.undo_count(6) == 1
