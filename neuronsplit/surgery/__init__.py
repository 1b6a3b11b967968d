"""Splits of neurons in networks of your own, built from torch.nn.Module."""
