#!/usr/bin/env bash
# A real Slurm on this machine, for tests: its controller, one node and munge, all in one folder.
#   tests/support/slurm.sh start DIR   writes DIR/slurm.conf, starts everything, waits until the node is idle
#   tests/support/slurm.sh stop DIR    ends it all
# Installs nothing: Debian's packages are slurmctld, slurmd, slurm-client and munge. Runs as the one
# who calls it, and needs no system service. DIR must be short: it holds munge's socket.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
action=${1:?start or stop}
dir=$(realpath -m "${2:?a folder}")
export SLURM_CONF=$dir/slurm.conf

need() {
    for program in munged slurmctld slurmd sbatch srun scontrol; do
        command -v "$program" >/dev/null || { echo "no $program: install slurmctld slurmd slurm-client munge" >&2; exit 3; }
    done
}

configure() {
    local user host
    user=$(id -un)
    host=$(hostname -s)
    cat >"$SLURM_CONF" <<CONF
ClusterName=eqprop
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=10
MinJobAge=600
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=low Nodes=$host MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
CONF
    echo 'ConstrainCores=no' >"$dir/cgroup.conf"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
    need
    mkdir -p "$dir/state" "$dir/spool"
    chmod 755 "$dir"
    configure
    (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" --num-threads=2 2>>"$dir/munged.err"
    slurmctld -c -i
    slurmd -c -N "$(hostname -s)"
    for _ in $(seq 150); do
        [ "$(sinfo --noheader --format=%T --partition=main 2>/dev/null)" = idle ] && exit 0
        sleep 0.2
    done
    echo "the node does not become idle: $(tail -n 3 "$dir/slurmctld.log" "$dir/slurmd.log" 2>&1 | tr '\n' ' ')" >&2
    stop
    exit 4
}

stop() {
    scancel --user="$(id -un)" 2>/dev/null || true
    for name in slurmd slurmctld munged; do
        [ -s "$dir/$name.pid" ] || continue
        pid=$(cat "$dir/$name.pid")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    done
}

case $action in
    start) start ;;
    stop) stop ;;
    *) echo "start or stop, not $action" >&2; exit 2 ;;
esac
