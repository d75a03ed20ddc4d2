"""How the filters of a run answer to the classes of its data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from revacnn_lightning.client.run_requests import POLL_SECONDS, RunRequests
from revacnn_lightning.errors import EditRefusedError, RequestTimeoutError
from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.protocol.requests import Command, InspectClass, InspectClasses

__all__ = ["RunClassStatistics"]

REPEAT_SECONDS = 2.0  # between the requests for what is inspected for longer
PAUSED_SECONDS = 0.3  # after which a paused run has sent what it can send without a batch


class RunClassStatistics(RunRequests):
    """Requests for statistics per class, which a run records only on request."""

    def class_lens(self, layer: str, *, batches: int = 20, timeout: float = 60.0) -> ClassLens:
        """Return which classes the filters of a layer answer to, and whose gradients conflict.

        ::

            lens = run.class_lens("conv3")
            print(lens.strongest(), lens.selectivity())  # of each filter
            print(lens.effects(), lens.pulls())  # filters × classes

        Args:
            layer: name of a convolution or a linear layer.
            batches: minimum number of batches whose images are compared.
            timeout: seconds to wait. The run skips batches if the cost exceeds ``max_overhead``.

        Raises as `apply` does; `EditRefusedError` also if the batches have no classes, or the run
        is paused before it has trained enough of them.
        """

        def is_wanted(message: Message) -> bool:
            if not isinstance(message, ClassLens) or message.layer != layer:
                return False
            return bool(message.note) or message.batches >= batches

        found = self._repeat_until(InspectClasses(layer), is_wanted, f"classes of {layer}", timeout)
        assert isinstance(found, ClassLens)
        if found.note:
            raise EditRefusedError(f"{layer}: {found.note}")
        return found

    def class_answers(self, class_index: int, *, timeout: float = 60.0) -> ClassAnswers:
        """Return how much each filter of the network answers to a class.

        Args:
            class_index: index of the class, as in the labels.
            timeout: seconds to wait for a batch that holds an image of this class.

        Raises as `apply` does; `EditRefusedError` also if the batches have no classes, or the run
        is paused.
        """

        def is_wanted(message: Message) -> bool:
            if not isinstance(message, ClassAnswers) or message.class_index != class_index:
                return False
            return bool(message.note) or message.images > 0

        body = InspectClass(class_index)
        found = self._repeat_until(body, is_wanted, f"answers to class {class_index}", timeout)
        assert isinstance(found, ClassAnswers)
        if found.note:
            raise EditRefusedError(found.note)
        return found

    def confusion(self, *, timeout: float = 600.0) -> Confusion:
        """Return which classes the network takes for which, in the next validation.

        The run counts the predictions of the validation that it makes in any case.

        Args:
            timeout: seconds to wait for the end of that validation.

        Raises as `apply` does; `EditRefusedError` also if no predictions are known, or the run is
        paused.
        """
        structure = self._network(timeout)

        def is_wanted(message: Message) -> bool:
            return isinstance(message, Confusion)

        body = InspectClasses(structure.layers[0].name)
        found = self._repeat_until(body, is_wanted, "confusion of a validation", timeout)
        assert isinstance(found, Confusion)
        if found.note:
            raise EditRefusedError(found.note)
        return found

    def _repeat_until(
        self, body: Command, is_wanted: Callable[[Message], bool], what: str, timeout: float
    ) -> Message:
        """Repeat a request, so that its selection does not expire, until a message is wanted.

        Raises as `apply` does; `EditRefusedError` also if the run is paused and has sent nothing.
        """
        deadline, requested = time.monotonic() + timeout, -math.inf
        status = self.status
        self.take(is_wanted)  # an earlier one is not the answer
        while time.monotonic() < deadline:
            if time.monotonic() >= requested + REPEAT_SECONDS:
                self._execute(body, timeout)
                requested, status = time.monotonic(), self.status
            self._unread.add(self._receive())
            self._check_not_ended()
            found = self.take(is_wanted)
            if found:
                return found[-1]
            has_waited = time.monotonic() >= requested + PAUSED_SECONDS
            # A status from before the request may be that of a pause that has ended.
            if has_waited and self.status is not status:
                self._check_trains(what)
            time.sleep(POLL_SECONDS)
        raise RequestTimeoutError(
            f"run {self.connection.run} sent no {what} within {timeout:g} s; it may be validating, "
            "paused or slow, or no batch holds this class: wait longer"
        )

    def _check_trains(self, what: str) -> None:
        """Check that the run is not paused.

        Raises:
            EditRefusedError: it is.
        """
        if self.status is not None and self.status.state == "paused":
            raise EditRefusedError(
                f"run {self.connection.run} is paused before batch {self.status.step}, and sends "
                f"no {what} without training: resume it, or train some batches, then try again"
            )
