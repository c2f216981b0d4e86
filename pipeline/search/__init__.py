"""Which change to make. A latency is only ever a table's answer: nothing here asks a device."""

from __future__ import annotations

from pipeline.search.rank_search import Price, Ranked, RankSearch
from pipeline.search.rank_trials import Trial

__all__ = ["Price", "RankSearch", "Ranked", "Trial"]
