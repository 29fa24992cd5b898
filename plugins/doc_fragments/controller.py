# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""What is said alike of every action that opens, decides or closes a run on the controller."""


class ModuleDocFragment:
    """Its attributes."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: The same in check mode; only the folder of the run is written.
    support: full
  diff_mode:
    description: Nothing on a node changes.
    support: none
  platform:
    description: The controller.
    platforms: posix
    support: full
"""
