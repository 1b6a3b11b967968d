"""The data sets that networks learn."""
