"""Splits of neurons in networks that were not made for it: any torch.nn.Module."""
