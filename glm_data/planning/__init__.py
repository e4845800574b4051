"""Before anything runs: inputs looked at by their beginnings, what a recipe would take, a recipe written for a folder.

Everything here is an estimate from a sample and says so. Nothing is written but what a caller writes.
"""

from glm_data.planning.estimate import Estimate, StageCost, estimate
from glm_data.planning.sample import Look, Part, look_at
from glm_data.planning.scaffold import write_recipe

__all__ = ["Estimate", "Look", "Part", "StageCost", "estimate", "look_at", "write_recipe"]
