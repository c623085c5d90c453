"""Compiling and caching of generated code, and the couplings it is generated from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equivbench.errors import FailedError
from equivbench.kernels import build_time, private_folder
from equivbench.kernels.backend import backend
from equivbench.kernels.backends import fused
from equivbench.kernels.checking import WrongKernelError
from equivbench.kernels.fused import native
from equivbench.kernels.fused.coupling import couplings
from equivbench.kernels.fused.native_source import shorter, source
from equivbench.kernels.operations import Convolution
from equivbench.kernels.operations.paths import coupling

SOURCE = 'extern "C" int answer() { return 42; }'
needs_compiler = pytest.mark.skipif(
    native.no_compiler() is not None, reason=str(native.no_compiler())
)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, on disk and in memory."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path))
    native.library.cache_clear()
    native._target.cache_clear()
    build_time.take_spared()


@needs_compiler
def test_a_source_is_compiled_once_a_machine(tmp_path: Path) -> None:
    assert native.library(SOURCE).answer() == 42
    # Nothing lies beside it but what it took.
    file, seconds = sorted((tmp_path / "kernels").iterdir(), key=lambda path: path.suffix != ".so")
    assert [file.suffix, seconds.suffix] == [".so", ".seconds"]
    made = file.stat()
    assert build_time.take_spared() == 0
    native.library.cache_clear()
    assert native.library(SOURCE).answer() == 42
    # Who finds it compiled is charged for it all the same, once.
    assert build_time.take_spared() == float(seconds.read_text()) > 0
    assert build_time.take_spared() == 0
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


@needs_compiler
def test_what_checking_finds_compiled_is_charged_to_nobody() -> None:
    native.library(SOURCE)
    build_time.spare(1.0)
    native.library.cache_clear()
    with build_time.uncharged():
        native.library(SOURCE)
    assert build_time.take_spared() == 1.0


@needs_compiler
def test_a_source_that_does_not_compile_says_why() -> None:
    with pytest.raises(FailedError, match="could not compile"):
        native.library("int answer() { return unknown; }")


@needs_compiler
def test_a_library_cut_short_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.library(SOURCE)
    (whole,) = (tmp_path / "kernels").glob("*.so")
    # In another folder: what this process has loaded from a path it would be given again.
    broken = tmp_path / "other" / "kernels" / whole.name
    broken.parent.mkdir(parents=True)
    broken.write_bytes(whole.read_bytes()[:64])
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "other"))
    native.library.cache_clear()
    assert native.library(SOURCE).answer() == 42
    assert broken.stat().st_size > 64


@needs_compiler
def test_a_library_that_others_could_have_written_is_compiled_again(tmp_path: Path) -> None:
    native.library(SOURCE)
    (file,) = (tmp_path / "kernels").glob("*.so")
    assert ((tmp_path / "kernels").stat().st_mode & 0o777, file.stat().st_mode & 0o077) == (
        0o700,
        0,
    )
    before = file.stat().st_ino
    file.chmod(0o722)
    native.library.cache_clear()
    native.library(SOURCE)
    assert file.stat().st_ino != before
    assert file.stat().st_mode & 0o077 == 0


@needs_compiler
def test_nothing_is_loaded_from_where_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.library(SOURCE)
    native.library.cache_clear()
    tmp_path.chmod(0o777)
    with monkeypatch.context() as patch:
        patch.setattr(private_folder, "places_of_ones_own", lambda: iter(()))
        with pytest.raises(FailedError, match="others can write"):
            native.library(SOURCE)
    # Nobody replaces what is another's in a folder like /tmp.
    tmp_path.chmod(0o1777)
    assert native.library(SOURCE).answer() == 42


WRONG = {
    "output": ("if (kind == 0) forward(e);", ""),
    "gradient": ("if (kind == 1 && a.by_y) by_harmonics(e);", ""),
    "second": ("if (kind == 2 && (a.by_x || a.by_w)) second(e);", ""),
}


@needs_compiler
@pytest.mark.parametrize(("result", "change"), WRONG.items(), ids=WRONG)
def test_a_library_that_computes_something_else_is_not_used(
    result: str, change: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "source", lambda *given: source(*given).replace(*change))
    operation = Convolution((1,), 1, 1)
    build = backend("fused").build
    for cache in (native.compiled, fused._compiled_and_checked):
        cache.cache_clear()
    # Where no gradients are recorded, as where a network is copied to be measured.
    with (
        torch.no_grad(),
        pytest.raises(WrongKernelError, match=f"is wrong on 'convolution'.*: {result}"),
    ):
        build(operation, dtype=torch.float64, device=torch.device("cpu"))
    native.compiled.cache_clear()
    monkeypatch.setattr(native, "source", source)
    with torch.inference_mode():
        build(operation, dtype=torch.float64, device=torch.device("cpu"))


@needs_compiler
def test_a_cache_that_takes_no_files_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(FailedError, match="EQUIVBENCH_CACHE"):
        native.library(SOURCE)


def test_without_a_compiler_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "install g++" in str(native.no_compiler())
    with pytest.raises(FailedError, match="no C\\+\\+ compiler"):
        native.library(SOURCE)


@pytest.mark.parametrize("width", [2, 4, 8, 16])
def test_every_channel_is_in_one_vector(width: int) -> None:
    for channels in range(1, 70):
        found = [*range(channels // width * width)]
        for lanes, first in shorter(channels):
            found += range(first, first + lanes) if lanes < width else ()
        assert found == [*range(channels)]


@pytest.mark.parametrize(
    "operation", [Convolution((1, 1, 1), 2, 2), Convolution((2, 3), 1, 2, parity=False)]
)
def test_slots_rebuild_the_wigner_coefficients(operation: Convolution) -> None:
    table = couplings(operation)
    assert len(set(table.slots)) == len(table.slots)
    found_paths = [path for part in table.sources for path in part.paths]
    for path, found in zip(operation.paths, found_paths, strict=True):
        rebuilt = torch.zeros(
            2 * path.target + 1, 2 * path.source + 1, 2 * path.edge + 1, dtype=torch.float64
        )
        for m3, m1, slot in found.entries:
            for row, value in table.slots[slot]:
                rebuilt[m3, m1, row - path.edge**2] = value
        # Entries that agree to the rounding of the table share a slot.
        torch.testing.assert_close(rebuilt, coupling(path), rtol=0, atol=2e-12)
