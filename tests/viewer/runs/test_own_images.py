"""Images that tabs make."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.inspection_requests import PaintImage, Patch, ShowPicture
from revacnn_lightning.protocol.messages import Done, Refused
from viewer.runs.own_images import OwnImageSender

PATCH = Patch(0, 0, 0.5, 0.5)


class World:
    def __init__(self) -> None:
        self.own = OwnImageSender()
        self.sent: list[ShowPicture | PaintImage] = []

    def send(self, request: ShowPicture | PaintImage) -> str:
        self.sent.append(request)
        return f"r{len(self.sent)}"

    def paint(self, image: int | None, *patches: Patch) -> int | None:
        self.sent.clear()
        return self.own.paint(image, patches, self.send)


def test_a_picture_is_sent_in_pieces_of_one_image() -> None:
    world = World()
    index = world.own.send_picture(np.zeros((300, 300, 3), np.uint8), world.send)
    assert index is not None
    assert len(world.sent) > 1
    assert {one.index for one in world.sent} == {index}


def test_the_input_of_the_batch_is_kept_before_it_is_painted() -> None:
    world = World()
    first = world.paint(None, PATCH)
    kept, painted = world.sent
    assert (kept.source, kept.patches) == (None, [])
    assert (painted.index, painted.source, painted.patches) == (first, kept.index, [PATCH])
    second = world.paint(first, PATCH, PATCH)
    (again,) = world.sent  # over what was kept, not over the first patch
    assert (again.index, again.source) == (second, kept.index)
    assert second != first
    assert world.own.unpainted_image(second) is None
    assert world.own.is_painted(second)
    assert world.paint(second) is None  # without patches, the batch is shown again
    assert world.sent == []


def test_a_chosen_image_returns_when_its_paint_is_removed() -> None:
    world = World()
    index = world.paint(3, PATCH)
    assert [one.source for one in world.sent] == [3]
    assert world.paint(index) == 3
    assert not world.own.is_painted(3)


def test_a_refused_image_gives_way_to_what_is_under_the_paint() -> None:
    world = World()
    index = world.paint(3, PATCH)
    assert world.own.receive(Done("unrelated")) is None
    assert world.own.receive(Refused("r1", "not an image")) == (index, 3)
    assert world.own.refused == "not an image"
    picture = world.own.send_picture(np.zeros((4, 4, 3), np.uint8), world.send)
    assert world.own.refused == ""
    assert world.own.receive(Refused("r2", "13 channels")) == (picture, None)


def test_an_unreachable_training_is_said() -> None:
    def send(request: object) -> str:
        raise ProtocolError("no training is attached")

    own = OwnImageSender()
    assert own.send_picture(np.zeros((4, 4, 3), np.uint8), send) is None
    assert own.paint(2, [PATCH], send) == 2
    assert own.refused == "no training is attached"
