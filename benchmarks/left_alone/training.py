"""`Training`: what a case trains with, and what remains of it to compare."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from benchmarks.left_alone.fingerprint import fingerprint, hash_of

__all__ = ["Training", "isolated_training"]

RUNTIME_DIR = "REVACNN_RUNTIME_DIR"  # of the connection files
QUIET: dict[str, Any] = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class BatchObserver(pl.Callback):
    """Records the batches and the losses of a training."""

    def __init__(self, seen: dict[str, Any]) -> None:
        self.seen = seen
        self.batches = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.batches += 1
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self.seen[f"batch {len(self.seen):04}"] = (hash_of(batch), hash_of(loss))


class Training:
    """The training of a case in one mode.

    Args:
        folder: For its files.
        add_callbacks: Adds the callbacks of the mode to those of a trainer.
    """

    def __init__(
        self, folder: Path, add_callbacks: Callable[[list[pl.Callback]], list[pl.Callback]]
    ) -> None:
        self.folder = folder
        self.modules: list[pl.LightningModule] = []
        self.trainers: list[pl.Trainer] = []
        self.batches = 0
        self.error: BaseException | None = None
        self._add_callbacks = add_callbacks
        self._own_callbacks: list[Sequence[pl.Callback]] = []
        self._seen: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}

    def make_trainer(self, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
        """Return a quiet trainer with these callbacks, and those of the mode."""
        observer = BatchObserver(self._seen)
        trainer = pl.Trainer(
            **{
                **QUIET,
                "default_root_dir": self.folder,
                "callbacks": [*self._add_callbacks(list(callbacks)), observer],
                **options,
            }
        )
        self.trainers.append(trainer)
        self._own_callbacks.append(callbacks)
        return trainer

    def fit(
        self,
        module: pl.LightningModule,
        batches: Any = None,
        *callbacks: pl.Callback,
        validation: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        resume: str | Path | None = None,
        weights_only: bool | None = None,
        **options: Any,
    ) -> pl.Trainer:
        """Train as ``Trainer(callbacks=callbacks, **options).fit(module, batches)`` does."""
        trainer = self.make_trainer(*callbacks, **options)
        self.fit_with(trainer, module, batches, validation, datamodule, resume, weights_only)
        return trainer

    def fit_with(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        batches: Any = None,
        validation: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        resume: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Train with a trainer made by `trainer`."""
        if not any(module is known for known in self.modules):
            self.modules.append(module)
        options = {} if weights_only is None else {"weights_only": weights_only}
        trainer.fit(module, batches, validation, datamodule=datamodule, ckpt_path=resume, **options)

    def compare_also(self, name: str, value: Any) -> None:
        """Compare this value, too."""
        self._kept[name] = value

    def run_to_end(self, train: Callable[[Training], None]) -> None:
        """Run the case. An exception that ends it is a result, too."""
        try:
            train(self)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - the user's
            self.error = error
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it
        self.batches = len(self._seen)

    def fingerprint(self) -> dict[str, str]:
        """Return everything that must be bit-identical, by its path."""
        found: dict[str, Any] = {"seen": self._seen, "kept": self._kept, "error": repr(self.error)}
        for i, module in enumerate(self.modules):
            found[f"module {i}"] = module
        for i, trainer in enumerate(self.trainers):
            found[f"trainer {i}"] = {
                "optimizers": trainer.optimizers,
                "schedulers": [config.scheduler for config in trainer.lr_scheduler_configs],
                "metrics": [
                    trainer.callback_metrics, trainer.logged_metrics, trainer.progress_bar_metrics
                ],
                "progress": (trainer.global_step, trainer.current_epoch, str(trainer.state)),
                "callbacks": self._own_callbacks[i],
            }  # fmt: skip
        found["random"] = [torch.get_rng_state(), np.random.get_state(), random.getstate()]
        found["random of CUDA"] = torch.cuda.get_rng_state_all()
        files = (p for p in self.folder.rglob("*") if p.is_file())
        found["files"] = sorted(str(p.relative_to(self.folder)) for p in files)
        return fingerprint(found)


@contextlib.contextmanager
def isolated_training() -> Iterator[tuple[Path, list[warnings.WarningMessage]]]:
    """Give a training its own folder and fresh random states; yield them and its warnings."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before, runtime_before = Path.cwd(), os.environ.get(RUNTIME_DIR)
    # The same path each time, because some callbacks keep it.
    folder = Path(tempfile.gettempdir()) / f"left_alone-{os.getpid()}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"revacnn_lightning\.runtime\.replay_functions$")
        runtime = folder / "runtime"
        os.environ[RUNTIME_DIR] = str(runtime)
        files = folder / "files"
        files.mkdir(parents=True)
        os.chdir(files)
        try:
            yield files, caught
        finally:
            os.chdir(before)
            shutil.rmtree(folder)
            os.environ.pop(RUNTIME_DIR)
            if runtime_before is not None:
                os.environ[RUNTIME_DIR] = runtime_before
