"""DeviceProfile: what the project knows of a kind of device before it meets one. One TOML file each in `profiles/`."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from importlib import resources

from devices.errors import DeviceError


@dataclass(frozen=True)
class DeviceProfile:
    """Args: transport: how it is reached ("host"); threads: what to measure with unless asked."""

    name: str
    transport: str
    description: str = ""
    threads: int = 1


def load_profiles() -> dict[str, DeviceProfile]:
    """All of `profiles/*.toml` by name.

    Raises: DeviceError: a file has an unknown key, misses one or holds a value of the wrong type.
    """
    profiles = {}
    for file in sorted(resources.files("devices").joinpath("profiles").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            profile = parse_profile(file.name.removesuffix(".toml"), file.read_text("utf-8"))
            profiles[profile.name] = profile
    return profiles


def parse_profile(name: str, text: str) -> DeviceProfile:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DeviceError(f"device profile {name}.toml is not TOML: {error}") from error
    fields = {field.name for field in dataclasses.fields(DeviceProfile)} - {"name"}
    unknown = sorted(set(values) - fields)
    if unknown:
        raise DeviceError(f"device profile {name}.toml has unknown keys {unknown}", try_=f"one of {sorted(fields)}")
    if not isinstance(values.get("transport"), str):
        raise DeviceError(f"device profile {name}.toml does not say its transport", try_='transport = "host"')
    for key, value in values.items():
        wanted = int if key == "threads" else str
        if type(value) is not wanted:
            raise DeviceError(f"device profile {name}.toml: {key} = {value!r} is not {wanted.__name__}")
    return DeviceProfile(name=name, **values)
