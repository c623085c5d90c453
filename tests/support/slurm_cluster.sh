#!/usr/bin/env bash
# A Slurm of two nodes of one CPU, and one of two, on this machine, for tests: no systemd, no cgroups, no database.
#
#   tests/support/slurm_cluster.sh up DIR      then: export SLURM_CONF=DIR/slurm.conf
#   tests/support/slurm_cluster.sh down DIR
#
# `up` installs Slurm where it is missing and this user may (root, apt). It exits 77 with a sentence
# on stderr where there can be no Slurm here. Ports follow from EQUIVBENCH_SLURM_PORT (16817).
set -euo pipefail
act=$1
dir=$(realpath -m "$2")

stop() {
  local file
  for file in "$dir"/run/slurmd.n{1,2,3}.pid "$dir"/run/slurmctld.pid "$dir"/run/munged.pid; do
    if [ -s "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

if [ "$act" = down ]; then
  stop
  exit 0
fi

skip() {
  echo "no Slurm for tests: $1" >&2
  exit 77
}

[ "$(id -u)" = 0 ] || skip "its daemons are started by root, and this is another user"
if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null || ! command -v munged >/dev/null; then
  command -v apt-get >/dev/null || skip "slurm-wlm and munge are not installed, and there is no apt-get"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge; } \
    >/dev/null 2>&1 || skip "slurm-wlm and munge are not installed, and apt-get could not install them"
fi

port=${EQUIVBENCH_SLURM_PORT:-16817}
host=$(hostname -s)
memory=$(awk '/MemTotal/{print int($2 / 1024 * 0.8)}' /proc/meminfo)
mkdir -p "$dir"/{ctld,n1,n2,n3,log,run}
chmod 755 "$dir"
head -c 1024 /dev/urandom >"$dir/munge.key"
chmod 400 "$dir/munge.key"
cat >"$dir/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.sock
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/ctld
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=10
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 4))-$((port + 5))] CPUs=1 RealMemory=$((memory / 2)) State=UNKNOWN
NodeName=n3 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 6)) CPUs=2 RealMemory=$((memory / 2)) State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=wide Nodes=n3 MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=OFF
CONF
export SLURM_CONF="$dir/slurm.conf"
trap 'stop' ERR
munged --force --key-file="$dir/munge.key" --socket="$dir/run/munge.sock" \
  --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" \
  --seed-file="$dir/run/munged.seed" 2>/dev/null
slurmctld
for node in n1 n2 n3; do slurmd -N "$node"; done
for _ in $(seq 80); do
  if [ "$(sinfo -h -N -p main,wide -t idle -o %N 2>/dev/null | wc -l)" = 3 ]; then exit 0; fi
  sleep 0.25
done
tail -n 5 "$dir"/log/*.log >&2
stop
skip "its three nodes did not come up in 20 s"
