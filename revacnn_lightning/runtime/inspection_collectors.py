"""All collectors of one run, by the type of request that selects what they collect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.protocol.requests import (
    InspectClass,
    InspectClasses,
    InspectEvidence,
    InspectFilter,
    InspectGrowth,
    InspectImage,
    InspectLayer,
    InspectPrices,
    InspectRanks,
    PaintImage,
    ShowPicture,
)
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.class_lens import ClassResponseCollector
from revacnn_lightning.runtime.collector import Collector
from revacnn_lightning.runtime.filter_inspection import FilterInspectionCollector
from revacnn_lightning.runtime.filter_prices import FilterPriceCollector
from revacnn_lightning.runtime.growth_gains import GrowthGainCollector
from revacnn_lightning.runtime.image_pass import ImagePassCollector
from revacnn_lightning.runtime.image_predictions import Forward, GetTruth, get_no_truth
from revacnn_lightning.runtime.input_images import (
    DataAndViewerImages,
    GetImage,
    raise_no_validation_images,
)
from revacnn_lightning.runtime.layer_details import LayerDetailCollector
from revacnn_lightning.runtime.layer_evidence import make_evidence_collector
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.picture_fitting import Preprocessing
from revacnn_lightning.runtime.rank_comparison import RankValuesCollector
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.runtime.step_images import FindImageFlow, find_no_image_flow
from revacnn_lightning.runtime.training_step_observer import TrainingStepObserver
from revacnn_lightning.runtime.validation_data import ValidationData
from revacnn_lightning.steering import Editor
from revacnn_lightning.telemetry import Recorder

__all__ = ["InspectionCollectors", "InspectionSources"]


def find_no_preprocessing() -> Preprocessing | None:
    """Return None: the preprocessing of the validation data is unknown."""
    return None


@dataclass(frozen=True)
class InspectionSources:
    """Functions and settings that inspections need besides the batches of a training.

    Attributes:
        get_image: returns an image of the validation data by its index.
        get_truth: returns the class of such an image.
        class_names: the class names that the user has given; () uses those of the data.
        find_preprocessing: returns what prepares the validation data, if it is known.
        forward: runs the model on a batch of one image; None if this is not possible.
        find_image_flow: returns who reads images in a training step, as far as known.
        refusal: why the model must not be run between two batches; "" if it may be.
    """

    get_image: GetImage = raise_no_validation_images
    get_truth: GetTruth = get_no_truth
    class_names: Sequence[str] = ()
    find_preprocessing: Callable[[], Preprocessing | None] = find_no_preprocessing
    forward: Forward | None = None
    find_image_flow: FindImageFlow = find_no_image_flow
    refusal: str = ""

    @classmethod
    def of(
        cls,
        validation: ValidationData,
        forwards: TrainingStepObserver,
        class_names: Sequence[str],
        refusal: str,
    ) -> InspectionSources:
        """Return the sources of a training with this validation data and these forwards."""
        return cls(
            validation.image,
            validation.truth,
            class_names,
            validation.preprocessing,
            forwards.forward,
            forwards.find_image_flow,
            refusal,
        )


class InspectionCollectors:
    """Makes the collectors of one run.

    Args:
        model: the module that is monitored.
        editor: edits it.
        recorder: records its statistics.
        get_optimizers: returns those that train it now.
        sources: see `InspectionSources`.
        replay: computes the loss of a recorded step.
        comparison: collects what the ranks of the training have recorded.
        get_batch: returns the current batch.

    Attributes:
        details: collects what a layer's panel shows.
        classes: collects what depends on the classes.
        growth: collects where another filter would lower the loss.
        prices: measures the prices of removals.
        filter_prices: ranks filters by their prices.
        evidence: examines layers.
        by_request: the collector of each type of request.
    """

    def __init__(
        self,
        model: nn.Module,
        editor: Editor,
        recorder: Recorder,
        get_optimizers: Callable[[], Sequence[Optimizer]],
        sources: InspectionSources,
        replay: LossReplay,
        comparison: RankValuesCollector,
        get_batch: Callable[[], TrainingBatch],
    ) -> None:
        forward, names = sources.forward, sources.class_names
        images = DataAndViewerImages(
            sources.get_image, sources.get_truth, get_batch, sources.find_preprocessing
        )
        self.prices = LossChangeMeasurer(editor, replay)
        self.filter_prices = FilterPriceCollector(recorder, editor, self.prices, replay)
        self.details = LayerDetailCollector(recorder, model, images, forward)
        self.evidence = make_evidence_collector(
            model, recorder, editor, get_optimizers, self.prices, replay
        )
        self.growth = GrowthGainCollector(model, recorder, editor, replay)
        self.classes = ClassResponseCollector(recorder, names)
        self.by_request: dict[type, Collector] = {
            InspectLayer: self.details,
            InspectFilter: FilterInspectionCollector(
                recorder, model, images, forward, sources.refusal
            ),
            InspectPrices: self.filter_prices,
            InspectEvidence: self.evidence,
            InspectGrowth: self.growth,
            InspectRanks: comparison,
            InspectClasses: self.classes,
            InspectClass: self.classes,
            InspectImage: ImagePassCollector(
                recorder, model, images, forward, names, find_image_flow=sources.find_image_flow
            ),
            ShowPicture: images,
            PaintImage: images,
        }
