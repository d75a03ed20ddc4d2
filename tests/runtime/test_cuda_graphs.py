"""Networks of trainings that replay CUDA graphs, which keep the tensors of before an edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning import AddFilters, EditRefusedError, Freeze, monitor
from revacnn_lightning.runtime import cuda_graphs
from revacnn_lightning.runtime.cuda_graphs import GraphReplayDetector, graphed_module_edit_refusal


def make_graphed_callables(module: nn.Module) -> None:
    """Replace a forward as `torch.cuda.make_graphed_callables` does."""

    def make_graphed_forward(original: Callable[..., Any]) -> Callable[..., Any]:
        def new_fwd(*args: Any) -> Any:
            return original(*args)

        return new_fwd

    module.forward = make_graphed_forward(module.forward)


def test_a_graphed_module_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert graphed_module_edit_refusal(net) == ""
    make_graphed_callables(net[0])
    assert graphed_module_edit_refusal(net).startswith("0 replays a CUDA graph")


def test_torch_names_the_forward_of_a_graphed_module_so() -> None:
    [make_forward] = [
        code
        for code in torch.cuda.make_graphed_callables.__code__.co_consts
        if getattr(code, "co_name", "") == "make_graphed_forward"
    ]
    assert torch.cuda.make_graphed_callables.__qualname__ == "make_graphed_callables"
    assert "new_fwd" in [getattr(code, "co_name", "") for code in make_forward.co_consts]


class OnGpu(nn.Parameter):
    """A parameter of the CPU that says that it is on a GPU."""

    is_cuda = True  # type: ignore[assignment]


@pytest.fixture
def linear() -> nn.Linear:
    """Return a layer whose weight has a gradient."""
    model = nn.Linear(3, 2, bias=False)
    model.weight = OnGpu(torch.ones(2, 3))
    model(torch.ones(1, 3)).sum().backward()
    return model


def test_a_parameter_that_no_operation_has_changed_shows_a_graph(linear: nn.Linear) -> None:
    changes = GraphReplayDetector(linear)
    assert changes.refusal() == ""
    linear.weight.detach().numpy()[0] = 2  # as a kernel of a graph writes
    assert changes.refusal() == cuda_graphs.REPLAYED


def test_a_gradient_that_no_operation_has_changed_shows_a_graph(linear: nn.Linear) -> None:
    changes = GraphReplayDetector(linear)
    assert linear.weight.grad is not None
    linear.weight.grad.numpy()[0] = 2
    assert changes.refusal() == cuda_graphs.REPLAYED


def test_sparse_gradients_are_left_out(linear: nn.Linear) -> None:
    """A norm of them raises, which must not reach the training."""
    linear.weight.grad = torch.ones(2, 3).to_sparse()
    assert GraphReplayDetector(linear).refusal() == ""


def test_an_eager_step_shows_no_graph(linear: nn.Linear) -> None:
    changes = GraphReplayDetector(linear)
    linear(torch.ones(1, 3)).sum().backward()
    torch.optim.SGD(linear.parameters(), lr=0.1).step()
    assert changes.refusal() == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("edit", [AddFilters("0", 2), Freeze("0", [1])])
def test_edits_of_a_graph_were_applied_without_effect(edit: Any) -> None:
    """The page showed a wider layer, and the graph went on with the one of before."""
    images, labels = torch.randn(8, 3, 12, 12).cuda(), torch.arange(8).cuda() % 4
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).cuda()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, capturable=True)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    with monitor(net, optimizer) as run:
        reply = run.steer(edit)
        for _ in range(10):
            with run.batch((images, labels)):
                graph.replay()
                run.log(loss=loss.detach())
    with pytest.raises(EditRefusedError, match="CUDA graph"):
        reply.result()
    assert net[0].out_channels == 8
