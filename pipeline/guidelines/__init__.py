"""ShuffleNetV2's practical guidelines G1 to G4, checked on a network before anything of it is measured.

G1  Equal channels in and out minimise memory access.        `pointwise`, equation 1, Table 1
G2  Group convolution increases memory access.               `pointwise`, equation 2, Table 2
G3  Fragmentation reduces the degree of parallelism.         `fragments`, Table 3
G4  Element-wise operations are not negligible.              `elementwise`, Table 4

Reference: Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
section 2. The paper states the guidelines and no limits: those here are each module's own, with their reasons.
"""

from __future__ import annotations

from pipeline.guidelines.bounds import memory_access_bound, pointwise_memory_access
from pipeline.guidelines.check import check, check_file
from pipeline.guidelines.finding import RULES, Finding

__all__ = ["RULES", "Finding", "check", "check_file", "memory_access_bound", "pointwise_memory_access"]
