"""Recordings of runs: MCAP files that hold the messages of a run. No torch."""
