#!/usr/bin/env bash
# Boots a fresh virtual machine of the lab, installs Exectrail on it, proves that it works, and ends the
# machine. Ends with the exit code of the step that failed; the reports are in reports/.
#
#   .github/verify-vm.sh [--image debian13] [--fault FAULT]…     options of: python -m lab vm up
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
machine=verify-$$
inventory=reports/verify-vm.yml

python -m lab vm up "$machine" "$@"
trap 'python -m lab vm down "$machine"' EXIT
mkdir -p -m 0700 reports
python -m lab vm inventory "$machine" > "$inventory"

# Without Kubernetes there are no masters; everybody is a node.
ansible-playbook playbooks/site.yml -i "$inventory" \
  -e install_masters_group= -e install_workers_group=all
pytest checks/ --inventory "$inventory" --report-dir reports/verify
