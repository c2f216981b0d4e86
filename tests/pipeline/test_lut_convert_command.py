"""`handset lut diff`, `export` and `import`: what changed, what is written in other formats and read back."""

from __future__ import annotations

import dataclasses
import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from latency_luts import Context, ContextMismatch, LatencyTable, load, merge, save

MADE = runpy.run_path(str(Path(__file__).with_name("test_lut_query.py")))
run, lut = MADE["run"], MADE["lut"]  # fixtures
conv, entry, stepped = MADE["conv"], MADE["entry"], MADE["stepped"]
network, of_network = MADE["network"], MADE["of_network"]
CONTEXT: Context = MADE["CONTEXT"]
Run = Callable[..., tuple[int, str, str]]


def test_nothing_changed_between_a_table_and_itself(run: Run, lut: Path) -> None:
    status, out, _ = run("diff", lut, lut, "--fail-on-change")
    assert status == 0 and "noise: nothing changed" in out and "factor   1.0000" in out


def test_a_change_is_found_and_fails_only_where_that_is_asked(run: Run, lut: Path, tmp_path: Path) -> None:
    slower = [dataclasses.replace(each, latency_ns_median=each.latency_ns_median * 1.5, interval_ns=tuple(
        end * 1.5 for end in each.interval_ns)) if each.key == conv(40) else each for each in stepped()]  # fmt: skip
    save(LatencyTable(dataclasses.replace(CONTEXT, device="other"), tuple(slower[:-1])), tmp_path / "new.parquet")
    asked = ("diff", lut, tmp_path / "new.parquet", "--json", tmp_path / "d.json")
    status, out, _ = run(*asked)
    assert status == 0 and "change: 1 kernel changed" in out and "+50 %" in out
    assert "host -> other" in out and "only in old: 1 kernel" in out
    document = json.loads((tmp_path / "d.json").read_text("utf-8"))
    assert (document["schema_version"], document["kind"], document["verdict"]) == (1, "lut_diff", "change")
    assert document["context"] == [{"name": "device", "old": "host", "new": "other"}]
    (change,) = document["changes"]
    assert change["key"] == str(conv(40)) and change["ratio"] == pytest.approx(1.5) and change["beyond_factor"] is True
    assert run(*asked, "--fail-on-change")[0] == 1
    assert run(*asked, "--fail-on-change", "--minimum-effect", "60%")[0] == 0


@pytest.mark.parametrize("kind", ["csv", "netadapt"])
def test_what_was_exported_is_imported_and_says_so(run: Run, lut: Path, tmp_path: Path, kind: str) -> None:
    out, back = tmp_path / f"t.{kind}", tmp_path / "back.parquet"
    status, said, err = run("export", "--lut", lut, "--to", kind, "--out", out, "--json", tmp_path / "e.json")
    assert (status, said.strip()) == (0, str(out))
    unmapped = json.loads((tmp_path / "e.json").read_text("utf-8"))["unmapped"]
    assert len(unmapped) == (kind == "netadapt") and ("could not be mapped" in err) == bool(unmapped)
    assert run("import", "--from", kind, "--context-from", lut, "--half-width", 1, "--out", back, out)[0] == 0
    old, new = load(lut), load(back)
    times = {each.key: each.latency_ns_median for each in old if kind == "csv" or each.key.op == "conv2d"}
    assert {each.key: each.latency_ns_median for each in new} == pytest.approx(times)
    if kind == "csv":
        assert tuple(new) == tuple(old)
    else:
        assert {each.runtime_kernel for each in new} == {"NetAdapt Conv2d"}
    assert new.context.handset_version == f"imported from {kind} by 0.1.0" and new.context.device == "host"
    with pytest.raises(ContextMismatch):
        merge(old, new, on_duplicate="first")


