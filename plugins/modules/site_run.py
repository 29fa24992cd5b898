# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0

DOCUMENTATION = r"""
module: site_run
short_description: Check, note and sum up on the controller what a run does to a fleet
version_added: 0.1.0
description:
  - Part of the role C(exectrail.audit.install). O(stage=begin) checks the whole request before any
    node is touched, O(stage=gate) stops where preflight has found a blocker, O(stage=plan) cuts
    the nodes that need a change into waves, O(stage=note) and O(stage=policy) write down what has
    become of a step, O(stage=finish) prints the summary, writes C(summary.json), and fails if
    anything has.
  - Runs on the controller whatever the host is.
extends_documentation_fragment: exectrail.audit.controller
options:
  stage:
    description: Which part of the run.
    type: str
    choices: [groups, begin, gate, plan, wave, note, policy, upgradable, held, finish]
    required: true
  directory:
    description: Folder on the controller; created with mode 0700 if missing.
    type: path
  mode:
    description: Which playbook it is. For O(stage=begin).
    type: str
    choices: [site, install, upgrade, uninstall]
  masters:
    description: Name of the group of masters. For O(stage=groups) and O(stage=begin).
    type: str
  workers:
    description: Name of the group of other nodes, likewise.
    type: str
  waves:
    description: Sizes of the waves. For O(stage=begin).
    type: list
    elements: str
  max_fail_percentage:
    description: Share of nodes that may fail. For O(stage=begin).
    type: int
  confirm:
    description: V(yes) to delete it. For O(stage=held).
    type: str
  run_id:
    description: An identifier for the run; made up if empty. For O(stage=begin).
    type: str
  reports:
    description: Folders of the parts' reports. For O(stage=begin).
    type: dict
  blocked:
    description: Checks that stop a node, by node. For O(stage=gate).
    type: dict
  wave:
    description: The number and hosts of the wave. For O(stage=wave).
    type: dict
  step:
    description: Which step has ended. For O(stage=note).
    type: str
    choices: [agent, policy]
  outcome:
    description: How. For O(stage=note).
    type: str
    choices: [planned, done]
  failed:
    description: The result that says why it has failed, in place of O(outcome).
    type: dict
  policy_directory:
    description: Folder of the audit policy's run. For O(stage=policy) and O(stage=upgradable).
    type: path
  problem:
    description: Why it has failed. For O(stage=policy).
    type: str
author:
  - The Exectrail authors (@exectrail)
"""

EXAMPLES = r"""
- name: Sum up
  exectrail.audit.site_run:
    stage: finish
    directory: reports/site
  run_once: true
"""

RETURN = r"""
waves:
  description: Number and hosts of each wave, for O(stage=plan).
  returned: success
  type: list
  elements: dict
go:
  description: Whether the wave may begin, for O(stage=wave).
  returned: success
  type: bool
exit_code:
  description: The exit code of the command for this outcome, for O(stage=finish).
  returned: success
  type: int
"""
