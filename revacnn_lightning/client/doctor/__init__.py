"""``revacnn doctor``: checks what viewing a run needs, and says what is wrong and what to do."""
