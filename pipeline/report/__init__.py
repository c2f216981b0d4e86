"""What a run found, for people: one self-contained HTML page, and a table in the terminal."""

from pipeline.report.page import render
from pipeline.report.terminal import terminal

__all__ = ["render", "terminal"]
