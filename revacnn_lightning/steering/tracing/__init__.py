"""Finds the channels that must be edited together, from real forwards under a dispatch mode."""
