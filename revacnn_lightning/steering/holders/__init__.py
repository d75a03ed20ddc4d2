"""Finds what else holds the model: optimizers, copies of modules, and copies of single tensors."""
