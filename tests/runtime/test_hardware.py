import os
import platform
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from mlflow_yolo.runtime.hardware import Hardware, instruction_set, read_hardware

ZEN4 = "fpu avx avx2 avx512f avx512_bf16 avx512_vnni"
SAPPHIRE_RAPIDS = "avx avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("flags", "machine", "isa"),
    [
        (SAPPHIRE_RAPIDS, "x86_64", "amx"),
        (ZEN4, "x86_64", "avx512_vnni"),
        ("avx avx2 avx_vnni", "x86_64", "avx_vnni"),
        ("avx avx2 avx512f", "x86_64", "avx512"),
        ("avx avx2", "x86_64", "avx2"),
        ("sse4_2 avx", "x86_64", "avx"),
        ("sse4_2", "x86_64", "x86_64"),
        ("asimd asimddp i8mm", "aarch64", "neon_i8mm"),
        ("asimd asimddp", "aarch64", "neon_dotprod"),
        ("", "arm64", "neon"),
        ("", "riscv64", "riscv64"),
    ],
)
def test_the_instruction_set_is_the_best_for_int8(flags: str, machine: str, isa: str) -> None:
    assert instruction_set(flags.split(), machine=machine) == isa


def test_this_machine_is_described_as_the_system_describes_it() -> None:
    hardware = read_hardware(1)
    assert hardware.cores == len(os.sched_getaffinity(0))
    assert hardware.python == platform.python_version()
    assert hardware.versions["numpy"] == metadata.version("numpy")
    assert hardware.cpu_model
    assert hardware.load1 >= 0
    if Path("/proc/cpuinfo").exists() and platform.machine() == "x86_64":
        text = Path("/proc/cpuinfo").read_text()
        assert f": {hardware.cpu_model}\n" in text
        assert hardware.bf16 == (" avx512_bf16" in text or " amx_bf16" in text)


def test_the_fingerprint_is_that_of_what_makes_timings_comparable() -> None:
    one = Hardware("EPYC", "avx2", False, 2, 1, 0.1, "3.11.7", {"numpy": "2.0", "onnxruntime": "1.31"})
    assert len(one.fingerprint) == 12
    assert int(one.fingerprint, 16) >= 0
    assert replace(one, load1=7.5, provider="OpenVINO CPU").fingerprint == one.fingerprint
    assert replace(one, versions={"onnxruntime": "1.31", "numpy": "2.0"}).fingerprint == one.fingerprint
    different = [
        replace(one, cpu_model="Xeon"),
        replace(one, isa="amx"),
        replace(one, bf16=True),
        replace(one, cores=4),
        replace(one, threads=2),
        replace(one, versions={"numpy": "2.0", "onnxruntime": "1.32"}),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in different)}) == 7