def test_netadapt_gets_the_names_of_a_networks_layers(run: Run, tmp_path: Path) -> None:
    model = network(tmp_path)
    save(LatencyTable(CONTEXT, tuple(entry(key, 1000.0) for key in of_network(model))), tmp_path / "t.parquet")
    asked = ("--to", "netadapt", "--model", model, "--out", tmp_path / "n.json")
    assert run("export", "--lut", tmp_path / "t.parquet", *asked)[0] == 0
    layers = json.loads((tmp_path / "n.json").read_text("utf-8"))
    assert {name: layer["num_out_channels"] for name, layer in layers.items()} == {"0": 8, "2": 24}


def test_once_for_all_layers_are_imported_and_blocks_are_listed(run: Run, tmp_path: Path) -> None:
    layers = ["Conv-input:224x224x3-output:112x112x32"]
    layers += [
        f"expanded_conv-input:56x56x24-output:56x56x24-expand:{n}-kernel:3-stride:1-idskip:1" for n in range(2, 9)
    ]
    (tmp_path / "o.yaml").write_text("".join(f"{name}: {{mean: 0.5}}\n" for name in layers))
    asked = ("--from", "once-for-all", "--device", "Pixel 6", "--runtime", "tflite", "--out", tmp_path / "o.parquet")
    status, _, err = run("import", *asked, tmp_path / "o.yaml", "--half-width", "5%")
    assert status == 0 and "7 could not be mapped, the first 5:" in err and len(err.splitlines()) == 1 + 5
    (one,) = table = load(tmp_path / "o.parquet")
    assert one.interval_ns == pytest.approx((475_000, 525_000)) and one.runtime_kernel == "once-for-all Conv"
    assert (table.context.device, table.context.runtime, table.context.threads) == ("Pixel 6", "tflite", 1)
    status, _, err = run("import", *asked, "--force", tmp_path / "o.yaml")
    assert status == 2 and "--half-width" in err
    (tmp_path / "names").write_text(f"{layers[0]}\n{layers[1]}\n")
    out = ("--to", "once-for-all", "--layers", tmp_path / "names", "--out", tmp_path / "again.yaml")
    assert run("export", "--lut", tmp_path / "o.parquet", *out)[0] == 0
    assert (tmp_path / "again.yaml").read_text() == f"{layers[0]}: {{mean: 0.5}}\n"
    (tmp_path / "blocks.yaml").write_text(f"{layers[1]}: {{mean: 0.5}}\n")
    status, _, err = run("import", *asked, "--force", "--half-width", 5, tmp_path / "blocks.yaml")
    assert status == 1 and "no kernel is in" in err


def test_a_file_that_is_there_is_replaced_only_by_force(run: Run, lut: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    out.write_text("mine")
    asked = ("export", "--lut", lut, "--to", "csv", "--out")
    status, _, err = run(*asked, out)
    assert status == 2 and "is there already; try: --force" in err and out.read_text() == "mine"
    assert run(*asked, out, "--force")[0] == 0 and out.read_text() != "mine"
    before = lut.read_bytes()
    assert run(*asked, lut, "--force")[0] == 2  # the table itself
    assert run("query", "--lut", lut, "--json", lut)[0] == 2
    assert lut.read_bytes() == before
    assert run(*asked, "/dev/null", "--force")[0] == 1 and not Path("/dev/null").is_file()


def test_simulated_numbers_stay_marked(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    save(stepped(simulated=True), path, allow_simulated=True)
    for asked in (("query", "--lut", path), ("query", "--lut", path, conv(8)), ("diff", path, path)):
        assert "SIMULATED" in run(*asked)[1]
    status, _, err = run("export", "--lut", path, "--to", "csv", "--out", tmp_path / "s.csv")
    assert status == 2 and "not measured but simulated" in err and not (tmp_path / "s.csv").exists()
    run("export", "--lut", path, "--to", "csv", "--out", tmp_path / "s.csv")
    save(stepped(), tmp_path / "t.parquet")
    assert run("export", "--lut", tmp_path / "t.parquet", "--to", "csv", "--out", tmp_path / "t.csv")[0] == 0
    out = ("--from", "csv", "--context-from", path, "--out", tmp_path / "i.parquet")
    assert run("import", *out, tmp_path / "t.csv")[0] == 2 and not (tmp_path / "i.parquet").exists()
