"""How filters answer to classes, which tabs show. One per run, shared by all tabs."""

from __future__ import annotations

import time
from collections.abc import Callable

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.messages import Message, Refused
from revacnn_lightning.protocol.requests import InspectClass, InspectClasses

from .run_state import RunState

__all__ = ["ClassResponseFetcher"]

REQUEST_SECONDS = 2.0  # the training stops a few seconds after the last request
VISIBLE_SECONDS = 3.0  # tabs mark what they show more often than this
MAX_LENSES = 8  # that are kept

Wanted = InspectClasses | InspectClass
Send = Callable[[Wanted], str]  # returns the request id


class ClassResponseFetcher:
    """Requests what tabs show of classes, and keeps the newest of it.

    Attributes:
        answers: the responses of all filters to the class that was chosen last; None before.
        confusion: the confusion matrix of the last validation while classes were shown.
        names: the names of all classes, as far as known.
        count: how many classes there are, as far as known.
        revision: incremented with everything that is new, refusals included.
    """

    def __init__(self) -> None:
        self.answers: ClassAnswers | None = None
        self.confusion: Confusion | None = None
        self.names: list[str] = []
        self.count = 0
        self.revision = 0
        self._lenses: dict[str, ClassLens] = {}  # newest last
        self._visible: dict[Wanted, float] = {}  # when a tab last showed it
        self._requested: dict[Wanted, tuple[float, str]] = {}  # when, and with which id
        self._refused: dict[Wanted, str] = {}

    def request_newest_of_layer(self, layer: str) -> ClassLens | None:
        """Request how the filters of a layer respond to classes, for the next seconds.

        Return the newest that is known.
        """
        self._visible[InspectClasses(layer)] = time.monotonic()
        return self._lenses.get(layer)

    def request_newest_of_class(self, class_index: int) -> ClassAnswers | None:
        """Request the responses of all filters to a class, for the next seconds.

        Return the newest that are known.
        """
        for other in [one for one in self._visible if isinstance(one, InspectClass)]:
            del self._visible[other]  # the run sends the answers to one class
        self._visible[InspectClass(class_index)] = time.monotonic()
        is_known = self.answers is not None and self.answers.class_index == class_index
        return self.answers if is_known else None

    def refusal(self, layer_or_class: Wanted) -> str:
        """Return why the training does not send what was requested; "" if it may."""
        return self._refused.get(layer_or_class, "")

    def tick(self, state: RunState | None, send: Send) -> None:
        """Request what a tab shows."""
        now = time.monotonic()
        if state is None or state.structure is None:
            return
        for wanted, seen in list(self._visible.items()):
            if now - seen > VISIBLE_SECONDS:
                del self._visible[wanted]
                self._requested.pop(wanted, None)
                continue
            before, _ = self._requested.get(wanted, (float("-inf"), ""))
            if now - before > REQUEST_SECONDS:
                try:
                    self._requested[wanted] = now, send(wanted)
                except ProtocolError as error:
                    self._requested[wanted] = now, ""
                    self._refuse(wanted, str(error))

    def receive(self, message: Message, state: RunState) -> None:
        """Store what the training sends, or its refusal; discard what is of another structure."""
        structure = state.structure
        if structure is None:
            return
        self._discard_old(structure.version)
        if isinstance(message, Refused):
            for wanted, (_, request) in self._requested.items():
                if request == message.id:
                    self._refuse(wanted, message.reason)
        elif isinstance(message, Confusion) and message.run == structure.run:
            self.confusion = message
            self.revision += 1
        elif isinstance(message, ClassLens | ClassAnswers):
            self._add(message, state)

    def _add(self, message: ClassLens | ClassAnswers, state: RunState) -> None:
        structure = state.structure
        if structure is None or message.version != structure.version:
            return
        if isinstance(message, ClassLens):
            self._lenses.pop(message.layer, None)
            self._lenses[message.layer] = message
            self._refused.pop(InspectClasses(message.layer), None)
            while len(self._lenses) > MAX_LENSES:
                del self._lenses[next(iter(self._lenses))]
            known = max(message.classes, default=-1) + 1
        elif len(message.effects) == state.n_filters:
            self.answers = message
            self.names = list(message.names) or self.names
            self._refused.pop(InspectClass(message.class_index), None)
            known = message.classes
        else:
            return
        self.count = max(self.count, known, len(self.names))
        self.revision += 1

    def _discard_old(self, version: int) -> None:
        old = [layer for layer, lens in self._lenses.items() if lens.version != version]
        for layer in old:
            del self._lenses[layer]
        if self.answers is not None and self.answers.version != version:
            self.answers = None
            self.revision += 1
        self.revision += bool(old)

    def _refuse(self, wanted: Wanted, reason: str) -> None:
        if self._refused.get(wanted) != reason:
            self._refused[wanted] = reason
            self.revision += 1
