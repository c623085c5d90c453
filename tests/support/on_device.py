"""The device of the tests marked ``cuda``: a GPU, or the CPU on which they are rehearsed
(``EQUIVBENCH_TEST_DEVICE=cpu``, as ``tools/gpu_campaign.sh --device cpu`` does)."""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = torch.device(os.environ.get("EQUIVBENCH_TEST_DEVICE", "cuda"))
IS_GPU = DEVICE.type == "cuda"
needs_device = pytest.mark.skipif(
    IS_GPU and not torch.cuda.is_available(), reason="needs a CUDA device"
)
needs_gpu = pytest.mark.skipif(
    not IS_GPU or not torch.cuda.is_available(), reason="needs a CUDA device"
)
