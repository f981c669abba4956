"""Worked examples of a third party's connector; not part of the wheel."""
