"""Blanks as people write them into a text: the names of the task tokens, which no text is ever encoded as."""

MASK = "[MASK]"
"""Something short is missing here."""
GMASK = "[gMASK]"
"""At the end of a text: it goes on here."""
