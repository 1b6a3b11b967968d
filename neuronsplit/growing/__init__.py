"""Which neuron is split, how and when, and the training around it."""
