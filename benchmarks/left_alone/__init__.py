"""Small trainings that must not notice ReVACNN; see ``python -m benchmarks.left_alone --help``."""
