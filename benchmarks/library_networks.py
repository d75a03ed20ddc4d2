"""Networks of timm, segmentation-models-pytorch, MONAI and ultralytics, for `steering_zoo`.

They are the benchmark's own extra: ``pip install timm segmentation-models-pytorch monai
ultralytics``. Each is one of a family that torchvision lacks, with random weights and small inputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LIBRARIES"]

Shape = tuple[int, ...]


def _of(library: str, name: str, **options: Any) -> nn.Module:
    """Return what ``library.name`` makes with these options; the name may be nested."""
    module, _, attribute = f"{library}.{name}".rpartition(".")
    network: nn.Module = getattr(importlib.import_module(module), attribute)(**options)
    return network


def _timm(name: str, pixels: int = 64, **options: Any) -> tuple[Callable[[], nn.Module], Shape]:
    make = partial(_of, "timm", "create_model", model_name=name, num_classes=10, **options)
    return make, (3, pixels, pixels)


def _segmentation(name: str, **options: Any) -> tuple[Callable[[], nn.Module], Shape]:
    library = "segmentation_models_pytorch"
    chosen = {"encoder_name": "resnet18", **options}
    make = partial(_of, library, name, encoder_weights=None, classes=3, **chosen)
    return make, (3, 64, 64)


def _monai(name: str, shape: Shape, **options: Any) -> tuple[Callable[[], nn.Module], Shape]:
    return partial(_of, "monai.networks.nets", name, **options), shape


class YoloPredictions(nn.Module):
    """The predictions of a YOLO network, as one tensor: in training raw, else decoded.

    The network also returns the maps that its heads read. Their number of channels would be fixed,
    as that of each output is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        output = self.network(x)
        if torch.is_tensor(output):
            return output
        if isinstance(output, dict):
            heads = [output] if "boxes" in output else output.values()
            raw = [v for head in heads for name, v in head.items() if name != "feats"]
            return torch.cat([tensor.flatten(1) for tensor in raw], 1)
        return output[0] if torch.is_tensor(output[0]) else output[0][0]


def _yolo(config: str, task: str = "Detection") -> tuple[Callable[[], nn.Module], Shape]:
    def make() -> nn.Module:
        options = {"cfg": f"{config}.yaml", "ch": 3, "nc": 10, "verbose": False}
        return YoloPredictions(_of("ultralytics.nn.tasks", f"{task}Model", **options))

    return make, (3, 64, 64)


VOLUME = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}

# Name -> what makes it, and the shape of a sample.
LIBRARIES: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "timm_nf_resnet26": _timm("nf_resnet26"),
    "timm_resnetv2_50": _timm("resnetv2_50"),
    "timm_ecaresnet26t": _timm("ecaresnet26t"),
    "timm_skresnet18": _timm("skresnet18"),
    "timm_resnest14d": _timm("resnest14d"),
    "timm_res2net50_14w_8s": _timm("res2net50_14w_8s"),
    "timm_repvgg_a0": _timm("repvgg_a0"),
    "timm_ghostnet_050": _timm("ghostnet_050"),
    "timm_mixnet_s": _timm("mixnet_s"),
    "timm_hrnet_w18_small": _timm("hrnet_w18_small"),
    "timm_dla34": _timm("dla34"),
    "timm_vovnet39a": _timm("vovnet39a"),
    "timm_rexnet_100": _timm("rexnet_100"),
    "timm_convnextv2_atto": _timm("convnextv2_atto"),
    "timm_poolformer_s12": _timm("poolformer_s12"),
    "timm_edgenext_xx_small": _timm("edgenext_xx_small"),
    "timm_mobilevit_xxs": _timm("mobilevit_xxs"),
    "timm_efficientvit_b0": _timm("efficientvit_b0"),
    "timm_levit_128s": _timm("levit_128s", pixels=224),
    "timm_mobilenetv4_conv_small": _timm("mobilenetv4_conv_small"),
    "timm_fastvit_t8": _timm("fastvit_t8"),
    "smp_unet": _segmentation("Unet"),
    "smp_unet_scse": _segmentation("Unet", decoder_attention_type="scse"),
    "smp_fpn": _segmentation("FPN"),
    "smp_deeplab": _segmentation("DeepLabV3Plus"),
    "smp_manet": _segmentation("MAnet"),
    "smp_linknet_mobilenet": _segmentation("Linknet", encoder_name="timm-mobilenetv3_small_100"),
    "monai_unet": _monai(
        "UNet", (1, 16, 16, 16), channels=(8, 16, 32), strides=(2, 2), num_res_units=1, **VOLUME
    ),
    "monai_segresnet": _monai("SegResNet", (1, 16, 16, 16), init_filters=8, **VOLUME),
    "monai_basicunet": _monai(
        "BasicUNet", (1, 32, 32, 32), features=(8, 8, 16, 16, 32, 8), **VOLUME
    ),
    "yolov3_tiny": _yolo("yolov3-tiny"),
    "yolov5n": _yolo("yolov5n"),
    "yolov8n": _yolo("yolov8n"),
    "yolov9t": _yolo("yolov9t"),
    "yolov10n": _yolo("yolov10n"),
    "yolo11n": _yolo("yolo11n"),
    "yolo11n_cls": _yolo("yolo11n-cls", "Classification"),
    "yolo11n_seg": _yolo("yolo11n-seg", "Segmentation"),
    "yolo11n_pose": _yolo("yolo11n-pose", "Pose"),
    "yolo12n": _yolo("yolo12n"),
    "yolo26n": _yolo("yolo26n"),
}
