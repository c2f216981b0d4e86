"""Network in, model file out: one class a format. Importing this package loads neither torch nor a converter."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.export.base import Exporter
from pipeline.export.check import FileInfo, check_file
from pipeline.export.onnx import OnnxExporter
from pipeline.export.tflite import TfliteExporter

__all__ = ["EXPORTERS", "Exporter", "FileInfo", "check_file"]

EXPORTERS: Mapping[str, type[Exporter]] = MappingProxyType({"onnx": OnnxExporter, "tflite": TfliteExporter})
