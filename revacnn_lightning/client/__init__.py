"""A run, seen from a script, a notebook, the viewer or an agent. Imports neither torch nor Bokeh."""
