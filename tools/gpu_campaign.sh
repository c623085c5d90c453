#!/usr/bin/env bash
# What a GPU is for, in two calls: `tools/gpu_campaign.sh A` (under 3 minutes) says whether everything runs there, `B` (under 9)
# measures. Options: `--device cpu` rehearses either by the same steps, `--only REGEX` takes those of that name, `--seconds N` sets
# another limit, `--times N` gives it and every step N times as long (a CPU is slower). Into $OUT (gpu-out if unset) go log.txt, a
# line a step, and A.tar.gz or B.tar.gz, renewed after each step: what every step printed, records, kernel samples. Ends with 1 if
# a step failed. Its packages come from tools/gpu_pack.sh, where there is no registry.
set -uo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
part=${1:-} device=cuda only='.*' limit= times=1
shift || usage
while [ $# -gt 0 ]; do
  case $1 in --device) device=${2:-} ;; --only) only=${2:-} ;; --seconds) limit=${2:-} ;; --times) times=${2:-} ;; *) usage ;; esac
  shift 2 || usage
done
case $part in A) limit=${limit:-$((175 * times))} ;; B) limit=${limit:-$((530 * times))} ;; *) usage ;; esac

out=${OUT:-gpu-out}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/$part"
: >"$out/log.txt"
failed=0 skipped=0

say() { printf '%4ds  %s\n' "$SECONDS" "$*" | tee -a "$out/log.txt"; }

# What was found so far; whole or as before, since the call may be ended at any moment.
keep() { tar -C "$work" -czf "$work/kept.tar.gz" "$part" && mv "$work/kept.tar.gz" "$out/$part.tar.gz"; }

# step NAME SECONDS COMMAND...: no longer than that, nor than the call has left. A failure is noted and the next step follows.
step() {
  local name=$1 most=$(($2 * times)) began=$SECONDS code=0
  local rest=$((limit - SECONDS - 3))
  shift 2
  if ! [[ $name =~ ^($only)$ ]]; then return 0; fi
  if ((rest < 5)); then say "$name: no time left"; skipped=$((skipped + 1)); return 1; fi
  if ((most > rest)); then most=$rest; fi
  timeout -k 5 "$most" "$@" >"$work/$part/$name.txt" 2>&1 </dev/null || code=$?
  if ((code)); then
    failed=1
    if ((code == 124 || code == 137)); then say "$name: ended after its $most s"; else say "$name: exit $code in $((SECONDS - began)) s"; fi
    tail -n 15 "$work/$part/$name.txt" | cut -c1-300
  else
    say "$name: done in $((SECONDS - began)) s"
  fi
  keep
  return "$code"
}

export EQUIVBENCH_CACHE="$work/cache" PYTHONUNBUFFERED=1 OEQ_JIT_EXTENSION=1 EQUIVBENCH_TEST_DEVICE=$device
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8} COLUMNS=160
results=$work/$part/results
say "part $part on $device, at most $limit s"
only_asked=$only only='.*'
step site 30 python3 tools/gpu_site.py "$work/site"
only=$only_asked
export PYTHONPATH="$work/site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
command=(python3 -m equivbench)

machine() {
  step machine 30 bash -c 'nvidia-smi -q -d CLOCK,POWER,COMPUTE,MEMORY,ECC 2>&1 | head -150; nvidia-smi; nproc; free -g
    python3 -m pip list 2>/dev/null; python3 -m equivbench doctor'
}

# The tests of a GPU: in each file the most valuable come first, what compiles last, and what was said is kept when time is up.
tests() {
  local name=$1 most=$2
  shift 2
  step "$name" "$most" python3 -m pytest -c tools/gpu_pytest.ini --rootdir . -v -rfE --tb=short -p no:cacheprovider \
    --junitxml "$work/$part/$name.xml" "$@"
}

part_a() {
  machine
  step run 45 "${command[@]}" run forcefield/vector --preset dev --budget 3s --rungs 1 --device "$device" --out "$results" --quiet
  step validate 15 "${command[@]}" results validate "$results"
  tests kernels 60 tests/kernels/test_kernels_on_cuda.py tests/kernels/test_triton_kernels.py -m cuda -k 'not e3nn-compiled'
  tests training 100 tests/training/test_training_on_cuda.py -m cuda
  tests others 30 tests/kernels/test_backend_openequivariance.py tests/kernels/test_backend_flashcart.py tests/tasks/voxel/test_voxelise.py -m cuda
}

part_b() {
  local pair
  machine
  # Both sizes of what networks spend their time in, on everything that is there but does not compile for long.
  step kernels 190 python3 tools/gpu_kernels.py "$device" "$results" convolution-c32-l2 convolution-c128-l2-ls3 convolution-mace-128 harmonics-l3 linear-c64-l2 \
    edge-product-c64-l2 symmetric-contraction-c32-l2 so2-message-c128-l3
  step paper 110 python3 tools/gpu_paper.py "$device" "$work/$part/paper.jsonl"
  for pair in forcefield/vector flow/frames voxel/octahedral forcefield/tensor-product forcefield/tied-head flow/vector-head voxel/steerable; do
    # Two arms of 20 s, what is measured off their budgets, and time for what follows.
    if ((limit - SECONDS < 110)) && [ "$device" = cuda ]; then say "$pair: no time left"; skipped=$((skipped + 1)); continue; fi
    step "run-${pair/\//-}" 100 "${command[@]}" run "$pair" --preset small --budget 20s --rungs 2 --device "$device" --out "$results" --quiet
  done
  step validate 20 "${command[@]}" results validate "$results"
  step gap 20 "${command[@]}" gap "$results"
  step board 20 "${command[@]}" leaderboard export --results "$results" --format md --out "$work/$part/board.md"
}

if [ "$part" = A ]; then part_a; else part_b; fi
say "end: $([ $failed = 0 ] && echo "nothing failed" || echo "something failed"), $skipped steps had no time left"
cp "$out/log.txt" "$work/$part/log.txt"
keep
exit "$failed"
