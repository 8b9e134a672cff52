#!/usr/bin/env python3
"""Measures contenders side by side.

For each repetition every contender, in an order that rotates, is brought up, measured and taken down.
Each measurement is one JSON object in a line of the output, written as soon as it is there; so is
`{"failed": REASON}` of a contender that did not come up, and `{"left": [...]}` of one that left
something behind. summarise.py makes the table."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
# The load generator stops by itself after ten seconds.
MOST_SECONDS = 9


def environment():
    """What env.sh sets."""
    text = subprocess.check_output(["bash", "-c", '. "$0"; env -0', HERE / "env.sh"], text=True)
    return dict(line.split("=", 1) for line in text.split("\0") if line.startswith("PF_"))


ENV = environment()
os.environ.update(ENV)
CLIENT, SERVER, GATEWAYS = ENV["PF_CL"], ENV["PF_SV"], (ENV["PF_A"], ENV["PF_B"])
SERVER_IP = ENV["PF_SV_IP"]
LOAD = ENV["PF_BIN"] + "/udpload"


def on(namespace, *command):
    return ["ip", "netns", "exec", namespace, *map(str, command)]


def topology(*verb):
    subprocess.run([HERE / "topo.sh", *verb], check=True)


# ---- contenders


class Failed(Exception):
    """A contender did not come up; says why."""


def contender(name, verb):
    """Runs a verb; gives its status, what it printed and what it complained about. Into files, as what
    it starts may keep its output open."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            status = subprocess.run([HERE / "contenders" / f"{name}.sh", verb], stdout=out, stderr=err, timeout=60).returncode
        except subprocess.TimeoutExpired:
            return 124, "", f"`{verb}` did not end within a minute"
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


def bring_up(name):
    """Brings a contender up and waits until a ping passes; gives its processes as (side, pid)."""
    status, _, complaint = contender(name, "up")
    last = (complaint.strip().splitlines() or [""])[-1]
    if status != 0:
        raise Failed(last or f"`up` ended with {status}")
    deadline = time.monotonic() + 6
    while subprocess.run(on(CLIENT, "ping", "-c1", "-W1", SERVER_IP), stdout=subprocess.DEVNULL).returncode != 0:
        if time.monotonic() > deadline:
            raise Failed("no ping passes" + (f": {last}" if last else ""))
        time.sleep(0.1)
    _, out, _ = contender(name, "pids")
    return [(side, int(pid)) for side, pid in (line.split() for line in out.splitlines())]


def network():
    """What the network of the gateways consists of: what a contender must take away again."""

    def lines(gateway, command):
        return subprocess.run(on(gateway, *command.split()), stdout=subprocess.PIPE, text=True).stdout.splitlines()

    seen = []
    for gateway in GATEWAYS:
        # Without the state of a link, which may just be changing.
        seen += [f"{gateway}: link {line.split()[0]}" for line in lines(gateway, "ip -br link")]
        seen += [f"{gateway}: address {' '.join(line.split()[::2])}" for line in lines(gateway, "ip -br -4 addr")]
        for what in ("ip route show table all", "ip rule", "nft list ruleset"):
            seen += [f"{gateway}: {what}: {line.strip()}" for line in lines(gateway, what)]
    return seen


# ---- what is read beside a test


