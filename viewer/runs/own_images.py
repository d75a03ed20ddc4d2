"""Images that tabs make: pictures of a person's own, and images with patches painted over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.inspection_requests import PaintImage, Patch, ShowPicture
from revacnn_lightning.protocol.messages import Message, Refused, Reply
from revacnn_lightning.protocol.pictures import new_image_index, picture_requests

__all__ = ["OwnImageSender"]

MAX_REMEMBERED = 256  # painted images, and requests whose replies are pending

Send = Callable[[ShowPicture | PaintImage], str]  # returns the request id


class OwnImageSender:
    """Sends the images of one run that tabs make, and knows what is under the paint.

    Attributes:
        refused: why the training did not make the last image; "" if it did.
        revision: incremented with every refusal and every image.
    """

    def __init__(self) -> None:
        self.refused = ""
        self.revision = 0
        self._painted: OrderedDict[int, tuple[int, int | None]] = OrderedDict()  # -> base, origin
        self._requests: OrderedDict[str, int] = OrderedDict()  # request id -> index of the image

    def send_picture(self, pixels: np.ndarray, send: Send) -> int | None:
        """Send a picture to the run as an input, uint8 (H, W, 3).

        Return the index of its image; None if it cannot be sent.
        """
        index = new_image_index()
        return self._send(index, picture_requests(index, pixels), send)

    def paint(self, image: int | None, patches: Sequence[Patch], send: Send) -> int | None:
        """Paint patches over an image instead of those that were painted before.

        Args:
            image: the shown image, which may be painted already; None: the input of the batch.
            patches: all that are to be painted.
            send: sends a request.

        Returns:
            The index of the painted image. Without patches, or if it cannot be sent, that of the
            image under the paint.
        """
        base, origin = self._painted.get(image or 0, (image, image))
        if not patches:
            self.refused = ""
            return origin
        requests = []
        if base is None:  # the input of the batch changes with every batch: keep this one
            base = new_image_index()
            requests.append(PaintImage(base))
        index = new_image_index()
        sent = self._send(index, [*requests, PaintImage(index, base, list(patches))], send)
        if sent is None:
            return origin
        self._painted[index] = base, origin
        while len(self._painted) > MAX_REMEMBERED:
            self._painted.popitem(last=False)
        return index

    def unpainted_image(self, image: int | None) -> int | None:
        """Return the image under the paint of an image; itself if it is not painted."""
        return self._painted.get(image or 0, (image, image))[1]

    def is_painted(self, image: int | None) -> bool:
        """Return whether patches are painted over an image."""
        return image in self._painted

    def receive(self, message: Message) -> tuple[int, int | None] | None:
        """Store the refusal of an image; return its index, and that of the image to show instead.

        None if the message is no such refusal.
        """
        index = self._requests.pop(message.id, None) if isinstance(message, Reply) else None
        if index is None or not isinstance(message, Refused):
            return None
        self.refused = message.reason
        self.revision += 1
        return index, self.unpainted_image(index) if index in self._painted else None

    def _send(
        self, index: int, requests: Sequence[ShowPicture | PaintImage], send: Send
    ) -> int | None:
        self.refused = ""
        self.revision += 1
        try:
            for request in requests:
                self._requests[send(request)] = index
        except ProtocolError as error:
            self.refused = str(error)
            return None
        while len(self._requests) > MAX_REMEMBERED:
            self._requests.popitem(last=False)
        return index
