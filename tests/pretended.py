"""A GPU for tests; where there is none, one that is pretended.

Its tensors say that they are on `cuda`, and are held and computed with by the processor. Where a real GPU refuses to
mix its tensors with the processor's, so does this one: so what is said to run on a GPU can be seen to keep its tensors
together. Of speed, kernels, autocast and rounding it tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
# what takes tensors of both: copies, and indices (of the last, autograd makes some, on what it takes for a processor)
BOTH = {aten.copy_, aten._to_copy, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten.index_add_}

# torch.cuda's
ANSWERS = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": "pretended",
    "is_bf16_supported": True,
    "is_current_stream_capturing": False,
    "set_device": None,
    "synchronize": None,
    "_lazy_init": None,
}


class Pretended(torch.Tensor):
    """`held` is where its numbers are."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        made: Pretended = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # what autograd is not told: it would look for streams
        return torch.device("cuda", 0)

    is_cuda = True

    def cpu(self) -> Tensor:
        return aten._to_copy.default(self, device=torch.device("cpu"))

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        device = next((each for each in (*args, kwargs.get("device")) if isinstance(each, (str, torch.device))), "cuda")
        return self.cpu() if torch.device(device).type == "cpu" else super().to(*args, **kwargs)

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a tensor on cuda to numpy")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, args, kwargs or {})


def run(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    there = [each for each in given if isinstance(each, Pretended)]
    here = [each for each in given if not isinstance(each, Pretended) and each.ndim]
    if there and here and op.overloadpacket not in BOTH:
        shapes = [tuple(each.shape) for each in here]
        raise RuntimeError(f"{op}: expected all tensors on one device; of {shapes} the processor has some")
    asked = kwargs.get("device")
    on_gpu = bool(there) if asked is None else torch.device(asked).type == "cuda"
    if op.overloadpacket is aten.copy_:
        on_gpu = isinstance(args[0], Pretended)
    elif there and op.overloadpacket is not aten._to_copy:
        on_gpu = True  # autograd asks for "the same device", and takes that for the processor
    if asked is not None:
        kwargs = {**kwargs, "device": "cpu"}
    whose = {id(each.held): each for each in there}

    def unwrapped(each: Any) -> Any:
        return each.held if isinstance(each, Pretended) else each

    def wrapped(each: Any) -> Any:
        if not isinstance(each, Tensor) or not on_gpu:
            return each
        return whose[id(each)] if id(each) in whose else Pretended(each)

    found = op(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
    if torch.Tag.inplace_view in op.tags and there:
        with no_dispatch():  # the shape that is told changes, too
            op(*args, **kwargs)
    return tree_map(wrapped, found)


@contextmanager
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if torch.cuda.is_available():
        yield
        return
    torch._C._ensureCUDADeviceGuardSet()  # of devices, where there are none
    with monkeypatch.context() as patched, Mode():
        patched.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
        for name, answer in ANSWERS.items():
            patched.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
        patched.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: False)
        # which these tensors do not know
        patched.setattr(torch, "inference_mode", lambda mode=True: torch.set_grad_enabled(not mode))
        patched.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor() makes its tensor here, and then sends it there
        try:
            yield
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)
