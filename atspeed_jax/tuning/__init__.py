"""The fastest way to decode on a device: settings that are expected to be fast, timed."""
