#!/usr/bin/env bash
# Ray for the tests of the executor `ray`, in the environment whose python is named: it is installed
# there where CI asks for it. Exits 77 with a sentence on stderr where there is none.
set -euo pipefail
python=$1
if "$python" -c 'import ray' 2>/dev/null; then exit 0; fi
if [ -z "${CI:-}" ]; then
  echo "no Ray for tests: it is not installed (pip install 'equivbench[ray]'), and only CI installs it by itself" >&2
  exit 77
fi
"$python" -m pip install -q 'ray>=2.50' >/dev/null 2>&1 || {
  echo "no Ray for tests: pip could not install it" >&2
  exit 77
}
