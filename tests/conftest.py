"""What all tests share."""

from hypothesis import settings

# A machine may be busy; what must be quick has a test of its own.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
