"""Performs an `EditPlan` on a model and its optimizers, and verifies the result."""
