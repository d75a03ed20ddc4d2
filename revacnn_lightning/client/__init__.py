"""A run, seen from a script, a notebook, the viewer or an agent. No torch, no Bokeh."""
