"""Debian packages: resolved by apt, checked, unpacked to the base's root file system."""
