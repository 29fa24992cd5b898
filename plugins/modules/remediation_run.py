# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0

DOCUMENTATION = r"""
module: remediation_run
short_description: Open and close a run of repairs on the controller
version_added: 0.1.0
description:
  - Part of the role C(exectrail.audit.remediate). C(stage=begin) checks the whole request before
    any node is touched. C(stage=finish) says what M(exectrail.audit.node_repair) has done on each
    node and what is left for somebody to do; it fails if anything is.
  - Runs on the controller whatever the host is; use it with C(run_once).
extends_documentation_fragment: exectrail.audit.controller
options:
  stage:
    description: Which end of the run.
    type: str
    choices: [begin, finish]
    required: true
  report_dir:
    description: Folder on the controller; created with mode 0700 if missing.
    type: path
    required: true
  checks:
    description: What to repair, by check id, as a list or with commas. For C(stage=begin).
    type: raw
  undo:
    description: Whether to put back what earlier repairs have changed. For C(stage=begin).
    type: bool
    default: false
  profile:
    description: C(ack), C(self_managed) or the path of a requirement file. For C(stage=begin).
    type: str
  waivers:
    description: Path of a waiver file, empty for none. For C(stage=begin).
    type: str
  run_id:
    description: An identifier for the run; made up if not given. For C(stage=begin).
    type: str
author:
  - The Exectrail authors (@exectrail)
"""

EXAMPLES = r"""
- name: Say what became of it
  exectrail.audit.remediation_run:
    stage: finish
    report_dir: reports/remediate
  run_once: true
"""

RETURN = r"""
exit_code:
  description: The exit code of C(exectrail remediate), for C(stage=finish).
  type: int
  returned: always
"""
