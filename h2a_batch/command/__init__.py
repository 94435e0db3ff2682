"""The commands: words to options, and results to lines; all work is done below."""