def cpu_seconds(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / TICKS


def mebibytes(pid, file, field):
    try:
        return int(re.search(field + r":\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text())[1]) / 1024
    except (OSError, TypeError):
        return float("nan")


def peak_rss(pid):
    return mebibytes(pid, "status", "VmHWM")


def proportional_set(pid):
    return mebibytes(pid, "smaps_rollup", "Pss")


def machine_seconds():
    """CPU seconds the machine was busy, and those its host took away."""
    value = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(value) - value[3] - value[4]) / TICKS, value[7] / TICKS


def foreign_seconds(own):
    """CPU seconds of each process that is none of the bench: flags runs on a machine that others use."""
    seconds = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) in own or int(pid) == os.getpid():
            continue
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        name, fields = text[text.index("(") + 1 : text.rindex(")")], text.rsplit(")", 1)[1].split()
        kernel_thread = fields[1] in ("0", "2")
        if name not in ("iperf3", "ping", "udpload", "ip") and not kernel_thread:
            seconds[pid] = (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


class Meter:
    """CPU and memory of the gateways' processes over the time of a `with`."""

    def __init__(self, processes):
        self.processes = processes

    def by_side(self, measure):
        """Several processes of a side count together."""
        sum_of = {}
        for side, pid in self.processes:
            sum_of[side] = sum_of.get(side, 0) + measure(pid)
        return sum_of

    def __enter__(self):
        self.own = {pid for _, pid in self.processes}
        self.cpu = self.by_side(cpu_seconds)
        self.foreign = foreign_seconds(self.own)
        self.busy, self.steal = machine_seconds()
        self.begun = time.monotonic()
        return self

    def __exit__(self, *_):
        wall = time.monotonic() - self.begun
        cpu = self.by_side(cpu_seconds)
        busy, steal = machine_seconds()
        foreign = sum(max(0, now - self.foreign.get(pid, 0)) for pid, now in foreign_seconds(self.own).items())
        self.read = {
            "wall": wall,
            "gw_cpu": {side: cpu[side] - self.cpu[side] for side in cpu},
            "total_cpu": busy - self.busy,
            "steal": steal - self.steal,
            "foreign": foreign,
            "rss": self.by_side(peak_rss),
            "pss": self.by_side(proportional_set),
        }


# ---- tests: each gives what was measured


@contextmanager
def running(command, **options):
    """A process that is gone at the end of the `with`, however that comes."""
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for_port(kind, port):
    """Waits until the server's host has a socket on the port."""
    for _ in range(60):
        if subprocess.check_output(on(SERVER, "ss", f"-Hln{kind}", "sport", "=", f":{port}")):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port}")


def quantile(sorted_values, share):
    if not sorted_values:
        return float("nan")
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def pings(output, sent):
    times = sorted(float(time) for time in re.findall(r"time=([\d.]+)", output))
    read = {f"p{share}": quantile(times, share / 100) for share in (50, 90, 99)}
    return {"n": len(times), "lost": sent - len(times), **read, "max": quantile(times, 1)}


def ping_command(count):
    return on(CLIENT, "ping", "-i", "0.01", "-c", count, "-W", "1", SERVER_IP)


def ping_idle(_processes, _seconds):
    return pings(subprocess.run(ping_command(200), stdout=subprocess.PIPE, text=True).stdout, 200)


def tcp(streams, reverse=False, ping=False, wire=False):
    def test(processes, seconds):
        if wire:
            topology("wan", "wire")
        # The first second is left out of the rate.
        command = on(CLIENT, "iperf3", "-c", SERVER_IP, "-t", seconds, "-O", 1, "-P", streams, "-J")
        command += ["-R"] if reverse else []
        count = int(seconds * 100 - 60)
        with running(on(SERVER, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            wait_for_port("t", 5201)
            echo = ""
            with Meter(processes) as meter, running(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
                if ping:
                    time.sleep(1)
                    with running(ping_command(count), stdout=subprocess.PIPE) as pinger:
                        echo, _ = pinger.communicate(timeout=seconds + 12)
                output, _ = client.communicate(timeout=seconds + 12)
            server.wait(3)
        report = json.loads(output)
        if "error" in report:
            raise RuntimeError("iperf3: " + report["error"])
        end = report["end"]
        measured = {
            "bps": end["sum_received"]["bits_per_second"],
            "retr": end["sum_sent"].get("retransmits"),
            "congestion": end.get("sender_tcp_congestion"),
            # The CPU is that of the whole transfer, so are the bytes: with the first second.
            "bytes": sum(interval["sum"]["bytes"] for interval in report["intervals"]),
        }
        if ping:
            measured["ping"] = pings(echo, count)
        return measured | meter.read

    return test


def udp(size, rate):
    def test(processes, seconds):
        with running(on(SERVER, LOAD, "recv", 9000, seconds + 1), stdout=subprocess.PIPE) as receiver:
            wait_for_port("u", 9000)
            with Meter(processes) as meter:
                sent = json.loads(subprocess.check_output(on(CLIENT, LOAD, "send", SERVER_IP, 9000, size, seconds, rate)))["sent"]
                time.sleep(0.2)
            received = json.loads(receiver.communicate(timeout=10)[0])["recv"]
        loss = 1 - received / max(1, sent)
        measured = {"sent": sent, "recv": received, "pps": received / seconds, "offered": sent / seconds, "loss": loss}
        return measured | meter.read

    return test


TESTS = {
    "ping_idle": ping_idle,
    "tcp1_fwd": tcp(1),
    "tcp1_rev": tcp(1, reverse=True),
    "tcp4_fwd": tcp(4, ping=True),
    "tcp4_rev": tcp(4, reverse=True),
    "udp64_30k": udp(64, 30000),
    "udp64_max": udp(64, 0),
    "udp200_max": udp(200, 0),
    "wire_tcp1_fwd": tcp(1, wire=True),
    "wire_tcp4_fwd": tcp(4, wire=True),
}


def chosen_tests(text):
    """Names joined by commas; the beginning of names stands for all of them."""
    chosen = []
    for word in text.split(","):
        matching = [name for name in TESTS if name.startswith(word)]
        if not matching:
            raise argparse.ArgumentTypeError(f"no test begins with {word!r}; there are {', '.join(TESTS)}")
        chosen += [name for name in matching if name not in chosen]
    return chosen


# ---- the run


def without_nan(value):
    """JSON has no NaN: what could not be read is null."""
    if isinstance(value, dict):
        return {key: without_nan(part) for key, part in value.items()}
    return None if value != value else value


class Output:
    def __init__(self, path, as_json):
        self.file = open(path, "w") if path else None
        self.as_json = as_json

    def write(self, about, record):
        record = without_nan(about | record) | {"load": os.getloadavg()[0], "time": time.time()}
        line = json.dumps(record)
        if self.file:
            print(line, file=self.file, flush=True)
        if self.as_json:
            print(line, flush=True)
            return
        told = [f"{key}={record[key]:.3g}" for key in ("bps", "pps", "loss", "p50", "p99") if record.get(key) is not None]
        told += [f"{key}: {record[key]}" for key in ("failed", "error", "left") if key in record]
        print(record["rep"], record["contender"], record.get("test", ""), *told, file=sys.stderr)


def measure(name, repetition, options, output):
    """One contender, once: up, every test, down."""
    about = {"rep": repetition, "contender": name}
    before = network()
    try:
        processes = bring_up(name)
        for test in options.tests:
            try:
                measured = TESTS[test](processes, options.t)
            except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                measured = {"error": f"{type(error).__name__}: {error}"}
            if test.startswith("wire"):
                topology("wan", "veth")
            output.write(about | {"test": test}, measured)
    except Failed as failure:
        output.write(about, {"failed": str(failure)})
    finally:
        contender(name, "down")
    time.sleep(0.3)
    left = [line for line in network() if line not in before]
    if left:
        output.write(about, {"left": left})


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", type=int, default=3, help="repetitions (3)")
    parser.add_argument("-t", type=int, default=3, help=f"seconds of each test (3), at most {MOST_SECONDS}")
    parser.add_argument("-o", help="file for the measurements")
    parser.add_argument("--tests", type=chosen_tests, default=list(TESTS), help="names joined by commas; a beginning is enough")
    parser.add_argument("--json", action="store_true", help="measurements on stdout, instead of a line about each on stderr")
    parser.add_argument("contenders", nargs="+", metavar="CONTENDER")
    options = parser.parse_args()
    for name in options.contenders:
        if not (HERE / "contenders" / f"{name}.sh").exists():
            parser.error(f"there is no contenders/{name}.sh")
    if not 1 <= options.t <= MOST_SECONDS or options.r < 1:
        parser.error(f"1 to {MOST_SECONDS} seconds, 1 repetition or more")
    return options


def main():
    options = arguments()
    # Ctrl-C and SIGTERM end the `with`s and `finally`s in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    output = Output(options.o, options.json)
    topology("up")
    try:
        for repetition in range(options.r):
            first = repetition % len(options.contenders)
            for name in options.contenders[first:] + options.contenders[:first]:
                measure(name, repetition, options, output)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        topology("down")


if __name__ == "__main__":
    main()
