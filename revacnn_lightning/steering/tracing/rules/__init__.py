"""What each operation does to channels: one rule per aten operation or family of them.

A rule reads the labels of a call's inputs and sets those of its outputs. Rules never guess:
channels whose path is not understood are fixed.
"""
