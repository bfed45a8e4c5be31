"""Laws that must hold on CUDA, each a plain function of a Context that returns a Finding or raises
Broken.
"""

from scripts.check_gpu.laws import gradients, numerics, pipeline, runs

CHECKS = (*gradients.CHECKS, *numerics.CHECKS, *runs.CHECKS, *pipeline.CHECKS)
"""The core of all laws comes first where the command runs them (plan.Check.core)."""
