"""The command line, the stages of an experiment and its directory."""
