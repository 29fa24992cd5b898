"""Print the files in which a test has failed: ``failed.py REPORT``, of pytest's family xunit1."""

import sys
from xml.etree import ElementTree as ET

cases = ET.parse(sys.argv[1]).iter("testcase")  # noqa: S314 - written by us just now
bad = {one.get("file") for one in cases if {each.tag for each in one} & {"failure", "error"}}
print(*sorted(str(file) for file in bad))  # noqa: T201
