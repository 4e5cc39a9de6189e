"""The command line: absl mains that turn flags into dataclasses and make one call."""
