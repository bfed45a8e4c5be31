"""Types of arguments."""

import argparse

import pytest

from utils.options.parser import non_negative_int, positive_float, positive_int, probability


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (positive_int, "1e3", "expected a whole number such as 1000, found 1e3"),
        (positive_int, "0", "expected at least 1, found 0"),
        (non_negative_int, "-1", "expected at least 0, found -1"),
        (non_negative_int, str(2**63), "expected less than 2\\^63"),
        (positive_float, "0,01", "expected a number such as 0.01, found 0,01"),
        (probability, "half", "expected a number such as 0.01, found half"),
    ],
)
def test_what_is_no_value_is_named(kind, text, message):
    """What was found and what was expected; torch takes integers of 64 bits."""
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        kind(text)
    assert kind("1") == 1
