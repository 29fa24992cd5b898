# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0

DOCUMENTATION = r"""
module: compliance_run
short_description: Open and close a compliance run on the controller
version_added: 0.1.0
description:
  - C(stage=begin) checks the whole request (profile, waivers, report folder) before any node is
    touched. C(stage=finish) judges the evidence that M(exectrail.audit.node_evidence) has left in
    the folder, prints the report and writes C(report.json), C(report.html) and C(junit.xml).
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
  profile:
    description: C(ack), C(self_managed), C(installed) or the path of a requirement file. For
      C(stage=begin).
    type: str
  waivers:
    description: Path of a waiver file, empty for none. For C(stage=begin).
    type: str
  strict:
    description: Whether warnings fail the run too. For C(stage=begin).
    type: bool
    default: false
  installation:
    description: Whether the nodes' installation is judged, which needs to know all their names and
      addresses. For C(stage=begin).
    type: bool
    default: false
  run_id:
    description: An identifier for the run; made up if not given. For C(stage=begin).
    type: str
author:
  - The Exectrail authors (@exectrail)
"""

EXAMPLES = r"""
- name: Judge the evidence and write the reports
  exectrail.audit.compliance_run:
    stage: finish
    report_dir: reports/preflight
  run_once: true
"""

RETURN = r"""
hosts:
  description: How many hosts the run has, for C(stage=begin).
  type: int
  returned: success
verdict:
  description: C(fit), C(warnings), C(unfit) or C(unknown), for C(stage=finish).
  type: str
  returned: success
exit_code:
  description: The exit code of C(exectrail preflight) for this verdict.
  type: int
  returned: success
unfit:
  description: Hosts that are not fit by their verdict, and which report says why; empty if all are.
  type: str
  returned: success
blocked:
  description: For each host that a failing blocker stops, the ids of those requirements; C(reached)
    for a host that could not be read. For C(stage=finish).
  type: dict
  returned: success
files:
  description: The report files by kind.
  type: dict
  returned: success
"""
