"""The options of the command line: each once, in groups that commands take as a whole."""
