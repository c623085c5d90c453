"""Whether a backend can be there, told from its declaration alone."""

from equivbench.kernels.backends import absent
from equivbench.specs import KernelBackendSpec


def test_a_backend_that_needs_nothing_is_there():
    assert absent(KernelBackendSpec("one", "", "m:f")) is None
    assert absent(KernelBackendSpec("one", "", "m:f", needs=("math", "importlib.util"))) is None


def test_what_is_missing_is_named_with_the_command_that_brings_it():
    spec = KernelBackendSpec(
        "one",
        "",
        "m:f",
        needs=("math", "no_such_module", "no_parent.child"),
        install="pip install one",
    )
    reason = absent(spec)
    assert reason is not None
    assert "no_such_module, no_parent.child" in reason
    assert reason.endswith("pip install one")


def test_a_device_it_does_not_run_on_is_named():
    spec = KernelBackendSpec("one", "", "m:f", devices=("cuda",))
    assert absent(spec) is None
    assert absent(spec, "cuda:1") is None
    assert absent(spec, "cpu") == "one runs on cuda only"
