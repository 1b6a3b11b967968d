"""What the networks learn."""
