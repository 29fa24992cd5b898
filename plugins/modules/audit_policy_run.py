# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0

DOCUMENTATION = r"""
module: audit_policy_run
short_description: Open and decide a roll-out of the audit policy on the controller
version_added: 0.1.0
description:
  - Part of the role C(exectrail.audit.audit_policy). O(stage=begin) checks the whole request before
    any master is touched. O(stage=plan) decides from what M(exectrail.audit.apiserver_pod) has read
    what is to change on each master, and refuses if any master could not take it.
  - Runs on the controller whatever the host is; use it with C(run_once).
extends_documentation_fragment: exectrail.audit.controller
options:
  stage:
    description: What to do.
    type: str
    choices: [begin, plan]
    required: true
  run_dir:
    description: Folder on the controller; created with mode 0700 if missing.
    type: path
    required: true
  settings:
    description: The role's variables. For O(stage=begin).
    type: dict
author:
  - The Exectrail authors (@exectrail)
"""

EXAMPLES = r"""
- name: Decide what each master needs
  exectrail.audit.audit_policy_run:
    stage: plan
    run_dir: reports/audit-policy
  run_once: true
"""

RETURN = r"""
changes:
  description: The masters that are to be changed.
  type: list
  elements: str
  returned: for stage plan
notes:
  description: What the user should know, drift among it.
  type: list
  elements: str
  returned: for stage plan
"""
