"""Checks that end in every way a check can end, for the tests of the supervisor."""

import os
import signal
import time

from scripts.check_gpu.plan import Broken, Check, Context, Finding, NotHere


def good(_context: Context) -> Finding:
    return Finding("fine", {"latency_ms": 1.5})


def broken(_context: Context) -> Finding:
    raise Broken("found 2, expected 1")


def not_here(_context: Context) -> Finding:
    raise NotHere("needs CUDA")


def mistaken(_context: Context) -> Finding:
    raise KeyError("absent")


def killed(_context: Context) -> Finding:
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(_context: Context) -> Finding:
    time.sleep(600)


CHECKS = (
    Check("laws", "broken", broken),
    Check("laws", "not here", not_here),
    Check("laws", "mistaken", mistaken),
    Check("laws", "killed", killed),
    Check("laws", "good", good),
    Check("laws", "hangs", hangs, limit_s=0.5),
    Check("laws", "alone", good, alone=True),
)


def find(key: str) -> Check:
    return next(check for check in CHECKS if check.key == key)
