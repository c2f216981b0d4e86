"""Which devices there are, what a name means, and the profiles that say so."""

from __future__ import annotations

from pathlib import Path

import pytest

import devices
from devices.discovery import cache_dir, list_devices, open_device
from devices.errors import DeviceError, NoSuchDevice
from devices.host import HostTransport
from devices.profile_spec import DeviceProfile, load_profiles, parse_profile


@pytest.fixture(autouse=True)
def no_adb_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs on this machine: port 1 has no server."""
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:127.0.0.1:1")


PROFILES = sorted((Path(devices.__file__).parent / "profiles").iterdir())


def test_host_is_there_and_opens() -> None:
    (host,) = [device for device in list_devices() if device.name == "host"]
    with open_device("host") as transport:
        assert isinstance(transport, HostTransport)
        assert transport.describe() == host
        assert transport.workdir == str(cache_dir() / "work")


@pytest.mark.parametrize("name", ["", "hos", "HOST", "pixel-99", "../host", "host ", "127.0.0.1", "a:b", "host:99999"])
def test_unknown_name_lists_what_is_there(name: str) -> None:
    with pytest.raises(NoSuchDevice) as told:
        open_device(name)
    host = list_devices()[0]
    assert f"no device named {name!r}; here are: host ({host.model})" in str(told.value)
    assert told.value.exit_status == 3 and told.value.try_.startswith("--device host; connect a phone")


def test_nothing_is_made_by_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    list_devices()
    open_device("host").close()
    assert not (tmp_path / "cache").exists()


def test_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == Path("/somewhere/handset")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_dir() == Path("/home/me/.cache/handset")


def test_public_names() -> None:
    assert devices.__all__ == sorted(devices.__all__)
    assert all(hasattr(devices, name) for name in devices.__all__)


@pytest.mark.parametrize("path", PROFILES, ids=[path.name for path in PROFILES])
def test_every_profile_loads(path: Path) -> None:
    assert path.suffix == ".toml", "only profiles lie there"
    profile = load_profiles()[path.stem]
    assert profile == parse_profile(path.stem, path.read_text("utf-8"))
    assert profile.name == path.stem and profile.description and profile.threads >= 1


def test_defaults_of_a_profile() -> None:
    assert parse_profile("x", 'transport = "host"') == DeviceProfile("x", "host", "", 1)
    assert parse_profile("x", 'transport = "adb"\nthreads = 4').threads == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not say its transport"),
        ("threads = 1", "does not say its transport"),
        ("transport = 1", "does not say its transport"),
        ('transport = "host"\nthread = 1', r"unknown keys \['thread'\].*threads"),
        ('transport = "host"\nname = "y"', r"unknown keys \['name'\]"),
        ('transport = "host"\n[more]\nb = 1', r"unknown keys \['more'\]"),
        ('transport = "host"\nthreads = "1"', "threads = '1' is not int"),
        ('transport = "host"\nthreads = 1.0', "threads = 1.0 is not int"),
        ('transport = "host"\nthreads = true', "threads = True is not int"),
        ('transport = "host"\ndescription = 3', "description = 3 is not str"),
        ('transport = "adb"\nmatch = 1', "match = 1 is not dict"),
        ('transport = "adb"\n[match]\n"ro.x" = 1', "match 'ro.x' = 1 is no pattern"),
        ('transport = "adb"\n[match]\n"ro.x" = []', "is no pattern"),
        ('transport = "adb"\n[match]\n"ro.x" = ["a", 1]', "is no pattern"),
        ('transport = "adb"\n[match]\n"ro.x" = ""', "is no pattern"),
        ('transport = "host', "is not TOML"),
        ('transport = "a"\ntransport = "b"', "is not TOML"),
    ],
)
def test_profile_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(DeviceError, match=said) as told:
        parse_profile("pixel", text)
    assert "pixel.toml" in str(told.value)


def test_unknown_key_does_not_offer_what_it_refuses() -> None:
    with pytest.raises(DeviceError) as told:
        parse_profile("x", 'transport = "host"\nname = "y"')
    assert told.value.try_ == "one of ['description', 'match', 'threads', 'transport']"


def test_a_profile_fits_by_every_property() -> None:
    profile = parse_profile("x", 'transport = "adb"\n[match]\n"a" = "Pix*"\n"b" = ["one", "t?o"]')
    assert profile.match == {"a": ("Pix*",), "b": ("one", "t?o")}
    assert profile.fits({"a": "PIXEL 6", "b": "two", "c": "x"})
    for properties in ({"a": "Pixel"}, {"a": "Nexus", "b": "one"}, {"a": "Pixel", "b": "three"}, {}):
        assert not profile.fits(properties)
    assert not parse_profile("x", 'transport = "adb"').fits({})


@pytest.mark.parametrize(
    ("maker", "model", "hardware", "kinds"),
    [
        ("Google", "Pixel 9", "tokay", {"pixel", "arm64"}),
        ("google", "Pixel 2", "walleye", {"pixel", "arm64"}),
        ("samsung", "SM-S911B", "qcom", {"arm64"}),
        ("Google", "sdk_gphone64_arm64", "ranchu", {"arm64", "emulator"}),
    ],
)
def test_the_profiles_and_the_phones_they_mean(maker: str, model: str, hardware: str, kinds: set[str]) -> None:
    properties = {
        "ro.product.manufacturer": maker,
        "ro.product.model": model,
        "ro.hardware": hardware,
        "ro.product.cpu.abi": "arm64-v8a",
    }
    assert {name for name, profile in load_profiles().items() if profile.fits(properties)} == kinds
