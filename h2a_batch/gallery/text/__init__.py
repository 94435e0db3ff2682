"""Text in any script: direction, fonts, typesetting."""
