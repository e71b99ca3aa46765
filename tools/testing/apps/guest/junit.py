"""Results of CPython's tests, out of the JUnit XML that `python3 -m test` writes: NAME <tab> RESULT."""

import sys
import xml.etree.ElementTree as tree

for case in tree.parse(sys.argv[1]).iter("testcase"):
    result = "ok"
    for child in case:
        words = " ".join((child.get("message") or child.text or "").split())[:300]
        if child.tag in ("failure", "error"):
            result = f"failed: {words}"
        elif child.tag == "skipped":
            result = f"skipped: {words}"
    print(case.get("name"), result, sep="\t")
