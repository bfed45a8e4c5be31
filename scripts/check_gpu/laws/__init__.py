"""Laws that must hold on CUDA: functions that return a Finding or raise Broken."""

from scripts.check_gpu.laws import gradients, numerics, pipeline, runs

CHECKS = (*gradients.CHECKS, *numerics.CHECKS, *runs.CHECKS, *pipeline.CHECKS)
"""The core of all laws comes first where the command runs them (plan.Check.core)."""
