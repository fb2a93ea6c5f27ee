"""The exceptions of this package; each also derives from a built-in exception."""


class CGAdvError(Exception):
    """Base of every exception that this package raises on purpose."""


class InputError(CGAdvError, ValueError):
    """An argument, a setting or a file has a value or content that cannot be used."""


class ExplosionError(CGAdvError, RuntimeError):
    """A simulation or a rollout produced coordinates or velocities that are not finite."""


class DivergedError(CGAdvError, RuntimeError):
    """An optimization left the range in which its parameters are meaningful."""


class OutOfMemoryError(CGAdvError, MemoryError):
    """An allocation in RAM or in a GPU's memory failed."""


class LockedError(CGAdvError, RuntimeError):
    """Another process, or another reader in this one, uses the file or directory."""
