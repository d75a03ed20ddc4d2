"""A fake training process for the viewer's tests.

``python -m tests.viewer.fake_training --net alexnet`` serves a structure, publishes plausible
snapshots, and replies to requests by changing its own widths. It needs no torch and starts fast.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
import time
import uuid
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.inspections import FilterInspection, ImagePass, LayerDetail
from revacnn_lightning.protocol.messages import (
    OUTPUT_UNCHANGED,
    Applied,
    Done,
    FilterChange,
    GradientClipping,
    LayerInfo,
    Planned,
    PlanSummary,
    Refused,
    Request,
    Snapshot,
    Status,
    Structure,
)
from revacnn_lightning.protocol.requests import (
    AddFilters,
    ControlRun,
    DiscardTrial,
    Freeze,
    InspectFilter,
    InspectImage,
    InspectLayer,
    KeepTrial,
    MergeFilters,
    PaintImage,
    Redo,
    Reinitialize,
    RemoveFilters,
    ScaleLearningRate,
    SendHistory,
    SetFilter,
    SetGradientClipping,
    ShowPicture,
    TryEdits,
    Undo,
    Unfreeze,
)
from revacnn_lightning.protocol.sockets import Keys, Publisher, RequestServer
from revacnn_lightning.protocol.trial_state import TrialCost, TrialState
from tests.viewer.fake_detail import FakeDetails
from tests.viewer.fake_inspection import fake_inspection
from tests.viewer.fake_networks import CONCATENATING, NETS
from tests.viewer.fake_pass import PASS_SECONDS, fake_pass, gan_pass
from tests.viewer.fake_trial import fake_trial

# Snapshots arrive at random moments within a browser's frame, as those of a real training do. At
# exactly 10 Hz, all would arrive at the same moment of a frame, which distorts measured latencies.
FRAME_SECONDS = 1 / 60
STATISTICS = ["gradient", "activation", "weight_norm", "update_ratio"]


class FakeTraining:
    """The state of a fake run, and its replies to requests."""

    def __init__(self, net: str, seed: int = 0) -> None:
        self.run = uuid.uuid4().hex[:12]
        self.net = net
        self.convs = NETS[net]()
        self.version = 0
        self.step = 0
        self.random = np.random.default_rng(seed)
        self.next_id = 0
        self.ids: list[list[int]] = []
        self.base: dict[int, np.ndarray] = {}  # id -> base value of each statistic
        self.history: list[list[list[int]]] = []
        self.undone: list[list[list[int]]] = []
        self.details = FakeDetails(seed)
        self.requested_layers: dict[
            str, tuple[InspectLayer, float]
        ] = {}  # layer -> request, expiry
        self.requested_inspections: dict[tuple[str, int], int | None] = {}  # filter -> image
        self.requested_pass: tuple[InspectImage, float] | None = None  # request, expiry
        self.trial: TrialState | None = None
        self.clipping: GradientClipping | None = GradientClipping()
        self.made_images: list[ShowPicture | PaintImage] = []
        self.last_pass = -math.inf
        self.last_details: dict[str, float] = {}
        self.frozen: set[int] = set()
        self.rates: dict[str, float] = {}
        self._cached_version = -1
        for conv in self.convs:
            self.ids.append([self._new_filter() for _ in range(conv.width)])
        self.kept = HistoryRecorder()
        self.kept.update_structure(self.structure())
        dead = self.random.random(self.next_id) < 0.015
        self.dead = {int(id_) for id_ in np.flatnonzero(dead)}
        for id_ in self.dead:
            self.base[id_][:] = (1e-7, 0.0, 0.1)

    def _new_filter(self) -> int:
        id_ = self.next_id
        self.next_id += 1
        self.base[id_] = np.array(
            [
                self.random.lognormal(0, 0.75),
                self.random.lognormal(0, 0.8),
                self.random.lognormal(1, 0.2),
            ]
        )
        return id_

    def structure(self) -> Structure:
        layers, widths_in = [], self._inputs()
        for i, conv in enumerate(self.convs):
            layers.append(
                LayerInfo(
                    name=conv.name,
                    module_type="Conv2d",
                    in_channels=widths_in[i],
                    out_channels=len(self.ids[i]),
                    kernel_size=(conv.kernel, conv.kernel),
                    stride=(conv.stride, conv.stride),
                    groups=1,
                    filter_ids=list(self.ids[i]),
                    frozen_filters=[k for k, id_ in enumerate(self.ids[i]) if id_ in self.frozen],
                    learning_rate_factor=self.rates.get(conv.name, 1.0),
                    activation_source=f"relu{i + 1}",
                    edit_refusal=conv.refused,
                    parameters=widths_in[i] * len(self.ids[i]) * conv.kernel**2 + len(self.ids[i]),
                    macs=28 * 28 * widths_in[i] * len(self.ids[i]) * conv.kernel**2,
                    output_size=(28, 28),
                )
            )
        edges = [(i, j) for i, conv in enumerate(self.convs) for j in conv.feeds]
        return Structure(
            run=self.run,
            version=self.version,
            step=self.step,
            model={"digits": "DigitsNet", "alexnet": "AlexNet"}.get(
                self.net, self.net.capitalize()
            ),
            layers=layers,
            edges=edges,
            parameter_count=self.parameters(self.ids),
            undoable=len(self.history),
            redoable=len(self.undone),
        )

    def _inputs(self) -> list[int]:
        """What each layer reads: the concatenation of its sources, or their sum."""
        widths: list[list[int]] = [[] for _ in self.convs]
        for conv, ids in zip(self.convs, self.ids, strict=True):
            for reader in conv.feeds:
                widths[reader].append(len(ids))
        if not any(widths):  # a plain chain
            widths = [[], *([len(ids)] for ids in self.ids[:-1])]
        united = sum if self.net in CONCATENATING else max
        return [united(each) if each else 3 for each in widths]

    def parameters(self, ids: list[list[int]]) -> int:
        widths = [3] + [len(one) for one in ids]
        pairs = zip(widths, widths[1:], self.convs, strict=False)
        return sum(a * b * conv.kernel**2 + b for a, b, conv in pairs)

    def macs(self, ids: list[list[int]]) -> int:
        return 28 * 28 * self.parameters(ids)

    def _filters(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return base values (filters, statistics), phase and damping by depth of all filters."""
        if self._cached_version != self.version:  # cached: this takes the time of a training step
            self._cached_version = self.version
            ids = [id_ for layer in self.ids for id_ in layer]
            if not ids:
                self._cached = np.zeros((0, len(STATISTICS))), np.zeros(0), np.zeros(0)
                return self._cached
            depth = np.exp(-1.2 * np.arange(len(self.ids)) / max(1, len(self.ids)))
            spread = np.repeat(depth, [len(layer) for layer in self.ids])
            self._cached = np.stack([self.base[id_] for id_ in ids]), np.asarray(ids) * 0.7, spread
        return self._cached

    def deactivate_filter(self, id_: int) -> None:
        """Set the activation of a filter to zero from now on."""
        self.base[id_][1] = 0.0
        self._cached_version = -1

    def snapshot(self) -> Snapshot:
        t, decay = self.step, 1 / (1 + self.step / 900)
        base, phase, depth = self._filters()
        wave = np.exp(0.5 * np.sin(t * 0.12 + phase) + self.random.normal(0, 0.15, len(phase)))
        gradient = base[:, 0] * wave * depth * decay * 2e-3
        activation = base[:, 1] * np.exp(0.4 * np.sin(t * 0.09 + 2 * phase)) * 180
        values = np.stack([gradient, activation, base[:, 2], 0.05 * gradient]).astype(np.float32)
        epoch, batch = divmod(self.step, 100)
        loss = 2.3 * math.exp(-self.step / 400) + 0.3 + self.random.normal(0, 0.05)
        return Snapshot(
            run=self.run,
            version=self.version,
            step=self.step,
            epoch=epoch,
            batch_index=batch,
            batches_per_epoch=100,
            max_epochs=30,
            time=time.time(),
            loss=max(0.02, loss),
            learning_rates=[0.05 * (1 + math.cos(math.pi * min(1, self.step / 3000)))],
            batches_per_second=20.0,
            statistics=STATISTICS,
            values=values,
            metrics={
                "train_acc": min(0.99, 0.4 + self.step / 3000),
                "val_acc": min(0.97, 0.4 + epoch * 0.05),
                "val_loss": 2.3 * math.exp(-epoch / 5) + 0.4,
            },
        )

    def train_unattended(self, batches: int) -> None:
        """Train without a viewer: the history keeps a sample of the batches."""
        for _ in range(batches):
            self.step += 1
            if self.kept.is_due(self.step):
                self.kept.begin_sample(self.step, overhead=0.0)
                snapshot = self.snapshot()
                self.kept.add_metrics(self.step, snapshot.metrics)
                self.kept.add(snapshot)

    def status(self, state: str = "training") -> Status:
        return Status(
            self.run, state, self.step, self.version, time.time(), trial=self.trial,  # type: ignore[arg-type]
            gradient_clipping=self.clipping,
        )  # fmt: skip

    def _clip(self, request: Request, body: SetGradientClipping) -> list[object]:
        assert self.clipping is not None
        if self.clipping.refusal:
            return [Refused(request.id, self.clipping.refusal, self.version)]
        if request.dry_run:
            return [Planned(request.id, PlanSummary("Clip", output_effect=OUTPUT_UNCHANGED))]
        self.clipping = GradientClipping(body.value or 0.0, body.algorithm)
        return [Done(request.id, "gradient clipping", self.step), self.status()]

    def _try(self, request: Request) -> list[object]:
        """Have the result of a trial of edits immediately."""
        body = request.body
        if isinstance(body, TryEdits) and request.dry_run:
            plan = PlanSummary("Try it", trial=TrialCost(body.batches, 12_300_000, 3.2))
            return [Planned(request.id, plan)]
        if isinstance(body, TryEdits):
            self.trial = fake_trial(request.id, body, self.step)
        elif self.trial is not None:
            stage = "kept" if isinstance(body, KeepTrial) else "discarded"
            self.trial = replace(self.trial, stage=stage)
        detail = f"started on the next {body.batches} batches" if isinstance(body, TryEdits) else ""
        return [Done(request.id, detail), self.status()]

    def handle(self, request: Request) -> list[object]:
        """Return the replies to a request, and apply its edit."""
        body = request.body
        if isinstance(body, ControlRun):
            done = [Done(request.id, body.action)] if body.action != "send_state" else []
            return [*done, self.structure(), self.status()]
        if isinstance(body, SendHistory):
            return [self.kept.to_message(request.id)]
        if isinstance(body, ShowPicture | PaintImage):
            self.made_images.append(body)
            return [Done(request.id)]
        if isinstance(body, InspectFilter):
            self.requested_inspections[body.layer, body.filter] = body.image_index
            return [Done(request.id)]
        if isinstance(body, InspectImage):
            known = None if self.requested_pass is None else self.requested_pass[0]
            self.last_pass = self.last_pass if known == body else -math.inf
            self.requested_pass = (body, time.monotonic() + 5)
            return [Done(request.id)]
        if isinstance(body, InspectLayer):
            if body.layer not in [conv.name for conv in self.convs]:
                return [Refused(request.id, f"there is no conv {body.layer!r}", self.version)]
            self.requested_layers[body.layer] = (body, time.monotonic() + 5)
            return [Done(request.id)]
        if isinstance(body, TryEdits | KeepTrial | DiscardTrial):
            return self._try(request)
        if isinstance(body, SetGradientClipping):
            return self._clip(request, body)
        if request.version is not None and request.version != self.version:
            reason = f"the network is at version {self.version}, not {request.version}"
            return [Refused(request.id, reason, self.version)]
        planned = self._plan(body)
        if isinstance(planned, str):
            return [Refused(request.id, planned, self.version)]
        after, plan = planned
        if request.dry_run:
            return [Planned(request.id, plan)]
        if isinstance(body, Undo):
            self.undone.append([list(ids) for ids in self.ids])
            self.history.pop()
        else:
            if isinstance(body, Redo):
                self.undone.pop()
            else:
                self.undone.clear()
            self.history.append([list(ids) for ids in self.ids])
        if isinstance(body, Freeze | Unfreeze):
            ids = self.ids[[conv.name for conv in self.convs].index(body.layer)]
            chosen = {ids[i] for i in body.filters or range(len(ids))}
            self.frozen = self.frozen | chosen if isinstance(body, Freeze) else self.frozen - chosen
        if isinstance(body, ScaleLearningRate):
            self.rates[body.layer] = body.factor
        self.ids, self.version = after, self.version + 1
        change = 0.037 if isinstance(body, RemoveFilters | MergeFilters) else 0.0
        self.kept.update_structure(self.structure())
        self.kept.add_edit(self.step, plan.title, self.version)
        applied = Applied(request.id, self.step, self.version, plan, output_change=change)
        return [applied, self.structure()]

    def due_inspections(self) -> list[FilterInspection]:
        """Return one inspection for each request since the last call."""
        requested, self.requested_inspections = self.requested_inspections, {}
        return [
            fake_inspection(self.run, self.version, self.step, layer, index, image)
            for (layer, index), image in requested.items()
        ]

    def due_passes(self) -> list[ImagePass]:
        """Return the pass of the requested input, if it is due."""
        request, expiry = self.requested_pass or (None, 0.0)
        now = time.monotonic()
        if request is None or now > expiry or now - self.last_pass < PASS_SECONDS:
            return []
        self.last_pass = now
        layers = [(conv.name, len(ids)) for conv, ids in zip(self.convs, self.ids, strict=True)]
        if not layers:
            return []
        classes = 10 if self.net == "digits" else 1000
        sent = fake_pass(self.run, self.version, self.step, layers, request.image_index, classes)
        sent = gan_pass(sent) if self.net == "gan" else sent
        is_known = request.known_modules == self.version
        return [replace(sent, modules=None) if is_known else sent]

    def due_details(self) -> list[LayerDetail]:
        """Return the details of requested layers that are due."""
        now, due = time.monotonic(), []
        for at, conv in enumerate(self.convs):
            request, expiry = self.requested_layers.get(conv.name, (None, 0.0))
            if request is None or now > expiry:
                continue
            if now - self.last_details.get(conv.name, 0.0) < 1 / request.updates_per_second:
                continue
            self.last_details[conv.name] = now
            due.append(
                self.details.detail(
                    self.run, self.version, self.step, conv.name, self.ids[at], conv.kernel,
                    at == 0, self.dead, request.image_index, request.kernel_slice,
                )
            )  # fmt: skip
        return due

    def _plan(self, body: object) -> tuple[list[list[int]], PlanSummary] | str:
        after = [list(ids) for ids in self.ids]
        if isinstance(body, Undo):
            if not self.history:
                return "there is no edit to undo"
            after = self.history[-1]
            return after, self._summary("Undo the last edit", [], after, "")
        if isinstance(body, Redo):
            if not self.undone:
                return "there is no edit to redo"
            after = self.undone[-1]
            return after, self._summary("Redo the last undone edit", [], after, "")
        if isinstance(body, Freeze | Unfreeze | Reinitialize | SetFilter | ScaleLearningRate):
            return after, self._summary(f"{type(body).__name__} {body.layer}", [], after, "")
        if isinstance(body, MergeFilters):
            body = RemoveFilters(body.layer, body.filters[1:])
        if not isinstance(body, (AddFilters, RemoveFilters)):
            return f"this training does not support {type(body).__name__}"
        names = [conv.name for conv in self.convs]
        if body.layer not in names:
            return f"there is no conv {body.layer!r}"
        at = names.index(body.layer)
        if self.convs[at].refused:
            return self.convs[at].refused
        group = self.convs[at].group
        members = [i for i, conv in enumerate(self.convs) if conv.group == group] if group else [at]
        why = (
            f"{len(members)} layers are added and must have the same width"
            if len(members) > 1
            else ""
        )
        if isinstance(body, RemoveFilters):
            return self._plan_removal(body, at, members, after, why)
        sets = [FilterChange(names[i], added=body.count) for i in members]
        for i in members:
            after[i] += [self._new_filter() for _ in range(body.count)]
        return after, self._summary(f"Add {body.count} to {body.layer}", sets, after, why)

    def _plan_removal(
        self, body: RemoveFilters, at: int, members: list[int], after: list[list[int]], why: str
    ) -> tuple[list[list[int]], PlanSummary] | str:
        chosen = set(body.filters)
        if any(not 0 <= index < len(self.ids[at]) for index in chosen):
            return f"{body.layer} has the filters 0 to {len(self.ids[at]) - 1}"
        if len(chosen) >= len(self.ids[at]):
            return f"{body.layer} would be left without filters"
        sets = []
        for i in members:
            indices = sorted(index for index in chosen if index < len(self.ids[i]))
            sets.append(FilterChange(self.convs[i].name, filters=indices))
            after[i] = [id_ for index, id_ in enumerate(self.ids[i]) if index not in chosen]
        title = f"Remove {body.layer} · filter{'s' if len(chosen) > 1 else ''} " + ", ".join(
            map(str, sorted(chosen))
        )
        return after, self._summary(title, sets, after, why)

    def _summary(
        self, title: str, sets: list[FilterChange], after: list[list[int]], why: str
    ) -> PlanSummary:
        return PlanSummary(
            title=title,
            filter_changes=sets,
            coupling=why,
            parameters_before=self.parameters(self.ids),
            parameters_after=self.parameters(after),
            macs_before=self.macs(self.ids),
            macs_after=self.macs(after),
            output_effect="output changes" if title.startswith("Remove") else OUTPUT_UNCHANGED,
        )


