"""What a guideline says of one place in a network."""

from __future__ import annotations

from dataclasses import dataclass

RULES = {
    "g1": "equal channels in and out minimise memory access",
    "g2": "groups increase memory access",
    "g3": "fragments reduce parallelism",
    "g4": "element-wise operations are not negligible",
}


@dataclass(frozen=True)
class Finding:
    """One place that does not follow a guideline.

    Args:
        rule: one of `RULES`.
        where: the layer or the block in the torch module, as in "features.3.conv.0.0".
        measured, bound: of `quantity`, the same unit in both; what the place has, and what it need not exceed.
        suggestion: the rewrite that would follow the guideline; of G1 to G3 with at least as many multiply-accumulates as
            before, channels being rounded up.
        saving_ms: how much less time the rewritten kernels take in the table; negative where they take more. None without a
            table and where it does not know all of them: then `note` says which.
        quantity: what was measured.
        note: why there is no saving, or what it leaves out.
        time_share: G4 with a table: the share of the unit's time that its element-wise and depthwise kernels take.
    """

    rule: str
    where: str
    measured: float
    bound: float
    suggestion: str
    saving_ms: float | None = None
    quantity: str = ""
    note: str = ""
    time_share: float | None = None

    @property
    def excess(self) -> float:
        """measured / bound: above 1."""
        return self.measured / self.bound
