"""Batches of every form, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    WeightedRandomSampler,
)

from benchmarks.left_alone.cases.small import Classifier, batches, dataset, loader_of, samples
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class NamedTupleBatch(NamedTuple):
    images: Tensor
    labels: Tensor


@dataclass
class DataclassBatch:
    images: Tensor
    labels: Tensor
    names: list[str]


class TakesAnyBatch(Classifier):
    """Takes (images, labels) out of any batch."""

    def __init__(self, take: Any) -> None:
        super().__init__()
        self.take = take

    def loss(self, batch: Any) -> Tensor:
        images, labels = self.take(batch)
        return F.cross_entropy(self(images), labels)


def _mapped(convert: Any, count: int = 12) -> list[Any]:
    """Return the batches, each one converted."""
    return [convert(images.clone(), labels) for images, labels in batches(count)]


@register_case(quick=True)
def train_dict_batch(training: Training) -> None:
    items = _mapped(lambda x, y: {"id": list(range(len(x))), "label": y, "image": x})
    training.fit(TakesAnyBatch(lambda b: (b["image"], b["label"])), loader_of(items))


@register_case()
def train_nested_batch(training: Training) -> None:
    items = _mapped(lambda x, y: {"views": [x, x.flip(-1)], "meta": ({"label": y}, None, "name")})
    training.fit(TakesAnyBatch(lambda b: (b["views"][1], b["meta"][0]["label"])), loader_of(items))


@register_case()
def train_named_tuple_batch(training: Training) -> None:
    training.fit(TakesAnyBatch(lambda b: (b.images, b.labels)), loader_of(_mapped(NamedTupleBatch)))


@register_case(output=lambda m, b: m(b.images))
def train_dataclass_batch(training: Training) -> None:
    items = _mapped(lambda x, y: DataclassBatch(x, y, ["name"] * len(x)))
    training.fit(TakesAnyBatch(lambda b: (b.images, b.labels)), loader_of(items))


@register_case()
def train_labels_first(training: Training) -> None:
    """The first floating tensor of the batch is not the images."""
    items = _mapped(lambda x, y: (y.float().view(-1, 1), x))
    training.fit(TakesAnyBatch(lambda b: (b[1], b[0][:, 0].long())), loader_of(items))


class ImageListDetector(Classifier):
    """A list of CHW images of different sizes, and a list of targets, as in torchvision."""

    def forward(self, images: list[Tensor]) -> Tensor:
        sizes = [max(image.shape[i] for image in images) for i in (1, 2)]
        padded = [
            F.pad(image, (0, sizes[1] - image.shape[2], 0, sizes[0] - image.shape[1]))
            for image in images
        ]
        return self.net(torch.stack(padded))

    def loss(self, batch: Any) -> Tensor:
        images, targets = batch
        labels = torch.stack([target["labels"][0] for target in targets])
        return F.cross_entropy(self(images), labels)


@register_case(output=lambda m, b: m(b[0]))
def train_detection(training: Training) -> None:
    def convert(x: Tensor, y: Tensor) -> Any:
        images = [image[:, : 6 + i % 3, : 8 - i % 2] for i, image in enumerate(x)]
        return images, [{"boxes": torch.rand(2, 4), "labels": y[i : i + 1]} for i in range(len(y))]

    training.fit(ImageListDetector(), loader_of(_mapped(convert)))


class ReconstructsTensorBatch(Classifier):
    """A batch is one tensor."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 1, 3)))

    def loss(self, batch: Any) -> Tensor:
        return F.mse_loss(self(batch), batch)


@register_case()
def train_tensor_batch(training: Training) -> None:
    training.fit(ReconstructsTensorBatch(), DataLoader(samples()[0], batch_size=8))


class MakesItsOwnImages(Classifier):
    """The data set only counts; the training step makes the images."""

    def loss(self, batch: Any) -> Tensor:
        generator = torch.Generator().manual_seed(int(batch if batch is not None else 0))
        images = torch.randn(4, 1, 8, 8, generator=generator)
        return self(images.to(self.device)).square().mean()


@register_case(output=lambda m, b: m(torch.ones(2, 1, 8, 8, device=m.device)), steerable=False)
def train_none_batch(training: Training) -> None:
    training.fit(MakesItsOwnImages(), loader_of([None] * 12))


