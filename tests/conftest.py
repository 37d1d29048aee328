"""Property tests: the same examples for everybody in continuous integration, fresh ones wherever a person works.

Rule: no deadline for one example, for a busy machine is not a broken program.

The header of a run says which release this version is held against.
"""

import os

from hypothesis import settings

from tests import release

settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("person", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "person")


def pytest_report_header() -> str:
    return f"compatibility: {release.about()}"
