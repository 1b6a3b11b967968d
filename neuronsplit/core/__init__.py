"""The maths of a split and of the networks that are split."""
