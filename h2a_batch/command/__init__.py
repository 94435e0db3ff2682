"""The commands: words to options, results to lines. All work is done in the rooms below."""
