"""A report printed: on the console, as JUnit, as one HTML page, as JSON."""
