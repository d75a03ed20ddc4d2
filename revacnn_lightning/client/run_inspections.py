"""What a run sends of layers, filters and images on request."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from revacnn_lightning.client.run_classes import REPEAT_SECONDS
from revacnn_lightning.client.run_prices import RunPrices
from revacnn_lightning.client.run_requests import POLL_SECONDS
from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.inspections import (
    FilterInspection,
    ImagePass,
    LayerDetail,
    PreferredImage,
)
from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.protocol.pictures import new_image_index, picture_requests, to_rgb_pixels
from revacnn_lightning.protocol.rank_messages import RankValues
from revacnn_lightning.protocol.requests import (
    InspectEvidence,
    InspectFilter,
    InspectGrowth,
    InspectImage,
    InspectLayer,
    InspectRanks,
    KernelSlice,
    PaintImage,
    Patch,
)

__all__ = ["RunInspections"]


class RunInspections(RunPrices):
    """Requests for details of layers, filters and images, which a run computes only on request."""

    def detail(
        self,
        layer: str,
        *,
        image_index: int | None = None,
        kernel_slice: KernelSlice = "strongest",
        timeout: float = 60.0,
    ) -> LayerDetail:
        """Return the coefficients, gradients and activation maps of a layer's filters.

        Args:
            layer: name of a convolution or a linear layer.
            image_index: index of the image whose activation maps are returned: an index into the
                validation data, or the result of `show_picture` or `paint_image`. None selects the
                first image of the batch.
            kernel_slice: what the image of a filter shows if it does not have three input channels.
            timeout: seconds to wait. A running training replies within a batch or two.

        Raises as `apply` does.
        """
        body = InspectLayer(layer, image_index=image_index, kernel_slice=kernel_slice)

        def is_wanted(message: Message) -> bool:
            return (
                isinstance(message, LayerDetail)
                and message.layer == layer
                and (message.image_index, message.kernel_slice) == (image_index, kernel_slice)
            )

        detail = self._request_and_wait(body, is_wanted, f"details of {layer}", timeout)
        assert isinstance(detail, LayerDetail)
        return detail

    def evidence(self, layer: str, *, timeout: float = 60.0) -> LayerEvidence:
        """Return what an examination of a layer finds: what is dead for good, twins, clusters.

        The run compares activations of a few batches. `verdicts` counts what it has found.

        Args:
            layer: name of a convolution or a linear layer.
            timeout: seconds to wait. A running training replies within a few dozen batches.

        Raises as `apply` does; `EditRefusedError` also if the run is paused.
        """

        def is_wanted(message: Message) -> bool:
            return isinstance(message, LayerEvidence) and message.layer == layer

        body = InspectEvidence(layer)
        found = self._repeat_until(body, is_wanted, f"evidence on {layer}", timeout)
        assert isinstance(found, LayerEvidence)
        return found

    def growth_gains(self, *, timeout: float = 60.0) -> dict[str, float]:
        """Return where one more filter would lower the loss most: the gain of each layer.

        It is the norm of the gradient of the outgoing weights that a new filter could have at best;
        see `GrowthGains`. Layers whose gain is unknown are left out.

        A paused run computes it from the step that it has recorded last, with the weights of now.

        Raises as `apply` does; `EditRefusedError` also if no gain can be computed, as in a pause
        before such a step.
        """

        def is_wanted(message: Message) -> bool:
            return isinstance(message, GrowthGains)

        found = self._request_and_wait(InspectGrowth(), is_wanted, "the growth gains", timeout)
        assert isinstance(found, GrowthGains)
        assert self.structure is not None
        names = [layer.name for layer in self.structure.layers]
        gains = {
            name: float(gain)
            for name, gain in zip(names, found.gains, strict=False)
            if not math.isnan(gain)
        }
        if not gains:
            raise EditRefusedError(next(filter(None, found.notes), "no layer has a growth gain"))
        return gains

    def compare_ranks(self, layer: str, *, timeout: float = 60.0) -> RankValues:
        """Return what each rank of a training with several processes has recorded of a layer.

        ::

            ranks = run.compare_ranks("conv1")
            print(ranks.differences())  # {1: ["out of step: its weights are not those of rank 0"]}

        Args:
            layer: name of a convolution or a linear layer.
            timeout: seconds to wait. A running training replies within a few batches.

        Raises as `apply` does; `EditRefusedError` also if there is only one process, or the run is
        paused.
        """

        def is_wanted(message: Message) -> bool:
            return isinstance(message, RankValues) and message.layer == layer

        body = InspectRanks(layer)
        found = self._repeat_until(body, is_wanted, f"values of {layer} in each rank", timeout)
        assert isinstance(found, RankValues)
        return found

    def inspect(
        self,
        layer: str,
        filter: int,
        *,
        image_index: int | None = None,
        depth: float = 0.5,
        timeout: float = 60.0,
    ) -> FilterInspection:
        """Return what activates a filter: its top training images and an attribution.

        Signals or volumes take the place of images; see `FilterInspection`. The run collects top
        images for about ten seconds after each call, so a later call returns more of them.

        Args:
            layer: name of a convolution or a linear layer.
            filter: index of one of its filters in the current `structure`.
            image_index: index of the image that the response is attributed to, as in `detail`.
            depth: which slice of a volume is returned, from 0 for the first of the receptive field
                to 1 for the last.
            timeout: seconds to wait. A running training replies within a batch or two seconds.

        Raises as `apply` does.
        """
        body = InspectFilter(layer, filter, image_index, depth=depth)

        def is_wanted(message: Message) -> bool:
            return isinstance(message, FilterInspection) and body == InspectFilter(
                message.layer, message.filter, message.image_index, depth=message.depth
            )

        inspection = self._request_and_wait(body, is_wanted, f"inspection of {layer}", timeout)
        assert isinstance(inspection, FilterInspection)
        return inspection

    def preferred_image(
        self,
        layer: str,
        filter: int,
        *,
        steps: int = 150,
        depth: float = 0.5,
        timeout: float = 600.0,
    ) -> PreferredImage:
        """Return the image that a filter responds to most, after this many steps of ascent.

        The training makes a few steps per batch, within its share of the time.

        Args:
            layer: name of a convolution or a linear layer.
            filter: index of one of its filters in the current `structure`.
            steps: number of steps of ascent; after about 150 the image hardly changes.
            depth: which slice of a volume is returned, as in `inspect`.
            timeout: seconds to wait.

        Raises as `apply` does; `EditRefusedError` also if no image can be found.
        """
        body, known = InspectFilter(layer, filter, ascent=1, depth=depth), 0
        deadline, due = time.monotonic() + timeout, 0.0
        while time.monotonic() < deadline:
            if time.monotonic() >= due:
                self._execute(body, timeout)
                due = time.monotonic() + REPEAT_SECONDS
            for found in self._take_inspections(body):
                if found.preferred_refusal:
                    raise EditRefusedError(found.preferred_refusal)
                known = found.preferred.steps if found.preferred else known
                if found.preferred and known >= steps:
                    return found.preferred
            time.sleep(POLL_SECONDS)
        raise RequestTimeoutError(
            f"after {timeout:g} s, the image has had {known} of {steps} steps; the run may be "
            "validating, or a step takes long: wait longer, or ask for fewer steps"
        )

    def _take_inspections(self, body: InspectFilter) -> list[FilterInspection]:
        """Return the inspections of a filter that have arrived."""
        self._unread.add(self._receive())
        self._check_not_ended()
        taken = self.take(
            lambda message: (
                isinstance(message, FilterInspection)
                and (message.layer, message.filter) == (body.layer, body.filter)
                and message.depth == body.depth
            )
        )
        return [message for message in taken if isinstance(message, FilterInspection)]

    def show_picture(self, picture: Any, *, timeout: float = 60.0) -> int:
        """Send a picture as an input of the network; return its ``image_index`` for other methods.

        ::

            index = run.show_picture(PIL.Image.open("cat.jpg"))
            print(run.predict(index).prediction)
            maps = run.detail("conv2", image_index=index).activations.images

        The training prepares it as its validation data, or fits it to the size and the values of
        the images of a batch; `ImagePass.image_note` says which. The run keeps the last few images.

        Args:
            picture: an array or an image of Pillow: (H, W, 3) or (H, W), uint8 or floating-point
                from 0 to 1.
            timeout: seconds to wait.

        Raises as `apply` does; `EditRefusedError` also if it is no picture.
        """
        index = new_image_index()
        requests = picture_requests(index, to_rgb_pixels(picture))
        for request_id in [self._send_permitted(request) for request in requests]:
            self._wait_for_reply(request_id, timeout)
        return index

    def paint_image(
        self, patches: Sequence[Patch], *, image_index: int | None = None, timeout: float = 60.0
    ) -> int:
        """Erase or paint patches of an image; return the ``image_index`` of the new one.

        ::

            index = run.paint_image([Patch(0.25, 0.25, 0.5, 0.5)])  # erases a quarter

        Args:
            patches: rectangles; at most 256.
            image_index: index of the image to paint over, as in `detail`.
            timeout: seconds to wait.

        Raises as `apply` does.
        """
        index = new_image_index()
        self._execute(PaintImage(index, image_index, list(patches)), timeout)
        return index

    def predict(self, image_index: int | None = None, *, timeout: float = 60.0) -> ImagePass:
        """Return the prediction of the network for an image, and the modules that it passes.

        Args:
            image_index: index of the image, as in `detail`; None selects the batch's first input.
            timeout: seconds to wait. A running training replies within a batch or two.

        Raises as `apply` does.
        """

        def is_wanted(message: Message) -> bool:
            return isinstance(message, ImagePass) and message.image_index == image_index

        passed = self._request_and_wait(
            InspectImage(image_index), is_wanted, "input on its way", timeout
        )
        assert isinstance(passed, ImagePass)
        return passed
