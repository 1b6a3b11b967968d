"""The maths of a split, and the networks and optimisers that it applies to."""
