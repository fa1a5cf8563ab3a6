"""On which machine a time was measured: what the numbers of two benchmarks must share to be comparable."""

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_DISTRIBUTIONS = ("numpy", "onnxruntime", "openvino", "torch")
_INSTRUCTION_SETS = (
    # The best first: each decides which int8 or float kernels a runtime takes.
    ("amx", "amx_int8"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx_vnni", "avx_vnni"),
    ("avx512", "avx512f"),
    ("avx2", "avx2"),
    ("avx", "avx"),
    ("neon_i8mm", "i8mm"),
    ("neon_dotprod", "asimddp"),
    ("neon", "asimd"),
)
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})


@dataclass(frozen=True)
class Hardware:
    """The machine of a benchmark.

    Attributes:
        cpu_model: Name of the processor.
        isa: Its best instruction set for int8: `amx`, `avx512_vnni`, `avx_vnni`, `avx512`, `avx2`, `avx`, `neon_i8mm`,
            `neon_dotprod`, `neon`, or the architecture's name.
        bf16: Whether it multiplies bfloat16 in hardware.
        cores: Cores this process may use.
        threads: Threads the benchmark used.
        load1: Mean load of the last minute before it began.
        python: Version.
        versions: Versions of the installed runtimes by name.
        provider: What ran the model, for example `CPUExecutionProvider`; empty where it differs by model.
    """

    cpu_model: str
    isa: str
    bf16: bool
    cores: int
    threads: int
    load1: float
    python: str
    versions: Mapping[str, str]
    provider: str = ""

    @property
    def fingerprint(self) -> str:
        """Return 12 hex digits that are equal where timings are comparable: load and provider do not enter."""
        versions = sorted(self.versions.items())
        parts = [self.cpu_model, self.isa, self.bf16, self.cores, self.threads, self.python, versions]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def read_hardware(threads: int) -> Hardware:
    """Return this machine, with the number of threads that a benchmark uses on it."""
    fields = _cpuinfo(_CPUINFO)
    flags = frozenset((fields.get("flags") or fields.get("Features") or "").split())
    return Hardware(
        cpu_model=_model_name(fields),
        isa=instruction_set(flags, machine=platform.machine()),
        bf16=bool(flags & _BF16_FLAGS),
        cores=len(usable_cores()),
        threads=threads,
        load1=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        versions=_versions(),
    )


def instruction_set(flags: Iterable[str], *, machine: str) -> str:
    """Return the best instruction set for int8 among the processor's flags.

    Args:
        flags: As Linux lists them in /proc/cpuinfo; none on other systems.
        machine: The architecture, `x86_64` or `aarch64` and `arm64`, the answer where no flag is known.
    """
    known = frozenset(flags)
    found = next((name for name, flag in _INSTRUCTION_SETS if flag in known), None)
    return found or ("neon" if machine in ("aarch64", "arm64") else machine)


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may use, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpuinfo(path: Path) -> dict[str, str]:
    """Return the first processor's fields; empty where the system has no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name.strip(), value.strip())
    return fields


def _model_name(fields: Mapping[str, str]) -> str:
    """Return the processor's name; ARM's Linux only numbers its parts."""
    part = " ".join(f"{name} {fields[name]}" for name in ("CPU implementer", "CPU part") if name in fields)
    return fields.get("model name") or part or platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    """Return the versions of the runtimes that are installed, without importing them."""
    versions = {}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
