#!/usr/bin/env bash
# What action.yml runs, and what another CI system can call: REFLLM_ARGUMENTS="my_kernels.py --dtype float32" verify.sh
# Ends with the status of `refllm verify`; the reports are written whatever it is, unless nothing could be run.
set -euo pipefail
python=${REFLLM_PYTHON:-python}
: "${REFLLM_ARGUMENTS:?say what follows \`refllm verify\`, as REFLLM_ARGUMENTS=my_kernels.py}"

"$python" -c "import refllm" 2>/dev/null || "$python" -m pip install --quiet "$(dirname "$0")/../.."

words=()
while IFS= read -r -d "" word; do words+=("$word"); done < <(
    "$python" -c 'import os, shlex, sys
sys.stdout.write("".join(f"{word}\0" for word in shlex.split(os.environ["REFLLM_ARGUMENTS"])))'
)

status=0
"$python" -m refllm verify "${words[@]}" --junit "${REFLLM_JUNIT:-refllm.xml}" --html "${REFLLM_HTML:-refllm.html}" ||
    status=$?
[ -z "${GITHUB_OUTPUT:-}" ] || echo "status=$status" >>"$GITHUB_OUTPUT"
exit "$status"
