"""What a run wrote, made ready to be looked at: terminal and page paint the same spans of styled text."""
