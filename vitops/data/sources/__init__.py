"""Where samples come from. A reader lists its items sorted by path; bytes are read one sample at a time."""
