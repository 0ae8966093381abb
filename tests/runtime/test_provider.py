"""Providers: the one that was asked for or an error, and never a word from ONNX Runtime itself."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from typing import Any

import onnxruntime as ort
import pytest

from cloakonnx.errors import ProviderError
from cloakonnx.runtime import packages as installed_packages
from cloakonnx.runtime import provider
from cloakonnx.runtime.provider import Provider, choose_provider, installation_warning

CPU = "CPUExecutionProvider"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ONNX Runtime list CUDA, which then does not load, whatever this machine has."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU])
    real = ort.InferenceSession

    def session(model: Any, *rest: Any, providers: Any, **options: Any) -> Any:
        return real(model, *rest, providers=[p for p in providers if p[0] == CPU] or [CPU], **options)

    monkeypatch.setattr(ort, "InferenceSession", session)
    provider._loads.cache_clear()


def missing_providers() -> list[str]:
    """Return short names of providers that this machine does not have."""
    found = []
    for name in ("cuda", "tensorrt", "coreml", "openvino", "rocm", "migraphx", "dml"):
        try:
            choose_provider(name)
        except ProviderError:
            found.append(name)
    return found


def test_cpu_is_always_there() -> None:
    assert choose_provider("cpu") == choose_provider("CPU") == choose_provider(CPU) == Provider(CPU)


@pytest.mark.usefixtures("absent")
def test_a_provider_that_does_not_load_is_an_error() -> None:
    with pytest.raises(ProviderError, match=r"provider cuda: CUDAExecutionProvider does not load .* device 1 .*cpu"):
        choose_provider("cuda", device_id=1)
    assert choose_provider() == Provider(CPU)


def test_a_provider_that_is_not_built_in_is_an_error() -> None:
    for name in missing_providers():
        with pytest.raises(ProviderError) as caught:
            choose_provider(name)
        assert f"provider {name}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ProviderError, match=r"no cpuu; it has cpu.*did you mean 'cpu'"):
        choose_provider("cpuu")


def test_only_cuda_and_tensorrt_live_on_the_gpu() -> None:
    assert [Provider(n).device for n in (CPU, "CUDAExecutionProvider", "TensorrtExecutionProvider")] == [
        "cpu",
        "cuda",
        "cuda",
    ]
    ((name, options),) = Provider("CUDAExecutionProvider", 3).session_arguments
    assert (name, options["device_id"], options["use_tf32"]) == ("CUDAExecutionProvider", "3", "0")


def test_nothing_is_printed() -> None:
    """In a process of its own, so that what C++ prints at import is seen as well."""
    code = """
from cloakonnx.errors import ProviderError
from cloakonnx.runtime.provider import choose_provider
for name in ("cuda", "tensorrt", None):
    try:
        choose_provider(name)
    except ProviderError:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_nothing_is_printed_in_this_process(capfd: pytest.CaptureFixture[str]) -> None:
    provider._loads.cache_clear()
    missing_providers()
    choose_provider()
    assert capfd.readouterr() == ("", "")


def installed(*packages: str) -> Callable[[str], str]:
    def version(package: str) -> str:
        if package not in packages:
            raise PackageNotFoundError(package)
        return "1.31.1"

    return version


def test_warning_where_both_packages_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_packages, "version", installed("onnxruntime", "onnxruntime-gpu"))
    warning = installation_warning()
    assert warning is not None
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are both installed" in warning
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("packages", [("onnxruntime",), ("onnxruntime-gpu",), ()])
def test_no_warning_otherwise(monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...]) -> None:
    monkeypatch.setattr(installed_packages, "version", installed(*packages))
    assert installation_warning() is None
