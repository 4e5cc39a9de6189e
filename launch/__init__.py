"""The command line: absl mains that turn flags into frozen dataclasses and make one call."""