@register_case(output=lambda m, b: m(torch.ones(2, 1, 8, 8, device=m.device)), steerable=False)
def train_counting_batch(training: Training) -> None:
    training.fit(MakesItsOwnImages(), range(12))


class EndlessSamples(IterableDataset):
    """Draws its samples."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(96):
            yield torch.randn(1, 8, 8), torch.randint(3, ())


@register_case()
def train_iterable_dataset(training: Training) -> None:
    training.fit(Classifier(), DataLoader(EndlessSamples(), batch_size=8))


@register_case()
def train_generator_loader(training: Training) -> None:
    """A loader is any iterable."""

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            yield from batches()

    training.fit(Classifier(), Loader())


@register_case()
def train_combined_loader(training: Training) -> None:
    loaders = {"a": batches(12), "b": DataLoader(samples()[0], batch_size=4)}
    training.fit(TakesAnyBatch(lambda b: b["a"]), CombinedLoader(loaders, "min_size"))


@register_case()
def train_combined_cycle(training: Training) -> None:
    loaders = CombinedLoader([batches(9), batches(4)], "max_size_cycle")
    training.fit(TakesAnyBatch(lambda b: b[0]), loaders)


@register_case()
def train_several_loaders(training: Training) -> None:
    training.fit(TakesAnyBatch(lambda b: b[1]), [batches(12), batches(14)])


@register_case()
def train_random_sampler(training: Training) -> None:
    generator = torch.Generator().manual_seed(3)
    data = dataset()
    training.fit(
        Classifier(),
        DataLoader(data, batch_size=8, sampler=RandomSampler(data, generator=generator)),
        max_epochs=2,
    )
    training.compare_also("generator", generator)


@register_case()
def train_weighted_sampler(training: Training) -> None:
    sampler = WeightedRandomSampler([1.0, 2.0] * 48, 96)
    batch_sampler = BatchSampler(sampler, 8, drop_last=True)
    training.fit(Classifier(), DataLoader(dataset(), batch_sampler=batch_sampler))


class RandomlyAugmentedData(Dataset):
    """Augments with torch's random numbers."""

    def __init__(self, owner: Any = None) -> None:
        self.samples = samples()
        self.owner = owner

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.samples[0][index], self.samples[1][index]
        return image + 0.1 * torch.randn_like(image), label


class TrainerReferringDataModule(pl.LightningDataModule):
    """Its data sets refer to it, and thus to the trainer."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def train_dataloader(self) -> DataLoader:
        return DataLoader(RandomlyAugmentedData(self), batch_size=8, shuffle=True, **self.options)

    def val_dataloader(self) -> DataLoader:
        return batches(2)


@register_case()
def train_datamodule(training: Training) -> None:
    training.fit(Classifier(), datamodule=TrainerReferringDataModule(), max_epochs=2)


def _train_with_worker(training: Training, method: str) -> None:
    data = TrainerReferringDataModule(num_workers=1, multiprocessing_context=method)
    training.fit(Classifier(), datamodule=data, limit_val_batches=0)


@register_case()
def train_worker_fork(training: Training) -> None:
    _train_with_worker(training, "fork")


@register_case()
def train_worker_spawn(training: Training) -> None:
    _train_with_worker(training, "spawn")


@register_case()
def train_worker_forkserver(training: Training) -> None:
    _train_with_worker(training, "forkserver")


@register_case()
def train_transfer_hooks(training: Training) -> None:
    class Moves(Classifier):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return {"x": batch[0] * 2, "y": batch[1]}

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch["x"] + torch.rand(()), batch["y"]

    training.fit(Moves(), batches())


@register_case()
def train_uneven_batches(training: Training) -> None:
    """A last batch of one sample, and images whose size changes."""
    items = [(x[: 8 - i % 3], y[: 8 - i % 3]) for i, (x, y) in enumerate(batches())]
    items += [(torch.randn(3, 1, 12, 10), torch.tensor([0, 1, 2])) for _ in range(2)]
    training.fit(Classifier(), loader_of(items))


@register_case()
def train_nan_batch(training: Training) -> None:
    items = [(x * float("nan") if i == 6 else x, y) for i, (x, y) in enumerate(batches())]
    training.fit(Classifier(optimizer=lambda p: torch.optim.SGD(p, 0.01)), loader_of(items))
