"""What sets one GPU apart from others of its name, read off a pretended NVML."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivbench import environment, gpu
from equivbench.errors import FailedError
from equivbench.execution import plan
from equivbench.gpu import GpuSettings
from equivbench.request import RunRequest

H100 = "NVIDIA H100 80GB HBM3"
BOARD, SLICE = "the board", "a slice of it"
SETTINGS = st.builds(
    GpuSettings,
    power_cap_watts=st.none() | st.integers(1, 2000),
    mig=st.none() | st.sampled_from(["1g.10gb", "3g.40gb", "slice"]),
    compute_mode=st.sampled_from(["default", "exclusive", "prohibited"]),
)


class NVMLError(Exception):
    pass


def nvml_of(handle: str = BOARD, **told: Any) -> types.SimpleNamespace:
    """A module like ``pynvml`` whose functions give what is ``told``, and refuse the rest."""

    def function(name: str) -> Any:
        def give(of: object) -> Any:
            if name not in told:
                raise NVMLError("Not Supported")
            return told[name]

        return give

    names = (
        *("IsMigDeviceHandle", "GetDeviceHandleFromMigDeviceHandle", "GetAttributes"),
        *("GetPowerManagementLimit", "GetPowerManagementDefaultLimit", "GetComputeMode"),
    )
    module = types.SimpleNamespace(**{f"nvmlDevice{name}": function(name) for name in names})
    module.NVMLError = NVMLError

    def by_uuid(uuid: str) -> str:
        if uuid != f"{'MIG' if handle == SLICE else 'GPU'}-0123":
            raise NVMLError("Not Found")
        return handle

    module.nvmlDeviceGetHandleByUUID = by_uuid
    module.nvmlInit = lambda: None
    return module


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a GPU with such an NVML into the machine."""

    def put(nvml: object, name: str = H100) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        properties = types.SimpleNamespace(uuid="0123")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)

    return put


def test_a_board_as_its_maker_sets_it_has_nothing_to_tell() -> None:
    told = {"GetPowerManagementLimit": 700_000, "GetPowerManagementDefaultLimit": 700_000}
    for nvml in (nvml_of(), nvml_of(**told, GetComputeMode=0, IsMigDeviceHandle=0)):
        assert gpu.read_settings(nvml, BOARD) == GpuSettings()


def test_a_power_cap_is_one_that_is_not_the_default() -> None:
    nvml = nvml_of(GetPowerManagementLimit=350_000, GetPowerManagementDefaultLimit=700_000)
    assert gpu.read_settings(nvml, BOARD).power_cap_watts == 350


@pytest.mark.parametrize(
    ("number", "mode"), [(0, "default"), (2, "prohibited"), (3, "exclusive"), (9, "default")]
)
def test_the_compute_mode_is_read(number: int, mode: str) -> None:
    assert gpu.read_settings(nvml_of(GetComputeMode=number), BOARD).compute_mode == mode


def test_a_slice_has_nvidias_name_of_its_profile_and_the_cap_of_its_board(card: Any) -> None:
    part = types.SimpleNamespace(gpuInstanceSliceCount=1, memorySizeMB=9856)
    card(
        nvml_of(
            SLICE,
            IsMigDeviceHandle=1,
            GetDeviceHandleFromMigDeviceHandle=BOARD,
            GetAttributes=part,
            GetPowerManagementLimit=300_000,
            GetPowerManagementDefaultLimit=700_000,
        )
    )
    assert gpu.gpu_settings("cuda") == GpuSettings(300, "1g.10gb")


def test_the_key_holds_what_sets_the_gpu_apart(card: Any) -> None:
    whole = environment.machine_key("cpu", 8) + "-nvidia-h100-80gb-hbm3"
    card(nvml_of())
    assert environment.machine_key("cuda:0", 8) == whole
    card(nvml_of(GetPowerManagementLimit=350_000, GetPowerManagementDefaultLimit=700_000))
    assert environment.machine_key("cuda:0", 8) == f"{whole}-350w"


@given(settings=SETTINGS, threads=st.integers(1, 256))
def test_every_key_is_that_of_its_machine_and_of_no_other(
    settings: GpuSettings, threads: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "gpu_name", lambda device: H100)
        patch.setattr(environment, "gpu_settings", lambda device: settings)
        key = environment.machine_key("cuda", threads)
    cpu = environment.cpu_model()
    assert environment.is_key_of(key, cpu, threads, H100)
    assert not environment.is_key_of(key, cpu, threads, "cpu")
    assert not environment.is_key_of(key, cpu, threads + 1, H100)
    assert not environment.is_key_of(f"{key}-x", cpu, threads, H100)
    assert "/" not in key


def test_a_slice_that_the_name_tells_is_not_told_twice() -> None:
    assert gpu.key_of_settings(f"{H100} MIG 1g.10gb", GpuSettings(mig="1g.10gb")) == []
    assert gpu.key_of_settings(H100, GpuSettings(mig="1g.10gb")) == ["mig-1g.10gb"]
    assert gpu.key_of_settings(H100, "nobody knows") == []


def test_without_the_library_the_reason_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "equivbench[gpu]" in str(gpu.gpu_settings("cuda"))
    assert gpu.why_not_shared("cuda", 2) is None


@pytest.mark.parametrize("mode", ["EXCLUSIVE_PROCESS", "PROHIBITED"])
def test_two_arms_are_refused_on_a_gpu_for_one_process(
    card: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(plan, "resolve_device", lambda device: device)
    card(nvml_of(GetComputeMode=2 if mode == "PROHIBITED" else 3))
    with pytest.raises(FailedError, match=f"{mode}.*nvidia-smi"):
        plan.this_machine(RunRequest(device="cuda"))
    one = RunRequest(device="cuda", arms=("augmented",))
    if mode == "PROHIBITED":
        with pytest.raises(FailedError, match=mode):
            plan.this_machine(one)
        return
    assert plan.this_machine(one).device == "cuda"
    # Processes of the multi-process service share what is exclusively its own.
    (tmp_path / "control").write_text("")
    assert plan.this_machine(RunRequest(device="cuda")).device == "cuda"
