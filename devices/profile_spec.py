"""DeviceProfile: what the project knows of a kind of device before it meets one. One TOML file each in `profiles/`."""

from __future__ import annotations

import dataclasses
import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from devices.errors import DeviceError


@dataclass(frozen=True)
class DeviceProfile:
    """Args: transport: how it is reached ("host", "adb"); threads: what to measure with unless asked; match: the phone's
    property -> shell patterns (`Pixel *`), one of which its value must fit, for every property; case does not count."""

    name: str
    transport: str
    description: str = ""
    threads: int = 1
    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fits(self, properties: Mapping[str, str]) -> bool:
        """Whether a phone with these properties is of this kind. A profile that names none fits none."""
        return bool(self.match) and all(
            any(fnmatch.fnmatchcase(properties.get(key, "").lower(), pattern.lower()) for pattern in patterns)
            for key, patterns in self.match.items()
        )


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
        wanted = {"threads": int, "match": dict}.get(key, str)
        if type(value) is not wanted:
            raise DeviceError(f"device profile {name}.toml: {key} = {value!r} is not {wanted.__name__}")
    return DeviceProfile(name=name, **{**values, "match": _parse_match(name, values.get("match", {}))})


def _parse_match(name: str, table: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Each value is a pattern or a list of them."""
    match = {}
    for key, value in table.items():
        patterns = [value] if isinstance(value, str) else value
        if not isinstance(patterns, list) or not patterns or not all(type(one) is str and one for one in patterns):
            raise DeviceError(
                f"device profile {name}.toml: match {key!r} = {value!r} is no pattern", try_='"ro.x.y" = ["a*", "b"]'
            )
        match[key] = tuple(patterns)
    return match
