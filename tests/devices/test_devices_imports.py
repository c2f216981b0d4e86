"""Which way imports go, read from the source; and what `import devices` loads, seen in a process of its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("devices", "latency_luts", "pipeline")
HEAVY = ("torch", "numpy", "pandas", "pyarrow", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "sklearn",
         "adb_shell", "adbutils", "ray", "pytest", "hypothesis", "rich", "jinja2")  # fmt: skip


def modules(folder: str) -> list[Path]:
    """The sources of a package, a folder of one or a single file. A stage that is not there yet has none."""
    path = ROOT / folder
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")] * path.with_suffix(".py").exists()


def imports(path: Path) -> Iterator[str]:
    """The absolute name of every module, and of every name taken from one, that a file imports, anywhere in it."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def offences(folder: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in imports(path)
        if any(name == other or name.startswith(other + ".") for other in forbidden)
    ]


def test_the_walk_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "pipeline" / "export" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import a.b\nfrom c import d\nfrom . import e\nfrom .. import f\nfrom ..g import h\n"
        "def later():\n    import i\n    if True:\n        from j.k import l as m\n"
    )
    assert set(imports(file)) == {
        "a.b", "c", "c.d", "pipeline.export", "pipeline.export.e", "pipeline", "pipeline.f", "pipeline.g",
        "pipeline.g.h", "i", "j.k", "j.k.l",
    }  # fmt: skip
    assert offences("pipeline/export", ("pipeline.g",)) == ["pipeline/export/x.py imports pipeline.g"] + [
        "pipeline/export/x.py imports pipeline.g.h"
    ]


DIRECTIONS = [
    ("devices", ("latency_luts", "pipeline", "torch", "numpy", "pandas", "pytest")),
    ("latency_luts", ("devices", "pipeline", "torch")),
    ("pipeline/compress", ("pipeline.search", "devices", "latency_luts")),
    ("pipeline/search", ("devices",)),
    ("pipeline/export", ("pipeline.compress",)),
    ("pipeline/deploy", ("pipeline.compress",)),
    ("pipeline/profiling", ("pipeline.compress",)),
]


@pytest.mark.parametrize(("folder", "forbidden"), DIRECTIONS, ids=[folder for folder, _ in DIRECTIONS])
def test_direction(folder: str, forbidden: tuple[str, ...]) -> None:
    assert offences(folder, forbidden) == []


@pytest.mark.parametrize(
    "folder", ["devices", "latency_luts", "pipeline/compress", "pipeline/export", "pipeline/deploy"]
)
def test_the_folders_that_are_there_are_walked(folder: str) -> None:
    assert modules(folder)


@pytest.mark.parametrize(
    ("module", "owner"),
    [
        ("litert_torch", "pipeline/export/tflite"),
        ("ray", "pipeline/farm"),
        ("adb_shell", "devices/adb"),
        ("adbutils", "devices/adb"),
    ],
)
def test_only_its_owner_imports_it(module: str, owner: str) -> None:
    allowed = set(modules(owner))
    found = [line for folder in OURS for line in offences(folder, (module,)) if ROOT / line.split()[0] not in allowed]
    assert found == []


def test_the_converter_is_imported_by_its_exporter() -> None:
    assert offences("pipeline/export/tflite", ("litert_torch",))


def loaded_by(statement: str) -> set[str]:
    """The top-level modules in a fresh interpreter after a statement, without what it starts with."""
    code = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - before), sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in result.stdout.split()}


@pytest.mark.parametrize("module", ["devices", "devices.testing", "devices.bundle", "devices.ort_profile"])
def test_import_of_devices_is_light(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert "devices" in loaded
    assert not loaded & {*HEAVY, "latency_luts", "pipeline"}


def test_import_of_latency_luts_is_light() -> None:
    loaded = loaded_by("import latency_luts")
    assert "latency_luts" in loaded
    assert not loaded & {"torch", "pandas", "pyarrow", "devices", "pipeline"}


def test_import_of_devices_works_nothing_and_writes_nothing(tmp_path: Path) -> None:
    """No command, no file, no socket: seen by the interpreter's own audit of what is done."""
    code = (
        "import sys\nseen = []\n"
        "def audit(event, args):\n"
        "    if event.startswith(('subprocess.', 'socket.', 'os.system', 'os.mkdir', 'os.rename', 'os.remove')):\n"
        "        seen.append(event)\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'):\n"
        "        seen.append(f'{event} {args[0]}')\n"
        "sys.dont_write_bytecode = True\n"
        "sys.addaudithook(audit)\n"
        "import devices, devices.bundle, devices.testing, devices.reference, devices.lock\n"
        "print(*seen, sep='\\n')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.split() == []


@pytest.mark.parametrize(
    "package",
    ["devices", "latency_luts", "pipeline"],
)
def test_no_module_is_named_after_one_of_the_standard_library(package: str) -> None:
    """`profile.py` breaks cProfile."""
    taken = [str(path) for path in modules(package) if path.stem in sys.stdlib_module_names]
    assert [name for name in taken if not name.endswith("__main__.py")] == []