def train_without_viewer(training: FakeTraining, batches: int) -> None:
    """Train before a viewer attaches, with an edit in the middle."""
    training.train_unattended(batches // 2)
    training.handle(Request("edit", AddFilters(training.convs[1].name, 2), training.version))
    training.train_unattended(batches - batches // 2)


def serve(
    training: FakeTraining, hz: float, end_after: float, end: str, lineage: str, first_step: int
) -> None:
    """Publish and reply until stopped, or for ``end_after`` seconds."""
    keys = Keys.generate()
    publisher = Publisher("tcp://127.0.0.1:0", keys)
    server = RequestServer("tcp://127.0.0.1:0", keys)
    path = connection_file.write(
        Connection.of_this_process(
            run=training.run,
            telemetry_endpoint=publisher.endpoint,
            request_endpoint=server.endpoint,
            server_key=keys.public,
            model=training.structure().model,
            lineage=lineage,
            first_step=first_step,
        )
    )
    start = last_status = due = time.monotonic()
    try:
        while not end_after or time.monotonic() - start < end_after:
            training.step += 1
            for client, request in server.receive():
                for reply in training.handle(request):
                    server.reply(client, reply)  # type: ignore[arg-type]
                    if isinstance(reply, Structure):
                        publisher.publish(reply)
            publisher.publish(training.snapshot())
            for inspection in training.due_inspections():
                publisher.publish(inspection)
            for passed in training.due_passes():
                publisher.publish(passed)
            for detail in training.due_details():
                publisher.publish(detail)
            if time.monotonic() - last_status > 1:
                last_status = time.monotonic()
                publisher.publish(training.status())
            due = max(due + 1 / hz, time.monotonic() - 1 / hz)  # regular, however long a step takes
            jitter = random.uniform(0, min(FRAME_SECONDS, 0.5 / hz))
            time.sleep(max(0.0, due + jitter - time.monotonic()))
        publisher.publish(training.status(end))
        time.sleep(0.3)
    finally:
        connection_file.remove(path)
        server.close()
        publisher.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=sorted(NETS), default="alexnet")
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--end-after", type=float, default=0.0, help="seconds; 0: never")
    parser.add_argument("--end", choices=["finished", "failed"], default="finished")
    parser.add_argument("--past", type=int, default=0, help="batches trained without a viewer")
    parser.add_argument("--resume", default="", help="id of a lineage, resumed after --past")
    parser.add_argument("--refuse", default="", help="name of a layer that cannot be changed")
    arguments = parser.parse_args()
    training = FakeTraining(arguments.net)
    for conv in training.convs:
        if conv.name == arguments.refuse:
            conv.refused = "its output is reshaped in an unknown way"
    if arguments.past:
        train_without_viewer(training, arguments.past)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lineage = arguments.resume or training.run
    first_step = arguments.past if arguments.resume else 0
    serve(training, arguments.hz, arguments.end_after, arguments.end, lineage, first_step)


if __name__ == "__main__":
    Path(connection_file.runtime_dir()).mkdir(parents=True, exist_ok=True)
    main()
