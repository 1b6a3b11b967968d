"""Networks that the coverage of `split_neuron` is measured on.

Each is a function without arguments that returns a network and its example inputs. Weights and inputs are random, by
torch's own generator, so that another seed gives other inputs of the same kind.
"""
