"""The history of a run, thinned to a bounded size: kept by the callback and by each viewer."""
